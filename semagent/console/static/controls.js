// What an operator can do: buttons and keys become wishes, and every wish is answered in words.

import * as format from "./format.js";
import { onEscape, pressed, stepThrough } from "./keys.js";
import { ask, STOPPED, toast } from "./wishes.js";

const DEPTHS = [0.25, 1, 4];
const SPARE_MS = 5000; // for the way there and back
const STIGMATOR_STEPS = [0.001, 0.005, 0.02];
const el = (id) => document.getElementById(id);

export class Controls {
  // state: { facts, hello, sequence() }; now(): the time over there in milliseconds, if it is known.
  constructor(state, stage, now) {
    this.state = state;
    this.now = now;
    this.stage = stage;
    el("step-stig").replaceChildren(...STIGMATOR_STEPS.map((step) => new Option(String(step))));
    el("step-stig").selectedIndex = 1;
    this.sayStep();
    this.listen();
  }

  get mayCommand() {
    return el("live").dataset.level === "operator";
  }

  // Whether it was done.
  async wish(wish, button) {
    if (!this.mayCommand) return false;
    button?.classList.add("busy");
    const done = await ask(wish, this.now(), this.answerMs(wish));
    if (done) this.done(wish);
    button?.classList.remove("busy");
    return done;
  }

  answerMs(wish) {
    const { hello } = this.state;
    return wish.type === "stop" || !hello ? undefined : 1000 * hello.longest_wait_s + SPARE_MS;
  }

  done(wish) {
    const words = {
      stop: STOPPED,
      note: "Noted in the record.",
      mark: `Frame ${wish.sequence} is marked.`,
      decline: "Declined.",
    }[wish.type];
    if (words) toast(words);
  }

  // -- what the buttons do -------------------------------------------------------------------

  stop = () => this.wish({ type: "stop" }, el("stop"));
  arm = () => this.wish({ type: "arm" }, el("arm"));
  disarm = () => this.wish({ type: "disarm" }, el("disarm"));
  focus = () => this.wish({ type: "focus", stigmation: false }, el("focus"));
  stigmate = () => this.wish({ type: "focus", stigmation: true }, el("stigmate"));
  cancel = () => this.wish({ type: "cancel" }, el("cancel"));
  accept = () => this.answerProposal("accept");
  decline = () => this.answerProposal("decline");

  answerProposal(type) {
    const place = this.state.facts?.intent?.proposal_m;
    if (place !== null && place !== undefined) this.wish({ type, working_distance_m: place }, el(type));
  }

  nudge(axis, sign, button) {
    const step = Number(el(axis === "working_distance" ? "step-wd" : "step-stig").value);
    if (step) this.wish({ type: "nudge", axis, by: sign * step }, button);
    else toast("Not asked: there is no frame yet, so nobody knows how far a step is.", "warning");
  }

  mark = () => {
    const sequence = this.state.sequence();
    if (sequence) this.remark({ type: "mark", sequence }, el("mark"));
  };

  // What was written goes along; it is still there if it could not be noted.
  async remark(wish, button) {
    const text = el("note").value.trim();
    if (!text && wish.type === "note") return;
    el("note").value = "";
    if (!await this.wish({ ...wish, text }, button)) el("note").value ||= text;
  }

  // -- steps and limits ----------------------------------------------------------------------

  // Steps of the working distance are told in depths of field, so they fit every magnification.
  offerSteps(halfDepthM) {
    const select = el("step-wd");
    if (!halfDepthM || select.dataset.for === String(halfDepthM)) return;
    select.dataset.for = String(halfDepthM);
    const chosen = Math.max(0, select.selectedIndex === -1 ? 1 : select.selectedIndex);
    select.replaceChildren(...DEPTHS.map((depths) => {
      const step = 2 * depths * halfDepthM;
      return new Option(format.plainLength(step), String(step));
    }));
    select.selectedIndex = chosen;
  }

  greet(hello) {
    const { working_distance: wd, stigmator } = hello.limits;
    const words = [];
    words.push(wd ? `WD ${format.length(wd.min, 2)} to ${format.length(wd.max, 2)}, at most ${format.plainLength(wd.max_step)} a step` : "the working distance may not be moved");
    words.push(stigmator ? `stigmators ${format.signed(stigmator.min, 2)} to ${format.signed(stigmator.max, 2)}` : "the stigmators may not be moved");
    el("limits").textContent = `Envelope for ${hello.specimen_holder}: ${words.join("; ")}.`;
    for (const button of document.querySelectorAll("[data-nudge]")) {
      button.disabled = button.dataset.nudge === "working_distance" ? !wd : !stigmator || !hello.capabilities.stigmator;
    }
    el("stigmate").disabled = !stigmator || !hello.capabilities.stigmator;
  }

  sayStep() {
    el("step-stig-y").textContent = el("step-stig").selectedOptions[0]?.textContent ?? "";
  }

  // -- hands ---------------------------------------------------------------------------------

  listen() {
    for (const name of ["arm", "disarm", "focus", "stigmate", "cancel", "accept", "decline", "mark"]) {
      el(name).addEventListener("click", this[name]);
    }
    for (const button of el("modes").children) {
      button.addEventListener("click", () => this.wish({ type: "mode", mode: button.dataset.mode }, button));
    }
    for (const button of document.querySelectorAll("[data-nudge]")) {
      button.addEventListener("click", () => this.nudge(button.dataset.nudge, Number(button.dataset.sign), button));
    }
    el("step-stig").addEventListener("change", () => this.sayStep());
    el("note-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.remark({ type: "note" }, event.submitter);
    });
    stepThrough(el("modes"));
    onEscape(this.stop);
    document.addEventListener("keydown", (event) => {
      if (!event.repeat) pressed(event, this.keys);
    }, true);
  }

  get keys() {
    const click = (id) => () => { if (!el(id).disabled) el(id).click(); };
    return {
      d: this.disarm, f: this.focus, s: click("stigmate"), c: this.cancel,
      y: this.accept, n: this.decline, m: this.mark,
      "[": () => this.nudge("working_distance", -1), "]": () => this.nudge("working_distance", 1),
      ...this.stage.keys,
      "?": () => el("help-button").click(),
    };
  }
}

// What an operator can do: buttons and keys become wishes, and every wish is answered in words.

import * as format from "./format.js";

const TOAST_MS = 6000;
const DEPTHS = [0.25, 1, 4];
const STIGMATOR_STEPS = [0.001, 0.005, 0.02];
const el = (id) => document.getElementById(id);

export class Controls {
  // state: { facts, hello, sequence() }
  constructor(state, view) {
    this.state = state;
    this.view = view;
    this.listen();
  }

  get mayCommand() {
    return this.state.hello?.level === "operator";
  }

  async wish(wish, button) {
    if (!this.mayCommand) return;
    button?.classList.add("busy");
    try {
      const answer = await fetch("/api/wish", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(wish),
        keepalive: true,
      });
      const { outcome, reason } = await answer.json();
      if (outcome === "applied") this.done(wish);
      else toast(`${outcome === "refused" ? "Refused" : "Failed"}: ${reason}`, outcome === "refused" ? "warning" : "error");
    } catch {
      const stop = wish.type === "stop" ? " Stop at the microscope itself." : "";
      toast(`semagent cannot be reached.${stop}`, "error");
    } finally {
      button?.classList.remove("busy");
    }
  }

  done(wish) {
    const words = {
      stop: "Stopped. The gate is disarmed.",
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
    this.wish({ type: "nudge", axis, by: sign * step }, button);
  }

  mark = () => {
    const sequence = this.state.sequence();
    if (sequence) this.wish({ type: "mark", sequence, text: takeNote() }, el("mark"));
  };

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
    el("step-stig").replaceChildren(...STIGMATOR_STEPS.map((step) => new Option(`${step * 100} %`, String(step))));
    el("step-stig").selectedIndex = 1;
    this.sayStep();
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
      const text = takeNote();
      if (text) this.wish({ type: "note", text }, event.submitter);
    });
    for (const group of document.querySelectorAll("[role=radiogroup]")) {
      group.addEventListener("keydown", (event) => step(event));
    }
    document.addEventListener("keydown", (event) => this.key(event), true);
  }

  key(event) {
    if (event.key === "Escape") {
      // From anywhere, also while typing: nothing is more urgent.
      event.preventDefault();
      this.stop();
      return;
    }
    const typing = event.target.matches("input:not([type=range]), textarea, select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const press = this.keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!press) return;
    event.preventDefault();
    press();
  }

  get keys() {
    const click = (id) => () => { if (!el(id).disabled) el(id).click(); };
    return {
      d: this.disarm, f: this.focus, s: click("stigmate"), c: this.cancel,
      y: this.accept, n: this.decline, m: this.mark,
      "[": () => this.nudge("working_distance", -1), "]": () => this.nudge("working_distance", 1),
      1: () => this.view.show("raw"), 2: () => this.view.show("restored"),
      3: () => this.view.show("side"), 4: () => this.view.show("wipe"),
      "+": () => this.view.zoomBy(1.4), "=": () => this.view.zoomBy(1.4), "-": () => this.view.zoomBy(1 / 1.4),
      0: () => this.view.zoomTo(null), 9: () => this.view.zoomTo(1),
      k: click("contrast-auto"), i: click("map-consistency"), x: click("map-experts"),
      "?": () => el("help-button").click(),
    };
  }
}

// Arrows move along a group; only Enter or Space choose, for some choices move a microscope.
function step(event) {
  const way = { ArrowLeft: "previous", ArrowRight: "next" }[event.key];
  if (!way) return;
  event.preventDefault();
  event.target[`${way}ElementSibling`]?.focus();
}

export function toast(text, level = "info") {
  const line = document.createElement("p");
  line.className = level;
  line.textContent = text;
  el("toasts").prepend(line);
  while (el("toasts").children.length > 3) el("toasts").lastChild.remove();
  setTimeout(() => line.remove(), TOAST_MS);
}

function takeNote() {
  const text = el("note").value.trim();
  el("note").value = "";
  return text;
}

// The panels beside the picture, from what the console knows of the run.

import * as format from "./format.js";
import { say } from "./format.js";
import * as plots from "./plots.js";
import { showHealth } from "./health.js";
import { expertColour } from "./maps.js";

const SPANS_S = [20, 60, 180];
const REFUSALS = 3;
const LOG_LINES = 200;
const POINTS = 3000;
const CURVES_MS = 500; // between two drawings of the histories
const el = (id) => document.getElementById(id);

export class Panels {
  constructor() {
    this.history = [];
    this.facts = null;
    this.drawn = {}; // what the plots show, by name
    this.hello = null;
    this.refusals = [];
    this.newest = null; // what the newest line of the log has in common with others like it
    this.due = 0; // the timer until the histories are drawn
    new ResizeObserver(() => this.draw()).observe(el("posterior"));
  }

  // History and log are about to be sent whole again.
  forget() {
    this.history = [];
    this.refusals = [];
    this.newest = null;
    el("log").replaceChildren();
  }

  take({ facts, history, log }) {
    this.facts = facts;
    this.history.push(...history);
    if (this.history.length > POINTS) this.history.splice(0, this.history.length - POINTS);
    if (log.length) this.addLog(log);
    this.gate(facts.gate);
    this.agent(facts);
    this.numbers(facts);
    showHealth(facts.health);
    this.drawNow();
    this.due ||= setTimeout(() => {
      this.due = 0;
      this.drawHistories();
    }, CURVES_MS);
  }

  // What a reader of numbers sees; the plots say the same.
  numbers({ analysis, empty, restored, belief, optics, half_depth_m: half, dose, health: { stale_s: stale } }) {
    const here = optics?.working_distance_m;
    const old = stale === null ? "" : `, ${Math.round(stale)} s ago`;
    say(el("score-now"), format.number(analysis?.focus_score, 3) + (empty ? ", nothing to see" : "") + old);
    say(el("wd-now"), format.length(here));
    const known = belief && belief.focus_m !== null;
    say(el("focus-value"), known ? format.length(belief.focus_m) : "not known");
    say(el("focus-sigma"), known ? `± ${format.length(belief.sigma_m)}${old}` : "");
    // Neither a wide guess nor an old answer must look like one of now.
    el("focus-value").parentElement.classList.toggle("vague", !known || belief.sigma_m > half || stale !== null);
    el("posterior").classList.toggle("old", stale !== null);
    say(el("focus-words"), this.inWords(belief, here, half, stale));
    const { stigmator_correction: change, stigmator_sigma: sigma } = belief ?? {};
    const part = (name, i) => `Δ${name} ${format.signed(change[i], 3)} ± ${format.number(sigma[i], 3)}`;
    say(el("stigmator-words"), change && sigma ? `${part("x", 0)}\n${part("y", 1)}` : "");
    const perFrame = dose.per_frame_e_nm2;
    format.fill(el("dose-facts"), [
      ["frames here", String(dose.frames_here)],
      ["a frame", perFrame === null ? "–" : `${format.number(perFrame, perFrame < 10 ? 2 : 0)} e/nm²`],
      ["here so far", dose.here_e_nm2 === null ? "–" : `${format.number(dose.here_e_nm2, dose.here_e_nm2 < 10 ? 2 : 0)} e/nm²`],
      ["frames in all", String(dose.frames)],
    ]);
    this.experts(restored?.expert_weights);
  }

  inWords(belief, here, half, stale) {
    if (stale !== null) return `No frame has been analysed for ${Math.round(stale)} s: what is in focus now is not known.`;
    if (!belief || belief.focus_m === null) return "The frames so far do not say where focus is.";
    const range = belief.interval90_m
      ? ` 90 % between ${format.length(belief.interval90_m[0])} and ${format.length(belief.interval90_m[1])}.`
      : "";
    if (half === null) return `How far that is from here is known with the next frame.${range}`;
    if (belief.sigma_m > 5 * half) return `Hardly more than a guess yet: half the depth of field is ${format.length(half)}.${range}`;
    const inside = plots.modesOf(belief).reduce((sum, { weight, focus_m: focus, sigma_m: sigma }) => (
      sum + weight * (normal((here + half - focus) / sigma) - normal((here - half - focus) / sigma))
    ), 0);
    return `${format.offset(belief.focus_m - here)} from here; in focus with ${format.percent(inside)} (half depth of field ${format.length(half)}).${range}`;
  }

  experts(shares) {
    el("experts").hidden = !shares;
    if (!shares) return;
    const rows = el("expert-bars").children;
    if (rows.length !== shares.length) el("expert-bars").replaceChildren(...shares.map((_, index) => expertRow(index)));
    shares.forEach((share, index) => {
      const [, bar, value] = rows[index].children;
      bar.value = share;
      say(value, `${Math.round(100 * share)} %`);
    });
  }

  gate(gate) {
    if (!gate) return;
    const card = el("gate");
    card.classList.toggle("armed", gate.armed);
    card.classList.toggle("disarmed", !gate.armed);
    say(el("gate-state"), gate.armed ? "ARMED" : "DISARMED");
    say(el("gate-reason"), `${gate.reason} · ${gate.applied} applied, ${gate.refused} refused`);
    el("arm").disabled = gate.armed;
    el("disarm").disabled = !gate.armed;
  }

  agent({ intent, optics }) {
    if (!intent) return;
    for (const button of el("modes").children) {
      button.setAttribute("aria-checked", String(button.dataset.mode === intent.mode));
    }
    const chip = el("doing");
    say(chip, intent.doing);
    chip.className = `chip ${{ paused: "warn", returning: "warn", focusing: "good", holding: "good" }[intent.doing] ?? ""}`;
    say(el("why"), intent.why);
    const frames = intent.frames;
    el("progress").hidden = !intent.max_frames;
    if (intent.max_frames) {
      el("progress").firstElementChild.style.width = `${(100 * frames) / intent.max_frames}%`;
      el("progress").setAttribute("aria-valuenow", String(frames));
      el("progress").setAttribute("aria-valuemax", String(intent.max_frames));
    }
    const task = [];
    if (intent.max_frames) task.push(`frame ${frames} of at most ${intent.max_frames}, ${intent.moves ?? 0} moves`);
    if (intent.target_m !== null) task.push(`on the way to ${format.length(intent.target_m)}`);
    say(el("task"), task.join(" · "));
    el("proposal").hidden = intent.proposal_m === null;
    if (intent.proposal_m !== null) {
      say(el("proposal-value"), format.length(intent.proposal_m));
      const away = optics ? `${format.offset(intent.proposal_m - optics.working_distance_m)} from here` : "";
      say(el("proposal-away"), away);
    }
  }

  addLog(entries) {
    const list = el("log");
    for (const entry of entries) {
      const again = entry.alike !== null && entry.alike === this.newest;
      this.newest = entry.alike;
      const line = logLine(entry);
      if (again) list.firstChild.replaceWith(line);
      else list.prepend(line);
      if (["refused", "failed"].includes(entry.kind) && entry.code) this.refusals.unshift(entry);
    }
    while (list.children.length > LOG_LINES) list.lastChild.remove();
    this.refusals.length = Math.min(this.refusals.length, REFUSALS);
    el("refusals").replaceChildren(...this.refusals.map((entry) => {
      const item = document.createElement("li");
      const what = document.createElement("b");
      what.textContent = `${format.clock(entry.wall_ns)} ${entry.kind} (${entry.code.replaceAll("_", " ")}) `;
      item.append(what, entry.text);
      return item;
    }));
  }

  // The end of the histories is the newest frame, be it analysed or not.
  get end() {
    return Math.max(this.facts.frame.monotonic_ns / 1e9, this.history.at(-1)?.t_s ?? 0);
  }

  // Seconds the histories show: the shortest span that holds all, or the longest.
  get span() {
    const seconds = this.history.length ? this.end - this.history[0].t_s : 0;
    return SPANS_S.find((span) => span >= seconds) ?? SPANS_S.at(-1);
  }

  draw() {
    this.drawn = {};
    this.drawNow();
    this.drawHistories();
  }

  // Together with the words that say the same, and only if there is something new to be said.
  drawNow() {
    if (!this.facts?.frame) return;
    const { frame, optics, belief, intent, half_depth_m: halfDepthM } = this.facts;
    this.drawChanged("posterior", {
      hereM: optics.working_distance_m,
      belief,
      halfDepthM,
      proposalM: intent?.proposal_m,
    });
    this.drawChanged("stigmators", {
      x: optics.stigmator_x,
      y: optics.stigmator_y,
      from: [frame.optics.stigmator_x, frame.optics.stigmator_y],
      correction: belief?.stigmator_correction,
      sigma: belief?.stigmator_sigma,
      limits: this.hello?.limits.stigmator,
    });
  }

  drawChanged(name, figures) {
    const said = JSON.stringify(figures);
    if (this.drawn[name] === said) return;
    this.drawn[name] = said;
    plots[name](el(name), figures);
  }

  drawHistories() {
    if (!this.facts?.frame) return;
    const time = { end: this.end, seconds: this.span };
    plots.scores(el("scores"), this.history, time);
    plots.distances(el("distances"), this.history, time, this.facts.half_depth_m);
  }
}

function logLine(entry) {
  const item = document.createElement("li");
  item.className = entry.level;
  const time = document.createElement("time");
  time.textContent = format.clock(entry.wall_ns);
  const who = document.createElement("span");
  who.className = "who";
  who.textContent = entry.who;
  const text = document.createElement("span");
  text.textContent = entry.count > 1 ? `${entry.text} · ${entry.count} ${entry.alike}` : entry.text;
  item.append(time, who, text);
  return item;
}

function expertRow(index) {
  const row = document.createElement("div");
  const name = document.createElement("span");
  const bar = document.createElement("meter");
  name.textContent = String(index + 1);
  name.style.color = expertColour(index);
  bar.setAttribute("aria-label", `share of expert ${index + 1}`);
  row.append(name, bar, document.createElement("span"));
  return row;
}

// The normal distribution function, to about 1e-7 (Abramowitz and Stegun 26.2.17).
function normal(z) {
  const t = 1 / (1 + 0.2316419 * Math.abs(z));
  const tail = Math.exp(-0.5 * z * z) / Math.sqrt(2 * Math.PI)
    * t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return z < 0 ? tail : 1 - tail;
}

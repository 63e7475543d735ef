// The page of a recorded session: its frames, its timeline, and everything that was decided.

import * as format from "./format.js";
import { buildBar } from "./bar.js";
import { pressed, stepThrough } from "./keys.js";
import { codingFor, unpack } from "./link.js";
import { Making, UNREACHED } from "./making.js";
import { decode } from "./picture.js";
import { frameFacts, Stage } from "./stage.js";
import { clock, Timeline } from "./timeline.js";

const LISTED = 3000;
const FASTEST_MS = 60; // between two frames that are played
const SLOWEST_MS = 1000;
const el = (id) => document.getElementById(id);
const here = location.pathname.replace(/\/$/, "");

class Session {
  constructor() {
    this.record = { frames: [], happenings: [] }; // until it has come
    this.index = 0;
    this.kinds = "";
    this.playing = null;
    this.loading = null;
    this.wanted = ["raw"];
    this.stage = new Stage((kinds) => {
      this.wanted = kinds;
      this.load();
    });
    this.stage.view.contrast.calm = 1; // frames are stills here
    this.stage.view.absent = "This frame was not restored.";
    this.timeline = new Timeline(el("timeline"), (seconds) => this.go(this.nearest(seconds)));
    this.listen();
  }

  async open() {
    const answer = await get("record").catch((error) => { el("veil").textContent = error.message; });
    if (!answer) return;
    const { level, map, record, grows } = await answer.json();
    this.record = record;
    const { frames, happenings } = record;
    el("session").dataset.level = level;
    this.describe(grows);
    if (map) this.showMap();
    this.timeline.show(frames, happenings);
    this.list();
    new Making(here, level === "operator");
    el("scrubber").max = String(Math.max(0, frames.length - 1));
    el("scrubber").disabled = !frames.length;
    el("restored").disabled = !frames.some((frame) => frame.restored);
    if (!frames.length) el("veil").textContent = "No frame was recorded.";
    else this.go(this.asked());
  }

  // The frame the address names, or the last one.
  asked() {
    const named = Number(new URLSearchParams(location.hash.slice(1)).get("frame"));
    const index = this.record.frames.findIndex((frame) => frame.sequence === named);
    return index >= 0 ? index : this.record.frames.length - 1;
  }

  nearest(seconds) {
    const { frames } = this.record;
    let low = 0;
    let high = frames.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (frames[middle].t_s < seconds) low = middle + 1;
      else high = middle;
    }
    const before = Math.max(0, low - 1);
    return seconds - frames[before].t_s < frames[low].t_s - seconds ? before : low;
  }

  // The next frame that was restored, after the last the first again.
  nextRestored() {
    const { frames } = this.record;
    const next = frames.findIndex((frame, index) => index > this.index && frame.restored);
    return next >= 0 ? next : frames.findIndex((frame) => frame.restored);
  }

  go(index) {
    const { frames } = this.record;
    if (!frames.length) return Promise.resolve();
    this.index = Math.min(frames.length - 1, Math.max(0, index));
    const frame = frames[this.index];
    el("scrubber").value = String(this.index);
    el("scrubber").setAttribute("aria-valuetext", `frame ${frame.sequence}, ${clock(frame.t_s)}`);
    const wall = this.record.zero_wall_ms + 1000 * frame.t_s;
    el("moment").textContent = `frame ${frame.sequence} · ${clock(frame.t_s)} · ${format.clock(wall * 1e6)}`;
    history.replaceState(null, "", `#frame=${frame.sequence}`);
    this.timeline.moveTo(frame.t_s);
    this.mark(frame.sequence);
    return this.load();
  }

  // Fetches what is shown; if frames are asked for faster than they come, only the last one.
  async load() {
    const frame = this.record.frames[this.index];
    if (!frame) return;
    this.loading?.abort();
    const loading = new AbortController();
    this.loading = loading;
    const { view } = this.stage;
    try {
      const kinds = this.wanted.filter((kind) => kind === "raw" || frame.restored);
      const pictures = await Promise.all(kinds.map((kind) => this.fetch(kind, frame.sequence, loading.signal)));
      if (this.loading !== loading) return;
      if (!frame.restored) view.restored = null;
      await Promise.all(pictures.map((picture) => view.add(picture)));
      frameFacts(pictures[0].head, this.figures(frame));
      this.stage.follow();
      el("veil").textContent = view.missing;
    } catch (error) {
      if (error.name === "AbortError") return;
      view.forget();
      format.fill(el("frame-facts"), [["frame", String(frame.sequence)], ...this.figures(frame)]);
      el("veil").textContent = error.message;
    }
  }

  async fetch(kind, sequence, signal) {
    const place = kind === "raw" ? "frames" : "restored";
    const answer = await get(`${place}/${sequence}?coding=${codingFor(location.hostname)}`, signal);
    const { head, body } = unpack(await answer.arrayBuffer());
    return decode(head, body);
  }

  figures(frame) {
    const known = frame.focus_m !== null;
    return [
      ["score", format.number(frame.score, 3)],
      ["focus", known ? `${format.length(frame.focus_m)} ± ${format.length(frame.sigma_m)}` : "not known"],
      ["restored", frame.restored ? "yes" : "no"],
    ];
  }

  // -- beside the picture --------------------------------------------------------------------

  describe(grows) {
    const { record } = this;
    const { capabilities } = record;
    document.title = `${record.name} · semagent`;
    el("session-name").textContent = record.name;
    const driver = capabilities.simulated ? "simulated" : capabilities.verified_on ?? "driver never run on its hardware";
    format.fill(el("session-facts"), [
      ["instrument", record.instrument],
      ["microscope", `${capabilities.microscope} (${driver})`],
      ["started", format.moment(record.started_wall_ns)],
      ["lasted", record.lasted_s === null ? "–" : clock(record.lasted_s)],
      ["frames", `${record.frames.length}, ${record.frames.filter((frame) => frame.restored).length} restored`],
      ["engine", record.engine],
    ]);
    const problems = record.problems
      .filter(({ kind }) => !(grows && kind === "not_closed"))
      .map(({ file, message }) => `${file}: ${message}`);
    if (grows) problems.push("It is still being recorded; load this page again for what has come since.");
    el("problems").replaceChildren(...problems.map(item));
  }

  showMap() {
    el("map-card").hidden = false;
    el("map").src = `${here}/map.png`;
    el("map-link").href = `${here}/map.png`;
  }

  list() {
    const chosen = this.record.happenings.filter((each) => !this.kinds || each.kind === this.kinds);
    const shown = chosen.slice(0, LISTED);
    el("count").textContent = shown.length < chosen.length ? `the first ${LISTED} of ${chosen.length}` : String(chosen.length);
    el("happenings").replaceChildren(...shown.map((each) => this.entry(each)));
    this.mark(this.record.frames[this.index]?.sequence);
  }

  entry(each) {
    const entry = document.createElement("li");
    entry.className = `${each.kind} ${each.level}`;
    const jump = document.createElement("button");
    const words = [["time", clock(each.t_s)], ["who", each.who], ["what", each.text], ["why", each.why]];
    for (const [name, text] of words.filter(([, said]) => said)) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      jump.append(part);
    }
    jump.dataset.sequence = String(each.sequence);
    jump.addEventListener("click", () => {
      this.pause();
      this.go(this.record.frames.findIndex((frame) => frame.sequence === each.sequence));
    });
    entry.append(jump);
    return entry;
  }

  // Marks the entries that belong to the frame that is shown.
  mark(sequence) {
    for (const button of el("happenings").querySelectorAll("[aria-current]")) button.removeAttribute("aria-current");
    for (const button of el("happenings").querySelectorAll(`[data-sequence="${sequence}"]`)) button.setAttribute("aria-current", "true");
  }

  // -- hands ---------------------------------------------------------------------------------

  listen() {
    const step = (by) => () => { this.pause(); this.go(this.index + by); };
    el("before").addEventListener("click", step(-1));
    el("after").addEventListener("click", step(1));
    el("restored").addEventListener("click", () => { this.pause(); this.go(this.nextRestored()); });
    el("play").addEventListener("click", () => (this.playing ? this.pause() : this.play()));
    el("scrubber").addEventListener("input", () => this.go(Number(el("scrubber").value)));
    for (const button of el("kinds").children) {
      button.addEventListener("click", () => {
        this.kinds = button.dataset.kinds;
        for (const other of el("kinds").children) other.setAttribute("aria-checked", String(other === button));
        this.list();
      });
    }
    stepThrough(el("kinds"));
    const keys = {
      ...this.stage.keys,
      ",": step(-1), ".": step(1), p: () => el("play").click(), r: () => el("restored").click(),
      "[": () => this.timeline.zoomBy(1 / 1.5), "]": () => this.timeline.zoomBy(1.5),
      "?": () => el("help-button").click(),
    };
    document.addEventListener("keydown", (event) => pressed(event, keys));
  }

  play() {
    if (!this.record.frames.length) return;
    if (this.index === this.record.frames.length - 1) this.index = 0;
    const run = (this.playing = {});
    this.showPlaying();
    const next = async () => {
      if (this.playing !== run) return;
      const { frames } = this.record;
      if (this.index >= frames.length - 1) {
        this.pause();
        return;
      }
      const apart = 1000 * (frames[this.index + 1].t_s - frames[this.index].t_s);
      const began = performance.now();
      await this.go(this.index + 1);
      setTimeout(next, Math.min(SLOWEST_MS, Math.max(FASTEST_MS, apart)) - (performance.now() - began));
    };
    next();
  }

  pause() {
    this.playing = null;
    this.showPlaying();
  }

  showPlaying() {
    el("play").setAttribute("aria-pressed", String(Boolean(this.playing)));
    el("play").textContent = this.playing ? "Pause" : "Play";
  }
}

// What semagent answers; if it does not, or with a refusal, the error says so in words.
async function get(what, signal) {
  const answer = await fetch(`${here}/${what}`, { signal }).catch((error) => {
    throw signal?.aborted ? error : new Error(UNREACHED);
  });
  if (answer.status === 401) location.reload();
  if (!answer.ok) throw new Error(answer.status === 401 ? "" : await answer.text());
  return answer;
}

function item(text) {
  const line = document.createElement("li");
  line.textContent = text;
  return line;
}

buildBar();
el("freshness").remove();
el("help-button").classList.add("push");
const session = new Session();
session.open();

// For tests: which frame is on the screen.
window.semagent = { sequence: () => session.stage.view.raw?.sequence ?? 0 };

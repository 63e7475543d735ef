// The page of a recorded session: its frames, its timeline, and everything that was decided.

import * as format from "./format.js";
import { buildBar } from "./bar.js";
import { pressed, stepThrough } from "./keys.js";
import { codingFor, unpack } from "./link.js";
import { Making, UNREACHED } from "./making.js";
import { decode } from "./picture.js";
import { frameFacts, Stage } from "./stage.js";
import { clock, Timeline } from "./timeline.js";

const STEPS = 500; // frames that come at once
const FASTEST_MS = 60; // between two frames that are played
const SLOWEST_MS = 1000;
const el = (id) => document.getElementById(id);
const here = location.pathname.replace(/\/$/, "");

class Session {
  constructor() {
    this.record = { frames: 0 }; // until it has come
    this.parts = new Map(); // of the frames, as they were asked for
    this.index = 0;
    this.frame = null; // what is known of the one that is shown
    this.kind = "all";
    this.playing = null;
    this.loading = null;
    this.wanted = ["raw"];
    this.stage = new Stage((kinds) => {
      this.wanted = kinds;
      this.load();
    });
    this.stage.view.contrast.calm = 1; // frames are stills here
    this.stage.view.absent = "This frame was not restored.";
    this.timeline = new Timeline(
      el("timeline"), (frame) => this.go(frame.index), (begin, end) => this.look(begin, end),
    );
    this.listen();
  }

  async open() {
    const named = Number(new URLSearchParams(location.hash.slice(1)).get("frame"));
    const answer = await get(named > 0 ? `record/${named}` : "record").catch(this.fail);
    if (!answer) return;
    const { level, map, record, grows } = await answer.json();
    this.record = record;
    el("session").dataset.level = level;
    this.describe(grows);
    if (map) this.showMap();
    this.timeline.show(record.curve.frames, record.curve.marks, record.last_s);
    this.list(record.happenings);
    new Making(here, level === "operator");
    el("scrubber").max = String(Math.max(0, record.frames - 1));
    el("scrubber").disabled = !record.frames;
    el("restored").disabled = !record.restored;
    if (!record.frames) el("veil").textContent = "No frame was recorded.";
    else this.go(record.shown);
  }

  // A part of the timeline closely; if another one is asked for meanwhile, that one.
  async look(begin, end) {
    if (this.record.curve.frames.length === this.record.frames) return; // all are here
    const looking = (this.looking = {});
    const answer = await get(`curve/${begin.toFixed(3)}/${end.toFixed(3)}`).catch(() => null);
    const curve = await answer?.json();
    if (curve && this.looking === looking) this.timeline.show(curve.frames, curve.marks, this.record.last_s);
  }

  // What is known of one frame.
  async at(index) {
    const first = index - (index % STEPS);
    if (!this.parts.has(first)) this.parts.set(first, get(`steps/${first}`).then((answer) => answer.json()));
    try {
      return (await this.parts.get(first))[index - first];
    } catch (error) {
      this.parts.delete(first);
      throw error;
    }
  }

  async go(index) {
    if (!this.record.frames) return;
    this.index = Math.min(this.record.frames - 1, Math.max(0, index));
    const wanted = this.index;
    el("scrubber").value = String(wanted);
    const frame = await this.at(wanted).catch(this.fail);
    if (!frame || this.index !== wanted) return;
    this.frame = frame;
    el("scrubber").setAttribute("aria-valuetext", `frame ${frame.sequence}, ${clock(frame.t_s)}`);
    const wall = this.record.zero_wall_ms + 1000 * frame.t_s;
    el("moment").textContent = `frame ${frame.sequence} · ${clock(frame.t_s)} · ${format.clock(wall * 1e6)}`;
    history.replaceState(null, "", `#frame=${frame.sequence}`);
    this.timeline.moveTo(frame.t_s);
    this.mark();
    await this.load();
  }

  // Fetches what is shown; if frames are asked for faster than they come, only the last one.
  async load() {
    const { frame } = this;
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
      ["frames", `${record.frames}, ${record.restored} restored`],
      ["engine", record.engine],
    ]);
    const problems = record.problems.map(({ file, message }) => `${file}: ${message}`);
    if (record.more_problems) problems.push(`And ${record.more_problems} more.`);
    if (grows) problems.push("It is still being recorded; load this page again for what has come since.");
    el("problems").replaceChildren(...problems.map(item));
  }

  showMap() {
    el("map-card").hidden = false;
    el("map").src = `${here}/map.png`;
    el("map-link").href = `${here}/map.png`;
  }

  // The last of what happened; what came before on demand.
  list({ count, first, entries }) {
    el("count").textContent = first ? `the last ${count - first} of ${count}` : String(count);
    el("happenings").replaceChildren(...entries.map((each) => this.entry(each)));
    el("earlier").hidden = !first;
    this.first = first;
    this.mark();
  }

  async choose(kind) {
    this.kind = kind;
    const answer = await get(`happenings/${kind}`).catch(this.fail);
    const told = await answer?.json();
    if (told && this.kind === kind) this.list(told);
  }

  async earlier() {
    const { kind, first: before } = this;
    const answer = await get(`happenings/${kind}/${before}`).catch(this.fail);
    const told = await answer?.json();
    if (!told || this.kind !== kind || this.first !== before) return;
    el("happenings").prepend(...told.entries.map((each) => this.entry(each)));
    this.first = told.first;
    el("earlier").hidden = !told.first;
    const listed = el("happenings").children.length;
    el("count").textContent = told.first ? `the last ${listed} of ${told.count}` : String(told.count);
    this.mark(false);
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
    jump.dataset.index = String(each.index ?? 0);
    jump.addEventListener("click", () => {
      this.pause();
      this.go(each.index ?? 0);
    });
    entry.append(jump);
    return entry;
  }

  // Marks the entries that belong to the frame that is shown; the list comes along unless it is read.
  mark(comes = true) {
    const buttons = [...el("happenings").querySelectorAll("button")];
    for (const button of buttons) button.removeAttribute("aria-current");
    if (!this.frame) return;
    const current = buttons.filter((button) => button.dataset.sequence === String(this.frame.sequence));
    for (const button of current) button.setAttribute("aria-current", "true");
    if (!comes) return;
    const before = buttons.findLast((button) => Number(button.dataset.index) <= this.index);
    for (const button of [current.at(-1) ?? before, current[0]]) this.bring(button);
  }

  // Scrolls the list, and nothing around it, as far as is needed to see an entry.
  bring(entry) {
    if (!entry) return;
    const list = el("happenings");
    const [seen, wanted] = [list, entry].map((each) => each.getBoundingClientRect());
    list.scrollTop += Math.max(0, wanted.bottom - seen.bottom) + Math.min(0, wanted.top - seen.top);
  }

  // -- hands ---------------------------------------------------------------------------------

  listen() {
    const step = (by) => () => { this.pause(); this.go(this.index + by); };
    el("before").addEventListener("click", step(-1));
    el("after").addEventListener("click", step(1));
    el("restored").addEventListener("click", () => { this.pause(); this.go(this.frame?.next_restored ?? this.index); });
    el("play").addEventListener("click", () => (this.playing ? this.pause() : this.play()));
    el("scrubber").addEventListener("input", () => this.go(Number(el("scrubber").value)));
    for (const button of el("kinds").children) {
      button.addEventListener("click", () => {
        for (const other of el("kinds").children) other.setAttribute("aria-checked", String(other === button));
        this.choose(button.dataset.kind);
      });
    }
    stepThrough(el("kinds"));
    el("earlier").addEventListener("click", () => this.earlier());
    const keys = {
      ...this.stage.keys,
      ",": step(-1), ".": step(1), p: () => el("play").click(), r: () => el("restored").click(),
      "[": () => this.timeline.zoomBy(1 / 1.5), "]": () => this.timeline.zoomBy(1.5),
      "?": () => el("help-button").click(),
    };
    document.addEventListener("keydown", (event) => pressed(event, keys));
  }

  play() {
    if (!this.frame) return;
    if (this.index === this.record.frames - 1) this.index = 0;
    const run = (this.playing = {});
    this.showPlaying();
    const next = async () => {
      if (this.playing !== run) return;
      if (this.index >= this.record.frames - 1) {
        this.pause();
        return;
      }
      const before = this.frame.t_s;
      const began = performance.now();
      await this.go(this.index + 1);
      const apart = 1000 * (this.frame.t_s - before);
      setTimeout(next, Math.min(SLOWEST_MS, Math.max(FASTEST_MS, apart)) - (performance.now() - began));
    };
    next();
  }

  pause() {
    this.playing = null;
    this.showPlaying();
  }

  fail = (error) => {
    el("veil").textContent = error.message;
  };

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

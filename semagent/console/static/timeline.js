// A session over time, whole or closer: focus score, working distance and believed focus, and what happened.

import { begin, INK, line, rule, stepOf, write } from "./plots.js";

const LEFT = 52;
const RIGHT = 10;
const MARKS = 16; // height of the lane of marks
const AXIS = 18;
const CLOSEST_S = 5; // what is shown at least
const SETTLED_MS = 150; // without zooming further
export const MARK_INK = { decision: "#8e9ba8", operator: "#8e9ba8", refused: "#ff6b66", note: "#e5b04a" };

export class Timeline {
  // onChoose(frame): somebody pointed at a moment; onLook(begin, end): at another part of the session, in s.
  constructor(canvas, onChoose, onLook) {
    this.canvas = canvas;
    this.onLook = onLook;
    this.frames = []; // where there are many, those that make a difference
    this.marks = [];
    this.length = 1; // seconds of the whole session
    this.at = 0;
    this.from = 0;
    this.wide = Infinity; // seconds that are shown, or the whole session if it is shorter
    new ResizeObserver(() => this.draw()).observe(canvas);
    const choose = (event) => {
      const box = canvas.getBoundingClientRect();
      const frame = this.nearest(this.seconds(event.clientX - box.left));
      if (frame) onChoose(frame);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      choose(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) choose(event);
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      this.zoomBy(Math.exp(-event.deltaY / 400), this.seconds(event.clientX - box.left));
    }, { passive: false });
  }

  show(frames, marks, length) {
    this.frames = frames;
    this.marks = marks.filter((each) => MARK_INK[each.kind]);
    this.length = length || 1;
    this.draw();
  }

  nearest(seconds) {
    const apart = (frame) => Math.abs(frame.t_s - seconds);
    return this.frames.reduce((best, frame) => (apart(frame) < apart(best) ? frame : best), this.frames[0]);
  }

  moveTo(seconds) {
    this.at = seconds;
    if (seconds < this.from || seconds > this.to) this.begin(seconds - this.span / 2);
    this.draw();
  }

  // What is at a moment stays there.
  zoomBy(factor, at = this.at) {
    const before = this.span;
    this.wide = Math.min(this.length, Math.max(CLOSEST_S, before / factor));
    this.begin(at - ((at - this.from) / before) * this.span);
    this.draw();
  }

  begin(seconds) {
    this.from = Math.max(0, Math.min(this.length - this.span, seconds));
    clearTimeout(this.looking);
    this.looking = setTimeout(() => this.onLook(this.from, this.to), SETTLED_MS);
  }

  get span() {
    return Math.min(this.wide, this.length);
  }

  get to() {
    return this.from + this.span;
  }

  shows(seconds) {
    return seconds >= this.from && seconds <= this.to;
  }

  seconds(x) {
    const share = (x - LEFT) / (this.canvas.clientWidth - LEFT - RIGHT);
    return this.from + Math.min(1, Math.max(0, share)) * this.span;
  }

  draw() {
    const { context, width, height } = begin(this.canvas);
    const base = height - AXIS - MARKS;
    const x = (time) => LEFT + ((time - this.from) / this.span) * (width - LEFT - RIGHT);
    this.drawTimes(context, x, base + MARKS, height);
    if (!this.frames.length) return;
    const middle = Math.round(base * 0.4);
    this.drawScores(context, x, 4, middle - 4, width);
    this.drawDistances(context, x, middle + 4, base - 4, width);
    for (const each of this.marks) {
      const time = Math.min(this.length, Math.max(0, each.t_s)); // some lie before the first frame
      if (!this.shows(time)) continue;
      rule(context, x(time), base + 2, x(time), base + MARKS - 2, MARK_INK[each.kind]);
      // Blocks, a note of half the height: who cannot tell their colours apart can tell these.
      const block = { refused: MARKS - 6, note: (MARKS - 6) / 2 }[each.kind];
      if (block) {
        context.fillStyle = MARK_INK[each.kind];
        context.fillRect(x(time) - 2, base + 3, 4, block);
      }
    }
    rule(context, x(this.at), 0, x(this.at), base + MARKS, INK.here);
  }

  drawTimes(context, x, base, height) {
    rule(context, LEFT, base, x(this.to), base, INK.grid);
    const step = stepOf(this.span, 6);
    for (let time = Math.ceil(this.from / step) * step; time <= this.to; time += step) {
      rule(context, x(time), 0, x(time), base, INK.grid);
      write(context, clock(time), x(time), height - 4, x(time) > x(this.to) - 20 ? "right" : "center");
    }
  }

  drawScores(context, x, top, bottom, width) {
    const y = (score) => bottom - score * (bottom - top);
    for (const level of [0, 1]) {
      rule(context, LEFT, y(level), width - RIGHT, y(level), INK.grid);
      write(context, String(level), LEFT - 6, y(level) + 4, "right");
    }
    const scored = this.frames.filter((frame) => frame.score !== null);
    this.within(context, width, () => line(context, scored, (frame) => x(frame.t_s), (frame) => y(frame.score), "#4fbf87"));
  }

  drawDistances(context, x, top, bottom, width) {
    const placed = this.frames.filter((frame) => frame.working_distance_m !== null);
    if (!placed.length) return;
    const seen = placed.filter((frame) => this.shows(frame.t_s));
    const places = (seen.length ? seen : placed).map((frame) => frame.working_distance_m);
    let low = places.reduce((a, b) => Math.min(a, b));
    let high = places.reduce((a, b) => Math.max(a, b));
    const room = Math.max(0.1 * (high - low), 1e-6);
    [low, high] = [low - room, high + room];
    const y = (value) => Math.min(bottom, Math.max(top, bottom - ((value - low) / (high - low)) * (bottom - top)));
    const step = stepOf((high - low) * 1e6, 3);
    for (let tick = Math.ceil((low * 1e6) / step) * step; tick <= high * 1e6; tick += step) {
      rule(context, LEFT, y(tick / 1e6), width - RIGHT, y(tick / 1e6), INK.grid);
      write(context, (tick / 1e3).toFixed(step < 1 ? 4 : 3), LEFT - 6, y(tick / 1e6) + 4, "right");
    }
    const known = this.frames.filter((frame) => frame.focus_m !== null && frame.sigma_m < high - low);
    this.within(context, width, () => {
      line(context, known, (frame) => x(frame.t_s), (frame) => y(frame.focus_m), INK.line);
      line(context, placed, (frame) => x(frame.t_s), (frame) => y(frame.working_distance_m), INK.here, true);
    });
  }

  // Curves go on beyond both ends of what is shown.
  within(context, width, paint) {
    context.save();
    context.beginPath();
    context.rect(LEFT, 0, width - LEFT - RIGHT, this.canvas.clientHeight);
    context.clip();
    paint();
    context.restore();
  }
}

// Seconds as an operator reads them.
export function clock(seconds) {
  if (seconds < 60) return `${seconds < 0 ? "−" : ""}${Math.abs(Number(seconds.toFixed(1)))} s`;
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, i) => (i ? String(part).padStart(2, "0") : String(part))).join(":");
}

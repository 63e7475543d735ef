// The picture on the screen: layouts, zoom and pan, scale bar, maps.

import { Contrast, Painter } from "./picture.js";
import { plainLength, roundDown, say } from "./format.js";
import { drawMap } from "./maps.js";

const CLOSEST = 40; // screen pixels a pixel may be wide
const SMOOTH_BELOW = 1.5;
const KEPT_BYTES = 48e6; // of raw frames, to stand beside restored ones that come later

export class View {
  constructor(elements, onLayout) {
    this.el = elements;
    this.onLayout = onLayout;
    this.context = elements.canvas.getContext("2d", { alpha: false });
    this.layout = "raw";
    this.contrast = new Contrast();
    this.painters = { raw: new Painter(), restored: new Painter() };
    this.raws = [];
    this.restored = null;
    this.figures = null;
    this.map = null;
    this.wipe = 0.5;
    this.zoom = null; // null: whole frame; else screen pixels a pixel
    this.centre = { x: 0.5, y: 0.5 };
    this.waiting = [];
    this.absent = "Waiting for a restored frame…";
    this.trouble = ""; // why what is shown is old
    new ResizeObserver(() => this.refresh()).observe(elements.picture);
    this.listen();
  }

  // Shows a picture; the promise is kept once it has been painted.
  add(picture) {
    if (picture.head.kind === "raw") {
      this.raws.push(picture);
      const kept = this.layout !== "wipe" ? 1 : Math.max(2, Math.floor(KEPT_BYTES / picture.grey.byteLength));
      while (this.raws.length > kept) this.raws.shift();
      this.contrast.follow(picture);
    } else {
      this.restored = picture;
    }
    return new Promise((done) => {
      this.waiting.push(done);
      this.refresh();
    });
  }

  forget() {
    this.raws = [];
    this.restored = null;
    this.refresh();
  }

  get raw() {
    return this.raws.at(-1) ?? null;
  }

  // Raw is the newest there is. Only under the slider it is the frame the restored one was made
  // from, where that is still at hand: two halves of one picture.
  get left() {
    if (this.layout !== "wipe" || !this.restored) return this.raw;
    return this.raws.find((raw) => raw.sequence === this.restored.sequence) ?? this.raw;
  }

  show(layout) {
    this.layout = layout;
    this.onLayout(layout);
    this.refresh();
  }

  refresh() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      this.draw();
      for (const done of this.waiting.splice(0)) done();
    });
  }

  // -- geometry ------------------------------------------------------------------------------

  get panes() {
    const { width, height } = this.size;
    if (this.layout !== "side") return [{ x: 0, y: 0, width, height }];
    const half = Math.floor((width - 2) / 2);
    return [{ x: 0, y: 0, width: half, height }, { x: half + 2, y: 0, width: half, height }];
  }

  get size() {
    const { canvas } = this.el;
    return { width: canvas.width, height: canvas.height };
  }

  scaleIn(pane, picture) {
    const { width, height } = picture.head;
    const whole = Math.min(pane.width / width, pane.height / height);
    return this.zoom === null ? whole : Math.max(whole, this.zoom);
  }

  place(pane, picture) {
    const { width, height } = picture.head;
    const scale = this.scaleIn(pane, picture);
    const clamp = (share, size, room) => {
      const half = room / scale / size / 2;
      return half >= 0.5 ? 0.5 : Math.min(1 - half, Math.max(half, share));
    };
    const x = clamp(this.centre.x, width, pane.width);
    const y = clamp(this.centre.y, height, pane.height);
    return {
      scale,
      left: pane.x + pane.width / 2 - x * width * scale,
      top: pane.y + pane.height / 2 - y * height * scale,
      centre: { x, y },
    };
  }

  zoomBy(factor, at) {
    const picture = this.left ?? this.restored;
    if (!picture) return;
    const pane = this.panes[0];
    const before = this.place(pane, picture);
    const ratio = window.devicePixelRatio || 1;
    const scale = Math.min(CLOSEST * ratio, before.scale * factor);
    const whole = Math.min(pane.width / picture.head.width, pane.height / picture.head.height);
    const spot = at ?? { x: pane.width / 2, y: pane.height / 2 };
    // What is under the pointer stays there.
    const image = { x: (spot.x - before.left) / before.scale, y: (spot.y - before.top) / before.scale };
    this.zoom = scale <= whole * 1.001 ? null : scale;
    this.centre = {
      x: (image.x - (spot.x - pane.width / 2) / scale) / picture.head.width,
      y: (image.y - (spot.y - pane.height / 2) / scale) / picture.head.height,
    };
    this.settle(pane, picture);
  }

  zoomTo(scale) {
    this.zoom = scale === null ? null : scale * (window.devicePixelRatio || 1);
    this.refresh();
  }

  panBy(dx, dy) {
    const picture = this.left ?? this.restored;
    if (!picture) return;
    const pane = this.panes[0];
    const { scale, centre } = this.place(pane, picture);
    this.centre = {
      x: centre.x - dx / scale / picture.head.width,
      y: centre.y - dy / scale / picture.head.height,
    };
    this.settle(pane, picture);
  }

  settle(pane, picture) {
    this.centre = this.place(pane, picture).centre;
    this.refresh();
  }

  // -- drawing -------------------------------------------------------------------------------

  draw() {
    const { canvas, picture } = this.el;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(picture.clientWidth * ratio);
    const height = Math.round(picture.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, width, height);
    const [first, second] = this.panes;
    const left = this.layout === "restored" ? this.restored : this.left;
    if (left) this.drawPicture(first, left);
    if (this.layout === "side" && this.restored) this.drawPicture(second, this.restored);
    if (this.layout === "wipe" && this.restored) this.drawWipe(first);
    if (left) this.drawScaleBar(first, left);
    this.label();
  }

  drawPicture(pane, picture) {
    const { scale, left, top } = this.place(pane, picture);
    const { context } = this;
    context.save();
    context.beginPath();
    context.rect(pane.x, pane.y, pane.width, pane.height);
    context.clip();
    context.imageSmoothingEnabled = scale < SMOOTH_BELOW;
    context.drawImage(
      this.painters[picture.head.kind].paint(picture, this.contrast.limits),
      left, top, picture.head.width * scale, picture.head.height * scale,
    );
    if (this.map && picture.head.kind === "restored") drawMap(context, this.map, picture, { scale, left, top });
    context.restore();
  }

  drawWipe(pane) {
    const { context } = this;
    const edge = pane.width * this.wipe;
    context.save();
    context.beginPath();
    context.rect(edge, 0, pane.width - edge, pane.height);
    context.clip();
    this.drawPicture(pane, this.restored);
    context.restore();
  }

  drawScaleBar(pane, picture) {
    const size = picture.head.header.scan.pixel_size_m;
    if (!size) return;
    const { context } = this;
    const ratio = window.devicePixelRatio || 1;
    const { scale, left, top } = this.place(pane, picture);
    const wideShown = Math.min(pane.width, picture.head.width * scale);
    const real = roundDown((wideShown / scale) * size * 0.25);
    const length = (real / size) * scale;
    const x = Math.max(pane.x, left) + 14 * ratio;
    const y = Math.min(pane.y + pane.height, top + picture.head.height * scale) - 16 * ratio;
    const text = plainLength(real);
    context.font = `${13 * ratio}px system-ui, sans-serif`;
    const wide = Math.max(length, context.measureText(text).width);
    context.fillStyle = "rgb(8 11 14 / 72%)";
    context.fillRect(x - 7 * ratio, y - 22 * ratio, wide + 14 * ratio, 32 * ratio);
    context.fillStyle = "#fff";
    context.fillRect(x, y, length, 3 * ratio);
    context.fillText(text, x, y - 6 * ratio);
  }

  label() {
    const { tagLeft, tagRight, wipe, veil } = this.el;
    const shown = this.layout === "restored" ? null : this.left;
    tagLeft.hidden = !shown;
    if (shown) tag(tagLeft, "RAW", [`frame ${shown.sequence}`, ...this.behind(shown)]);
    tagRight.hidden = this.layout === "raw" || Boolean(this.missing);
    tagRight.classList.toggle("alone", this.layout === "restored");
    const doubtful = this.restored?.head.trustworthy === false;
    tagRight.classList.toggle("doubtful", doubtful);
    if (!this.restored) tag(tagRight, "", [this.absent]);
    else if (!tagRight.hidden) {
      const chi = this.restored.head.consistency;
      const words = [`restored from frame ${this.restored.sequence}`, ...this.behind(this.restored)];
      if (chi !== null && chi !== undefined) words.push(`consistency ${chi.toFixed(2)}`);
      if (doubtful) words.push(this.restored.head.empty ? "the frame shows nothing" : "does not explain the frame");
      tag(tagRight, doubtful ? "DERIVED, DO NOT TRUST" : "DERIVED", words);
    }
    wipe.hidden = this.layout !== "wipe" || !this.restored;
    wipe.style.left = `${this.wipe * 100}%`;
    wipe.setAttribute("aria-valuenow", String(Math.round(this.wipe * 100)));
    if (this.raw || this.trouble) say(veil, this.trouble || this.missing);
  }

  behind(shown) {
    const frames = (this.raw?.sequence ?? 0) - shown.sequence;
    return frames > 0 ? [`${frames} behind the newest`] : [];
  }

  get missing() {
    return this.layout === "restored" && !this.restored ? this.absent : "";
  }

  // -- hands ---------------------------------------------------------------------------------

  listen() {
    const { picture, wipe } = this.el;
    const ratio = () => window.devicePixelRatio || 1;
    const spot = (event) => {
      const box = picture.getBoundingClientRect();
      return { x: (event.clientX - box.left) * ratio(), y: (event.clientY - box.top) * ratio() };
    };
    picture.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400), spot(event));
    }, { passive: false });
    const fingers = new Map();
    picture.addEventListener("pointerdown", (event) => {
      if (wipe.contains(event.target)) return;
      picture.setPointerCapture(event.pointerId);
      picture.classList.add("moving");
      fingers.set(event.pointerId, spot(event));
    });
    picture.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = spot(event);
      const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) this.zoomBy(apart(now, other) / Math.max(1, apart(before, other)), other);
      else this.panBy(now.x - before.x, now.y - before.y);
      fingers.set(event.pointerId, now);
    });
    const up = (event) => {
      fingers.delete(event.pointerId);
      if (!fingers.size) picture.classList.remove("moving");
    };
    picture.addEventListener("pointerup", up);
    picture.addEventListener("pointercancel", up);
    picture.addEventListener("dblclick", () => this.zoomTo(null));
    picture.addEventListener("keydown", (event) => {
      const step = 60 * ratio();
      const ways = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (event.target !== picture || !ways[event.key]) return;
      event.preventDefault();
      this.panBy(...ways[event.key]);
    });
    const slide = (share) => {
      this.wipe = Math.min(1, Math.max(0, share));
      this.refresh();
    };
    wipe.addEventListener("pointerdown", (event) => wipe.setPointerCapture(event.pointerId));
    wipe.addEventListener("pointermove", (event) => {
      if (wipe.hasPointerCapture(event.pointerId)) slide(spot(event).x / this.size.width);
    });
    wipe.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
      if (way === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      slide(this.wipe + way);
    });
  }
}

function apart(a, b) {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

function tag(element, name, words) {
  const text = [name, ...words].filter(Boolean).join(" · ");
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  const strong = document.createElement("b");
  strong.textContent = name;
  element.replaceChildren(strong, text.slice(name.length));
}

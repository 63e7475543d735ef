// A frame: its grey values, its histogram, and what it looks like at a given contrast.

const BINS = 256;
const CLIPPED = 0.003; // share of the pixels that auto contrast lets go dark or bright
const CALM = 0.25; // how quickly auto contrast follows

export async function decode(head, body) {
  const { width, height, form } = head;
  if (form === "u1") return new Picture(head, body);
  if (form === "u2") {
    return new Picture(head, new Uint16Array(body.buffer, body.byteOffset, width * height));
  }
  const bitmap = await createImageBitmap(new Blob([body], { type: "image/jpeg" }));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const colours = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  return new Picture(head, Uint8Array.from(colours, (colour) => colour & 0xff));
}

export class Picture {
  constructor(head, grey) {
    this.head = head;
    this.grey = grey;
    this.levels = grey instanceof Uint16Array ? 65536 : 256;
  }

  get sequence() {
    return this.head.header.sequence;
  }

  // Counts of each grey value above the information bar, from every third row and column.
  counts() {
    const { width, height, header } = this.head;
    const rows = height - header.info_bar_px;
    const counts = new Uint32Array(this.levels);
    for (let y = 0; y < rows; y += 3) {
      for (let x = y * width, end = x + width; x < end; x += 3) counts[this.grey[x]] += 1;
    }
    return counts;
  }
}

// Paints one picture after another onto the same canvas, of the frame's size: to make megabytes
// anew for each frame, and to clear them away, takes a browser longer than to paint them.
export class Painter {
  constructor() {
    this.canvas = new OffscreenCanvas(1, 1);
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.picture = null;
  }

  // The canvas with the part [low, high] of the picture's grey scale stretched.
  paint(picture, { low, high }) {
    if (this.picture === picture && this.low === low && this.high === high) return this.canvas;
    const { width, height } = picture.head;
    if (this.image?.width !== width || this.image.height !== height) {
      Object.assign(this.canvas, { width, height });
      this.image = new ImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const { pixels } = this;
    const { grey, levels } = picture;
    const table = lookUp(levels, low, high);
    for (let i = 0; i < pixels.length; i += 1) pixels[i] = table[grey[i]];
    this.context.putImageData(this.image, 0, 0);
    Object.assign(this, { picture, low, high });
    return this.canvas;
  }
}

function lookUp(levels, low, high) {
  const table = new Uint32Array(levels);
  const top = levels - 1;
  const span = Math.max(high - low, 0.5 / levels);
  for (let level = 0; level < levels; level += 1) {
    const share = (level / top - low) / span;
    const value = Math.round(255 * Math.min(1, Math.max(0, share)));
    table[level] = 0xff000000 | (value << 16) | (value << 8) | value;
  }
  return table;
}

// Contrast: follows the picture calmly, or stays where it was put.
export class Contrast {
  constructor() {
    this.auto = true;
    this.low = 0;
    this.high = 1;
    this.bins = null;
    this.top = 255; // the brightest level there is
    this.calm = CALM;
  }

  follow(picture) {
    const counts = picture.counts();
    this.bins = binned(counts);
    this.top = counts.length - 1;
    if (!this.auto) return;
    const [low, high] = percentiles(counts);
    const jump = Math.abs(low - this.low) + Math.abs(high - this.high) > 0.4;
    const pace = jump ? 1 : this.calm;
    this.low += pace * (low - this.low);
    this.high += pace * (high - this.high);
  }

  get limits() {
    // Rounded, so that a still picture is not painted again for nothing.
    const { top } = this;
    return { low: Math.round(this.low * top) / top, high: Math.round(this.high * top) / top };
  }

  draw(canvas) {
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    context.clearRect(0, 0, width, height);
    if (!this.bins) return;
    const most = Math.log1p(Math.max(...this.bins));
    context.fillStyle = "#5f7383";
    for (let bin = 0; bin < BINS; bin += 1) {
      const share = Math.log1p(this.bins[bin]) / most;
      context.fillRect((bin * width) / BINS, height * (1 - share), width / BINS + 0.5, height * share);
    }
    context.fillStyle = "#54c7cf";
    for (const limit of [this.low, this.high]) {
      context.fillRect(Math.min(width - 1.5, limit * width), 0, 1.5, height);
    }
  }
}

function binned(counts) {
  const bins = new Uint32Array(BINS);
  const wide = counts.length / BINS;
  counts.forEach((count, level) => { bins[Math.floor(level / wide)] += count; });
  return bins;
}

function percentiles(counts) {
  const top = counts.length - 1;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const edge = CLIPPED * total;
  let low = 0;
  for (let sum = counts[0]; sum < edge && low < top - 1; sum += counts[low]) low += 1;
  let high = top;
  for (let sum = counts[high]; sum < edge && high > low + 1; sum += counts[high]) high -= 1;
  return [low / top, high / top];
}

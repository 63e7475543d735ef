// Small plots on canvases. Each is a pure function of what it is given.

export const INK = {
  grid: "#27303a", text: "#8e9ba8", line: "#54c7cf", band: "rgb(84 199 207 / 18%)",
  depth: "rgb(79 191 135 / 16%)", depthEdge: "#2f7a58", here: "#ffffff", aim: "#e5b04a",
};
const Z90 = 1.645; // standard deviations to either side hold 90 %
const FONT = "11px system-ui, sans-serif";
const CURVE_POINTS = 300;

// Makes a canvas sharp on this screen and returns its context and size in CSS pixels.
export function begin(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  return { context, width, height };
}

export function rule(context, x1, y1, x2, y2, colour, dash = []) {
  context.strokeStyle = colour;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
  context.setLineDash([]);
}

export function write(context, text, x, y, align = "left", colour = INK.text) {
  context.fillStyle = colour;
  context.textAlign = align;
  context.fillText(text, x, y);
}

// A round step that divides a span into about so many parts.
export function stepOf(span, parts) {
  const rough = span / parts;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
}

// The modes of a belief, the likeliest first; where none are known, a bell of mean and deviation.
export function modesOf({ modes, focus_m, sigma_m }) {
  return modes?.length ? modes : [{ weight: 1, focus_m, sigma_m }];
}

// Where focus is thought to be, in micrometres from where the microscope stands now.
export function posterior(canvas, { hereM, belief, halfDepthM, proposalM }) {
  const { context, width, height } = begin(canvas);
  const base = height - 18;
  const um = (value) => (value - hereM) * 1e6;
  const { focus_m: focusM, sigma_m: sigmaM, interval90_m: intervalM } = belief ?? {};
  const known = focusM !== null && focusM !== undefined && sigmaM;
  const half = (halfDepthM ?? 2e-6) * 1e6;
  const modes = known
    ? modesOf(belief).map((mode) => ({ weight: mode.weight, centre: um(mode.focus_m), sigma: mode.sigma_m * 1e6 }))
    : [];
  const marks = [0, ...(known ? [um(focusM) - 4 * sigmaM * 1e6, um(focusM) + 4 * sigmaM * 1e6, modes[0].centre - 1.5 * half, modes[0].centre + 1.5 * half] : [-4 * half, 4 * half])];
  let low = Math.min(...marks);
  let high = Math.max(...marks);
  const room = 0.08 * (high - low);
  low -= room;
  high += room;
  const x = (value) => ((value - low) / (high - low)) * width;

  const step = stepOf(high - low, 5);
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) {
    rule(context, x(tick), 0, x(tick), base, INK.grid);
    const text = Math.abs(tick) < step / 2 ? "0" : `${tick > 0 ? "+" : "−"}${Number(Math.abs(tick).toPrecision(3))}`;
    if (x(tick) > 14 && x(tick) < width - 44) write(context, text, x(tick), height - 5, "center");
  }
  write(context, "µm", width - 2, height - 5, "right");
  if (known) {
    const { centre } = modes[0];
    context.fillStyle = INK.depth;
    context.fillRect(x(centre - half), 0, x(centre + half) - x(centre - half), base);
    rule(context, x(centre - half), 0, x(centre - half), base, INK.depthEdge, [3, 3]);
    rule(context, x(centre + half), 0, x(centre + half), base, INK.depthEdge, [3, 3]);
    curve(context, x, modes, base, low, high);
    if (intervalM) {
      const [left, right] = intervalM.map(um);
      context.strokeStyle = INK.line;
      context.lineWidth = 2;
      rule(context, x(left), base - 3, x(right), base - 3, INK.line);
      context.lineWidth = 1;
    }
  }
  rule(context, 0, base, width, base, INK.grid);
  if (proposalM !== null && proposalM !== undefined) rule(context, x(um(proposalM)), 0, x(um(proposalM)), base, INK.aim, [5, 3]);
  rule(context, x(0), 0, x(0), base, INK.here);
  const side = x(0) > width / 2 ? "right" : "left";
  write(context, "now", x(0) + (side === "left" ? 4 : -4), 11, side, INK.here);
}

function curve(context, x, modes, base, low, high) {
  const step = (high - low) / CURVE_POINTS;
  const places = Array.from({ length: CURVE_POINTS + 1 }, (_, i) => low + i * step);
  const levels = density(modes, places, step);
  const most = Math.max(...levels);
  context.beginPath();
  context.moveTo(x(low), base);
  places.forEach((place, i) => context.lineTo(x(place), base - (levels[i] / most) * (base - 14)));
  context.lineTo(x(high), base);
  context.fillStyle = INK.band;
  context.fill();
  context.strokeStyle = INK.line;
  context.stroke();
}

// How likely focus is at each place. No mode is narrower than the places lie apart, or it could be missed.
function density(modes, places, apart) {
  return places.map((place) => modes.reduce((sum, { weight, centre, sigma: exact }) => {
    const sigma = Math.max(exact, apart);
    return sum + (weight / sigma) * Math.exp(-0.5 * ((place - centre) / sigma) ** 2);
  }, 0));
}

// Focus score over the last seconds before the end; points are {t_s, score}.
export function scores(canvas, points, { end, seconds }) {
  const { context, width, height } = begin(canvas);
  const x = timeAxis(context, { end, seconds }, width, height);
  const y = (score) => 4 + (1 - score) * (height - 22);
  for (const level of height < 80 ? [0, 1] : [0, 0.5, 1]) {
    rule(context, 0, y(level), width, y(level), INK.grid);
    write(context, String(level), 2, y(level) + (level === 1 ? 11 : -3));
  }
  line(context, points.filter((point) => end - point.t_s < seconds), (p) => x(p.t_s), (p) => y(p.score), INK.line);
}

// Working distance, and the believed focus with its uncertainty.
export function distances(canvas, points, { end, seconds }, halfDepthM) {
  const { context, width, height } = begin(canvas);
  const x = timeAxis(context, { end, seconds }, width, height);
  const shown = points.filter((point) => end - point.t_s < seconds);
  if (!shown.length) return;
  const known = shown.filter((point) => point.focus_m !== null && point.sigma_m < 20 * (halfDepthM ?? 2e-6));
  const values = [...shown.map((point) => point.working_distance_m), ...known.map((point) => point.focus_m)];
  const least = 2 * (halfDepthM ?? 2e-6);
  let low = Math.min(...values);
  let high = Math.max(...values);
  const more = Math.max(0.1 * (high - low), (least - (high - low)) / 2);
  low -= more;
  high += more;
  const y = (value) => 4 + (1 - (value - low) / (high - low)) * (height - 22);
  const step = stepOf((high - low) * 1e6, 3);
  const digits = Math.max(3, 3 - Math.floor(Math.log10(step)));
  for (let tick = Math.ceil((low * 1e6) / step) * step; tick <= high * 1e6; tick += step) {
    rule(context, 0, y(tick / 1e6), width, y(tick / 1e6), INK.grid);
    if (y(tick / 1e6) > 14) write(context, (tick / 1e3).toFixed(digits), 2, y(tick / 1e6) - 3);
  }
  context.fillStyle = INK.band;
  context.beginPath();
  const near = (value) => Math.min(height - 18, Math.max(2, y(value)));
  known.forEach((point, i) => context[i ? "lineTo" : "moveTo"](x(point.t_s), near(point.focus_m + point.sigma_m)));
  [...known].reverse().forEach((point) => context.lineTo(x(point.t_s), near(point.focus_m - point.sigma_m)));
  context.fill();
  line(context, known, (p) => x(p.t_s), (p) => y(p.focus_m), INK.line);
  line(context, shown, (p) => x(p.t_s), (p) => y(p.working_distance_m), INK.here, true);
}

function timeAxis(context, { end, seconds }, width, height) {
  const x = (time) => width * (1 - (end - time) / seconds);
  const base = height - 18;
  rule(context, 0, base, width, base, INK.grid);
  for (let ago = 0; ago < seconds; ago += seconds / 4) {
    if (ago) write(context, `−${ago} s`, x(end - ago), height - 5, "center");
  }
  write(context, "now", width - 2, height - 5, "right");
  return x;
}

export function line(context, points, x, y, colour, steps = false) {
  context.strokeStyle = colour;
  context.lineWidth = 1.4;
  context.beginPath();
  let last = null;
  for (const point of points) {
    if (last === null) context.moveTo(x(point), y(point));
    else {
      if (steps) context.lineTo(x(point), y(last));
      context.lineTo(x(point), y(point));
    }
    last = point;
  }
  context.stroke();
  context.lineWidth = 1;
}

// Both stigmators now, the suggested setting with its 90 % intervals, and what the envelope allows.
// The suggested change counts from the frame that was analysed.
export function stigmators(canvas, { x: nowX, y: nowY, from, correction, sigma, limits }) {
  const { context, width, height } = begin(canvas);
  const size = Math.min(width, height);
  const spread = (sigma ?? [0, 0]).map((one) => Z90 * one);
  const aim = correction ? [from[0] + correction[0], from[1] + correction[1]] : [];
  const ends = [nowX, nowY, ...aim.flatMap((v, i) => [v - spread[i], v + spread[i]])];
  const reach = Math.max(0.05, ...ends.map((v) => 1.2 * Math.abs(v ?? 0)));
  const at = (value) => (size / 2) * (1 + value / reach);
  rule(context, at(0), 0, at(0), size, INK.grid);
  rule(context, 0, at(0), size, at(0), INK.grid);
  if (limits) {
    context.strokeStyle = INK.depthEdge;
    context.setLineDash([3, 3]);
    context.strokeRect(at(limits.min), at(-limits.max), at(limits.max) - at(limits.min), at(limits.max) - at(limits.min));
    context.setLineDash([]);
  }
  write(context, "X", size - 10, at(0) - 4);
  write(context, "Y", at(0) + 4, 10);
  write(context, `±${Number(reach.toPrecision(2))}`, 2, size - 4);
  if (nowX === null || nowX === undefined) return;
  if (correction) {
    const toX = at(aim[0]);
    const toY = at(-aim[1]);
    context.fillStyle = INK.band;
    context.beginPath();
    context.ellipse(toX, toY, ...spread.map((one) => (size / 2) * (one / reach)), 0, 0, 2 * Math.PI);
    context.fill();
    rule(context, at(nowX), at(-nowY), toX, toY, INK.line);
    context.strokeStyle = INK.line;
    context.beginPath();
    context.arc(toX, toY, 5, 0, 2 * Math.PI);
    context.stroke();
  }
  context.fillStyle = INK.here;
  context.beginPath();
  context.arc(at(nowX), at(-nowY), 3.5, 0, 2 * Math.PI);
  context.fill();
}

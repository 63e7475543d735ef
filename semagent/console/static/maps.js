// Maps over the restored picture: how well it explains the raw one, and which expert worked where.

const COLOURS = ["#54c7cf", "#e5b04a", "#b69cff", "#ff8f7a", "#7fd08a", "#6fa8ff", "#e58ad0", "#c9cf5d"];
const STOPS = [[0, [39, 83, 124]], [1, [46, 143, 137]], [2, [217, 194, 76]], [4, [224, 96, 63]]];

export function drawMap(context, name, picture, { scale, left, top }) {
  const grid = name === "consistency" ? picture.head.consistency_map : picture.head.expert_map;
  if (!grid) return;
  const { width, height, header } = picture.head;
  const { rows, columns, values } = grid;
  const depth = values.length / (rows * columns);
  const wide = (width * scale) / columns;
  const high = ((height - header.info_bar_px) * scale) / rows;
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const at = (row * columns + column) * depth;
      const { colour, alpha } = name === "consistency"
        ? heat(values[at])
        : leader(values.slice(at, at + depth));
      context.globalAlpha = alpha;
      context.fillStyle = colour;
      context.fillRect(left + column * wide, top + row * high, wide + 0.5, high + 0.5);
    }
  }
  context.globalAlpha = 1;
}

export function expertColour(index) {
  return COLOURS[index % COLOURS.length];
}

function leader(shares) {
  const best = shares.indexOf(Math.max(...shares));
  return { colour: expertColour(best), alpha: 0.1 + 0.35 * shares[best] };
}

function heat(value) {
  const above = STOPS.findIndex(([stop]) => stop >= value);
  const [high, bright] = STOPS[above < 0 ? STOPS.length - 1 : above];
  const [low, dark] = STOPS[Math.max(0, (above < 0 ? STOPS.length : above) - 1)];
  const share = high === low ? 1 : Math.min(1, (value - low) / (high - low));
  const mixed = dark.map((part, i) => Math.round(part + share * (bright[i] - part)));
  return { colour: `rgb(${mixed.join(" ")})`, alpha: Math.min(0.6, 0.18 + 0.14 * value) };
}

export function legend(element, name, depth) {
  element.hidden = !name;
  if (!name) return;
  if (name === "consistency") {
    const title = line("Reduced χ² of the re-blurred restoration");
    const scale = document.createElement("div");
    scale.className = "scale";
    const ends = document.createElement("div");
    ends.className = "ends";
    ends.append(span("0"), span("1 as noise"), span("4 left out, invented"));
    element.replaceChildren(title, scale, ends);
    return;
  }
  const row = line("");
  for (let i = 0; i < depth; i += 1) {
    const dot = document.createElement("i");
    dot.style.background = expertColour(i);
    row.append(dot, `expert ${i + 1}`);
  }
  element.replaceChildren(line("Expert with the largest share of a tile"), row);
}

function line(text) {
  const element = document.createElement("div");
  element.textContent = text;
  return element;
}

function span(text) {
  const element = document.createElement("span");
  element.textContent = text;
  return element;
}

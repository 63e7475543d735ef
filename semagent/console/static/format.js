// Values as an operator reads them.

const DASH = "–";

export function length(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  if (size >= 1e-3) return `${(value * 1e3).toFixed(digits)} mm`;
  if (size >= 1e-6) return `${(value * 1e6).toFixed(decimals(size))} µm`;
  return `${(value * 1e9).toFixed(size < 1e-8 ? 1 : 0)} nm`;
}

// Three digits of a length in µm.
function decimals(size) {
  return size < 1e-5 ? 2 : size < 1e-4 ? 1 : 0;
}

export function offset(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const sign = value < 0 ? "−" : "+";
  const size = Math.abs(value);
  return size >= 1e-4 ? `${sign}${(size * 1e3).toFixed(3)} mm` : `${sign}${(size * 1e6).toFixed(decimals(size))} µm`;
}

export function number(value, digits = 2) {
  return value === null || value === undefined || !Number.isFinite(value) ? DASH : value.toFixed(digits);
}

export function signed(value, digits = 4) {
  if (value === null || value === undefined) return DASH;
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

export function percent(value) {
  if (value === null || value === undefined) return DASH;
  if (value > 0.99) return "> 99 %";
  if (value < 0.01) return "< 1 %";
  return `${Math.round(value * 100)} %`;
}

export function quantity(value, unit) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const steps = [[1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"], [1e-12, "p"]];
  const [factor, prefix] = steps.find(([size]) => Math.abs(value) >= size) ?? steps.at(-1);
  return `${Number((value / factor).toPrecision(4))} ${prefix}${unit}`;
}

export function clock(wallNs) {
  return new Date(wallNs / 1e6).toLocaleTimeString("sv-SE");
}

// Day and time of the place, written as in the list of sessions and in file names.
export function moment(wallNs) {
  return new Date(wallNs / 1e6).toLocaleString("sv-SE");
}

// The largest of 1, 2, 5 times a power of ten that is not above a value.
export function roundDown(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [5, 2, 1].find((factor) => factor * power <= value * 1.000001) ?? 1;
  return step * power;
}

// A length without needless digits, for scale bars and steps.
export function plainLength(value) {
  if (value >= 1e-3) return `${Number((value * 1e3).toPrecision(3))} mm`;
  if (value >= 1e-6) return `${Number((value * 1e6).toPrecision(3))} µm`;
  return `${Number((value * 1e9).toPrecision(3))} nm`;
}

// Unchanged text is left alone: a screen reader would read it again, and the page be laid out again.
// Text only, never markup: some of it comes from files and microscopes.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Puts names and values into a list; its elements are made anew only for other names.
export function fill(list, pairs) {
  const names = pairs.map(([name]) => name).join("\n");
  if (list.dataset.names !== names) {
    const rows = pairs.map(([name]) => {
      const row = document.createElement("div");
      const term = document.createElement("dt");
      term.textContent = name;
      row.append(term, document.createElement("dd"));
      return row;
    });
    if (list.classList.contains("list")) list.replaceChildren(...rows.flatMap((row) => [...row.children]));
    else list.replaceChildren(...rows);
    list.dataset.names = names;
  }
  const values = list.querySelectorAll("dd");
  pairs.forEach(([, value], index) => say(values[index], value));
}

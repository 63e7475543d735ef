// How the run itself is doing: its roles, their memory, the engine's time, and warnings.

import { number } from "./format.js";

const el = (id) => document.getElementById(id);
const LEVELS = { starting: "warn", idle: "good", busy: "good", hung: "bad", silent: "bad" };

export function showHealth({ roles, latency_p50_s: p50, latency_p99_s: p99, warnings }) {
  el("health-engine").textContent = p50 === null ? "" : `engine ${ms(p50)}, 99 % within ${ms(p99)}`;
  el("roles").replaceChildren(...roles.map(role));
  const said = warnings.join("\n");
  if (el("warnings").dataset.said === said) return; // or a screen reader would repeat it
  el("warnings").dataset.said = said;
  el("warnings").replaceChildren(...warnings.map((warning) => text("li", warning)));
}

function role({ role: name, condition, skipped, rss_bytes: bytes }) {
  const row = text("div", "");
  const memory = bytes ? `${Math.round(bytes / 2 ** 20)} MiB` : "";
  const state = text("span", condition === "busy" || condition === "idle" ? "" : condition);
  state.className = LEVELS[condition];
  const dot = text("i", "");
  dot.className = LEVELS[condition];
  row.title = `${name} is ${condition}; ${skipped} frames left out for newer ones`;
  row.append(dot, text("dt", name), state, text("dd", memory));
  return row;
}

function ms(seconds) {
  return `${number(1000 * seconds, seconds < 0.01 ? 1 : 0)} ms`;
}

function text(tag, words) {
  const element = document.createElement(tag);
  element.textContent = words;
  return element;
}

// How the run itself is doing: its roles, their memory, the engine's time, and warnings.

import { number, say } from "./format.js";

const el = (id) => document.getElementById(id);
const LEVELS = { starting: "warn", idle: "good", busy: "good", hung: "bad", silent: "bad" };

export function showHealth({ roles, latency_p50_s: p50, latency_p99_s: p99, warnings }) {
  say(el("health-engine"), p50 === null ? "" : `engine ${ms(p50)}, 99 % within ${ms(p99)}`);
  const rows = el("roles").children;
  if (rows.length !== roles.length) el("roles").replaceChildren(...roles.map(emptyRow));
  roles.forEach((role, index) => showRole(rows[index], role));
  const said = warnings.join("\n");
  if (el("warnings").dataset.said === said) return; // or a screen reader would repeat it
  el("warnings").dataset.said = said;
  el("warnings").replaceChildren(...warnings.map((warning) => text("li", warning)));
}

function emptyRow() {
  const row = text("div", "");
  row.append(text("dt", ""), text("dd", ""));
  row.firstChild.append(text("i", ""), text("span", ""));
  row.lastChild.append(text("span", ""), text("span", ""));
  return row;
}

function showRole(row, { role: name, condition, skipped, rss_bytes: bytes }) {
  const [[dot, who], [state, memory]] = [...row.children].map((cell) => cell.children);
  const atWork = condition === "busy" || condition === "idle";
  dot.className = state.className = LEVELS[condition];
  row.title = `${name} is ${condition}; ${skipped} frames left out for newer ones`;
  say(who, name);
  say(state, atWork ? "" : condition);
  say(memory, bytes ? `${Math.round(bytes / 2 ** 20)} MiB` : "");
}

function ms(seconds) {
  return `${number(1000 * seconds, seconds < 0.01 ? 1 : 0)} ms`;
}

function text(tag, words) {
  const element = document.createElement(tag);
  element.textContent = words;
  return element;
}

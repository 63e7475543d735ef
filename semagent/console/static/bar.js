// The bar at the top: what runs, how fresh the picture is, and the stop.

import { say } from "./format.js";

const OLD_MS = 5000;
const el = (id) => document.getElementById(id);

export function buildBar() {
  const bar = el("bar");
  const make = (tag, id, className, text = "") => {
    const element = document.createElement(tag);
    element.id = id;
    element.className = className;
    element.textContent = text;
    bar.append(element);
    return element;
  };
  make("span", "instrument", "instrument");
  make("span", "chips", "row");
  make("span", "freshness", "chip push", "connecting");
  const help = make("button", "help-button", "", "?");
  help.setAttribute("aria-label", "Keyboard");
  help.setAttribute("aria-expanded", "false");
  help.addEventListener("click", () => {
    const panel = el("help");
    panel.hidden = !panel.hidden;
    help.setAttribute("aria-expanded", String(!panel.hidden));
  });
}

export function showInstrument(hello) {
  const { capabilities } = hello;
  const names = new Set([hello.instrument, capabilities.microscope, `engine ${hello.engine}`]);
  el("instrument").textContent = [...names].join(" · ");
  const chips = [];
  if (hello.level === "viewer") chips.push(chip("view only"));
  if (capabilities.simulated) chips.push(chip("simulated"));
  if (capabilities.verified_on === null) chips.push(chip("driver never run on its hardware", "warn"));
  chips.push(hello.recording ? chip(`recording ${hello.recording}`, "good") : chip("not recorded"));
  el("chips").replaceChildren(...chips);
}

export function addStop(stop) {
  const button = document.createElement("button");
  button.id = "stop";
  button.className = "stop";
  button.title = "End what is going on at once and disarm (Escape)";
  const key = document.createElement("kbd");
  key.textContent = "Esc";
  button.append("STOP", key);
  button.addEventListener("click", stop);
  el("bar").append(button);
}

// age: of the newest frame in milliseconds, if there is one; link: "open", or what is wrong with it.
export function showAge(age, link) {
  const element = el("freshness");
  const old = age !== null && age > OLD_MS;
  const open = link === "open";
  element.className = `chip push ${!open ? "bad" : old ? "warn" : "good"}`;
  const connected = age === null ? "connected" : old ? `last frame ${Math.round(age / 1000)} s ago` : "live";
  say(element, open ? connected : link === "silent" ? "no answer" : "no connection");
}

function chip(text, level = "") {
  const element = document.createElement("span");
  element.className = `chip ${level}`;
  element.textContent = element.title = text;
  return element;
}

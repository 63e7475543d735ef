// The live page: connects the link, the picture, the panels and the controls.

import { Controls } from "./controls.js";
import { Link } from "./link.js";
import { decode } from "./picture.js";
import { legend } from "./maps.js";
import { frameFacts, Panels } from "./panels.js";
import { View } from "./view.js";
import { buildBar, showAge, showInstrument } from "./bar.js";

const el = (id) => document.getElementById(id);
const AGES = 20000;
const RATE_WINDOW_MS = 3000;
const live = el("live");
const state = { hello: null, facts: null, sequence: () => view.raw?.sequence };
const shown = []; // when raw frames were painted
const ages = []; // how old they were then, for benchmarks and tests
let dropped = 0;

buildBar();
const panels = new Panels();
const view = new View(
  {
    picture: el("picture"), canvas: el("canvas"), wipe: el("wipe"), veil: el("veil"),
    tagLeft: el("tag-left"), tagRight: el("tag-right"),
  },
  (layout) => {
    for (const button of el("layouts").children) {
      button.setAttribute("aria-checked", String(button.dataset.layout === layout));
    }
    link.want(layout === "raw" ? ["raw"] : ["raw", "restored"]);
  },
);
const controls = new Controls(state, view);

const link = new Link({
  hello(hello) {
    state.hello = panels.hello = hello;
    live.dataset.level = hello.level;
    showInstrument(hello, controls.stop);
    controls.greet(hello);
    panels.history = []; // it is sent whole again
    el("log").replaceChildren();
  },
  facts(value) {
    state.facts = value.facts;
    panels.take(value);
    controls.offerSteps(value.facts.half_depth_m);
  },
  async frame(head, body) {
    const picture = await decode(head, body);
    await view.add(picture);
    if (head.kind !== "raw") return;
    dropped = head.dropped;
    const now = link.now();
    if (now !== null) {
      ages.push(now - head.exposed_ms);
      if (ages.length > AGES) ages.shift();
    }
    shown.push(performance.now());
    view.contrast.draw(el("histogram"));
    placeSliders();
  },
  state(name) {
    live.dataset.link = name;
    const lost = "No connection to semagent. What you see is old.";
    if (name === "lost") el("veil").textContent = lost;
    else view.refresh();
  },
});

setInterval(() => {
  const since = performance.now() - RATE_WINDOW_MS;
  while (shown.length && shown[0] < since) shown.shift();
  const raw = view.raw;
  if (!raw) return;
  const now = link.now();
  const age = now === null ? null : now - raw.head.exposed_ms;
  frameFacts(raw.head, { age: ages.at(-1) ?? null, rate: (1000 * shown.length) / RATE_WINDOW_MS, dropped });
  showAge(age, live.dataset.link === "open");
}, 250);

for (const button of el("layouts").children) {
  button.addEventListener("click", () => view.show(button.dataset.layout));
}
el("zoom-in").addEventListener("click", () => view.zoomBy(1.4));
el("zoom-out").addEventListener("click", () => view.zoomBy(1 / 1.4));
el("zoom-fit").addEventListener("click", () => view.zoomTo(null));
el("zoom-one").addEventListener("click", () => view.zoomTo(1));

el("contrast-auto").addEventListener("click", () => setAuto(!view.contrast.auto));
for (const [id, end] of [["contrast-low", "low"], ["contrast-high", "high"]]) {
  el(id).addEventListener("input", () => {
    setAuto(false);
    view.contrast[end] = Number(el(id).value);
    view.refresh();
  });
}

function setAuto(auto) {
  view.contrast.auto = auto;
  el("contrast-auto").setAttribute("aria-pressed", String(auto));
  if (auto && view.raw) view.contrast.follow(view.raw);
  view.refresh();
}

function placeSliders() {
  if (!view.contrast.auto) return;
  el("contrast-low").value = view.contrast.low;
  el("contrast-high").value = view.contrast.high;
}

for (const [id, name] of [["map-consistency", "consistency"], ["map-experts", "experts"]]) {
  el(id).addEventListener("click", () => {
    view.map = view.map === name ? null : name;
    if (view.map && view.layout === "raw") view.show("restored");
    el("map-consistency").setAttribute("aria-pressed", String(view.map === "consistency"));
    el("map-experts").setAttribute("aria-pressed", String(view.map === "experts"));
    legend(el("legend"), view.map, state.facts?.restored?.expert_weights?.length ?? 0);
    view.refresh();
  });
}

// For tests and benchmarks: how old frames were when they were painted.
window.semagent = {
  ages: () => [...ages],
  sequence: () => view.raw?.sequence ?? 0,
  restored: () => view.restored?.sequence ?? 0,
  dropped: () => dropped,
  forget: () => { ages.length = 0; },
};

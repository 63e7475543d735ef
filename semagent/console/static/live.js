// The live page: connects the link, the picture, the panels and the controls.

import { Controls } from "./controls.js";
import { Link } from "./link.js";
import { decode } from "./picture.js";
import { number, say } from "./format.js";
import { frameFacts, Stage } from "./stage.js";
import { Panels } from "./panels.js";
import { addStop, buildBar, showAge, showInstrument } from "./bar.js";

const el = (id) => document.getElementById(id);
const AGES = 20000;
const RATE_WINDOW_MS = 3000;
const TROUBLE = {
  lost: "No connection to semagent. What you see is old.",
  silent: "semagent does not answer. What you see is old.",
};
const LOOK_MS = 1000; // between two looks at whether the picture is old
const live = el("live");
const state = { hello: null, facts: null, sequence: () => view.raw?.sequence };
const shown = []; // when raw frames were painted
const ages = []; // how old they were then, for benchmarks and tests
let dropped = 0;

buildBar();
const panels = new Panels();
const stage = new Stage((kinds) => link.want(kinds));
const { view } = stage;
const controls = new Controls(state, stage, () => link.now());
if (controls.mayCommand) addStop(controls.stop); // before anything is heard: it takes another way

const link = new Link({
  hello(hello) {
    state.hello = panels.hello = hello;
    showInstrument(hello);
    controls.greet(hello);
    panels.forget();
    if (!hello.restores) view.absent = "Nothing is restored: the configuration has no section restoration.";
  },
  facts(value) {
    state.facts = value.facts;
    panels.take(value);
    controls.offerSteps(value.facts.half_depth_m);
    showFrame();
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
  },
  state(name, reason) {
    live.dataset.link = name;
    view.trouble = reason ? `semagent: ${reason}. What you see is old.` : TROUBLE[name] ?? "";
    if (!view.raw) say(el("veil"), "Waiting for the first frame…");
    view.refresh();
    look();
  },
});

// In figures, a few times a second: with the other facts, so that the page is laid out once.
function showFrame() {
  const since = performance.now() - RATE_WINDOW_MS;
  while (shown.length && shown[0] < since) shown.shift();
  if (!view.raw) return;
  frameFacts(view.raw.head, [
    ["age", ages.length ? `${Math.round(ages.at(-1))} ms` : "–"],
    ["shown", `${number((1000 * shown.length) / RATE_WINDOW_MS, 1)} /s`],
    ["dropped", String(dropped)],
  ]);
  stage.follow();
  look();
}

function look() {
  if (live.dataset.link === "connecting") return;
  const now = link.now();
  showAge(view.raw && now !== null ? now - view.raw.head.exposed_ms : null, live.dataset.link);
}

setInterval(look, LOOK_MS);

// For tests and benchmarks: how old frames were when they were painted.
window.semagent = {
  ages: () => [...ages],
  sequence: () => view.raw?.sequence ?? 0,
  restored: () => view.restored?.sequence ?? 0,
  dropped: () => dropped,
  forget: () => { ages.length = 0; },
};

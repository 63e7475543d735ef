// The picture with its tools: what stage.html holds, on the live page and on that of a session.

import * as format from "./format.js";
import { stepThrough } from "./keys.js";
import { legend } from "./maps.js";
import { View } from "./view.js";

const el = (id) => document.getElementById(id);
const MAPS = { "map-consistency": "consistency", "map-experts": "experts" };

export class Stage {
  // onWant(kinds): which kinds of frame the layout needs.
  constructor(onWant) {
    this.view = new View(
      {
        picture: el("picture"), canvas: el("canvas"), wipe: el("wipe"), veil: el("veil"),
        tagLeft: el("tag-left"), tagRight: el("tag-right"),
      },
      (layout) => {
        for (const button of el("layouts").children) {
          button.setAttribute("aria-checked", String(button.dataset.layout === layout));
        }
        onWant(layout === "raw" ? ["raw"] : ["raw", "restored"]);
      },
    );
    this.listen();
  }

  get keys() {
    const { view } = this;
    const click = (id) => () => { if (!el(id).disabled) el(id).click(); };
    return {
      1: () => view.show("raw"), 2: () => view.show("restored"),
      3: () => view.show("side"), 4: () => view.show("wipe"),
      "+": () => view.zoomBy(1.4), "=": () => view.zoomBy(1.4), "-": () => view.zoomBy(1 / 1.4),
      0: () => view.zoomTo(null), 9: () => view.zoomTo(1),
      k: click("contrast-auto"), i: click("map-consistency"), x: click("map-experts"),
    };
  }

  // The histogram and the sliders, after a picture has come.
  follow() {
    const { contrast } = this.view;
    this.sayLegend();
    contrast.draw(el("histogram"));
    if (!contrast.auto) return;
    el("contrast-low").value = contrast.low;
    el("contrast-high").value = contrast.high;
  }

  listen() {
    const { view } = this;
    for (const button of el("layouts").children) {
      button.addEventListener("click", () => view.show(button.dataset.layout));
    }
    stepThrough(el("layouts"));
    el("zoom-in").addEventListener("click", () => view.zoomBy(1.4));
    el("zoom-out").addEventListener("click", () => view.zoomBy(1 / 1.4));
    el("zoom-fit").addEventListener("click", () => view.zoomTo(null));
    el("zoom-one").addEventListener("click", () => view.zoomTo(1));
    el("contrast-auto").addEventListener("click", () => this.setAuto(!view.contrast.auto));
    for (const [id, end] of [["contrast-low", "low"], ["contrast-high", "high"]]) {
      el(id).addEventListener("input", () => {
        this.setAuto(false);
        view.contrast[end] = Number(el(id).value);
        view.refresh();
      });
    }
    for (const [id, name] of Object.entries(MAPS)) {
      el(id).addEventListener("click", () => this.showMap(view.map === name ? null : name));
    }
  }

  setAuto(auto) {
    const { view } = this;
    view.contrast.auto = auto;
    el("contrast-auto").setAttribute("aria-pressed", String(auto));
    if (auto && view.raw) view.contrast.follow(view.raw);
    view.refresh();
  }

  showMap(name) {
    const { view } = this;
    view.map = name;
    if (name && view.layout === "raw") view.show("restored");
    for (const [id, map] of Object.entries(MAPS)) el(id).setAttribute("aria-pressed", String(map === name));
    this.sayLegend();
    view.refresh();
  }

  sayLegend() {
    const { map, restored } = this.view;
    const depth = restored?.head.expert_weights?.length ?? 0;
    if (this.said === `${map} ${depth}`) return;
    this.said = `${map} ${depth}`;
    legend(el("legend"), map, depth);
  }
}

// What is known of the frame that is shown; more is said between its number and its size.
export function frameFacts(head, more) {
  const { header } = head;
  const { scan, optics } = header;
  const width = scan.pixel_size_m ? scan.pixel_size_m * scan.width_px : null;
  const faults = header.faults.length ? [["not usable", header.faults.join(", ")]] : [];
  format.fill(el("frame-facts"), [
    ["frame", String(header.sequence)],
    ...faults,
    ...more,
    ["size", `${scan.width_px} × ${scan.height_px}, ${scan.bit_depth} bit`],
    ["field", width ? format.plainLength(width) : "–"],
    ["pixel", format.quantity(scan.pixel_size_m, "m")],
    ["dwell", `${format.quantity(scan.dwell_s, "s")}${scan.frame_averages > 1 ? ` × ${scan.frame_averages}` : ""}`],
    ["beam", `${format.quantity(optics.accelerating_voltage_v, "V")}, ${format.quantity(optics.beam_current_a, "A")}`],
    ["WD", format.length(optics.working_distance_m)],
    ["detector", header.detector],
  ]);
}

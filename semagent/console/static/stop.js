// STOP on pages other than the live one, while a run goes on: a button, and Escape.

import { addStop } from "./bar.js";
import { ask, STOPPED, toast } from "./wishes.js";

async function stop() {
  if (await ask({ type: "stop" })) toast(STOPPED);
}

addStop(stop);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.preventDefault();
  stop();
}, true);

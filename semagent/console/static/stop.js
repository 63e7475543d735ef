// STOP on pages other than the live one, while a run goes on: a button, and Escape.

import { addStop } from "./bar.js";
import { onEscape } from "./keys.js";
import { ask, STOPPED, toast } from "./wishes.js";

async function stop() {
  if (await ask({ type: "stop" })) toast(STOPPED);
}

addStop(stop);
onEscape(stop);

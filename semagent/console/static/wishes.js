// Asks semagent for something; what becomes of it is said in words.

const TOAST_MS = 6000;
const ANSWER_MS = 20000;
const LATE_MS = 3000;
// A browser has six connections to a console: more wishes than these would keep STOP waiting.
const MOST_WAITING = 4;
const LETTING_GO = ["disarm", "cancel"]; // one more, so that these do not have to wait either
let waiting = 0;
export const STOPPED = "Stopped. The gate is disarmed.";

// Whether it was done; if not, the reason is on the screen. askedMs: now, on the clock of the machine
// semagent runs on: what comes to it much later is refused, but for a stop. answerMs: how long to wait;
// longer than semagent itself, which gives up too, and says so.
export async function ask(wish, askedMs = null, answerMs = ANSWER_MS) {
  const stop = wish.type === "stop" ? " Stop at the microscope itself." : "";
  if (!stop && waiting >= MOST_WAITING + LETTING_GO.includes(wish.type)) {
    toast(`Not asked: ${waiting} others have not been answered yet.`, "warning");
    return false;
  }
  const late = setTimeout(() => {
    if (stop) toast(`STOP has not been answered yet.${stop}`, "error");
    else toast("Not answered yet: commands wait for the end of a frame.");
  }, LATE_MS);
  waiting += 1;
  try {
    const answer = await fetch("/api/wish", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(askedMs && { "Semagent-Asked-Ms": String(askedMs) }) },
      body: JSON.stringify(wish),
      keepalive: true,
      signal: AbortSignal.timeout(answerMs),
    });
    const { outcome, reason } = await answer.json();
    if (outcome === "applied") return true;
    toast(`${outcome === "refused" ? "Refused" : "Failed"}: ${reason}`, outcome === "refused" ? "warning" : "error");
  } catch (error) {
    const what = error.name === "TimeoutError" ? "does not answer" : "cannot be reached";
    toast(`semagent ${what}.${stop}`, "error");
  } finally {
    clearTimeout(late);
    waiting -= 1;
  }
  return false;
}

export function toast(text, level = "info") {
  const toasts = document.getElementById("toasts");
  const line = document.createElement("p");
  line.className = level;
  line.textContent = text;
  toasts.prepend(line);
  while (toasts.children.length > 3) toasts.lastChild.remove();
  setTimeout(() => line.remove(), TOAST_MS);
}

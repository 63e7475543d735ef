// Asks semagent for something; what becomes of it is said in words.

const TOAST_MS = 6000;
const ANSWER_MS = 20000; // semagent itself gives up after 15 s, and says so
const STOP_MS = 3000;
export const STOPPED = "Stopped. The gate is disarmed.";

// Whether it was done; if not, the reason is on the screen. askedMs: now, on the clock of the machine
// semagent runs on: what comes to it much later is refused, but for a stop.
export async function ask(wish, askedMs = null) {
  const stop = wish.type === "stop" ? " Stop at the microscope itself." : "";
  const late = stop && setTimeout(() => toast(`STOP has not been answered yet.${stop}`, "error"), STOP_MS);
  try {
    const answer = await fetch("/api/wish", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(askedMs && { "Semagent-Asked-Ms": String(askedMs) }) },
      body: JSON.stringify(wish),
      keepalive: true,
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const { outcome, reason } = await answer.json();
    if (outcome === "applied") return true;
    toast(`${outcome === "refused" ? "Refused" : "Failed"}: ${reason}`, outcome === "refused" ? "warning" : "error");
  } catch (error) {
    const what = error.name === "TimeoutError" ? "does not answer" : "cannot be reached";
    toast(`semagent ${what}.${stop}`, "error");
  } finally {
    clearTimeout(late);
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

// Reports and exports: asked for here, made by semagent, which says how far it is.

const WORDS = { report: "Report", "ome-tiff": "OME-TIFF", "ome-zarr": "OME-Zarr" };
export const UNREACHED = "semagent cannot be reached.";
const LOOK_MS = 400;
const el = (id) => document.getElementById(id);

export class Making {
  constructor(here, mayAsk) {
    this.here = here;
    this.mayAsk = mayAsk;
    this.busy = false;
    for (const button of document.querySelectorAll("[data-work]")) {
      button.addEventListener("click", () => this.ask(button.dataset.work));
    }
    this.look();
  }

  async ask(work) {
    const answer = await fetch(`${this.here}/work/${work}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: "{}",
    }).catch(() => null);
    if (answer?.ok) await this.look();
    else this.show([line("bad", answer ? await answer.text() : UNREACHED)]);
  }

  async look() {
    const answer = await fetch(`${this.here}/work`).catch(() => null);
    if (answer?.ok) this.tell(await answer.json());
    else if (this.busy) this.show([line("bad", UNREACHED)]);
    if (this.busy) setTimeout(() => this.look(), LOOK_MS);
  }

  tell({ jobs, report }) {
    this.show(Object.entries(jobs).map(([work, job]) => describe(work, job)));
    el("report-links").hidden = !report;
    el("report-html").href = `${this.here}/report.html`;
    el("report-png").href = `${this.here}/report.png`;
    this.busy = Object.values(jobs).some((job) => job.state === "working");
    for (const button of document.querySelectorAll("[data-work]")) button.disabled = this.busy || !this.mayAsk;
  }

  show(lines) {
    el("made").replaceChildren(...lines);
  }
}

function describe(work, job) {
  if (job.state === "failed") return line("bad", `${WORDS[work]}: ${job.text}`);
  if (job.state === "done") return line("good", `${WORDS[work]}: ${job.text}`);
  const entry = line("", `${WORDS[work]} is being made… `);
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", `${WORDS[work]}, share that is done`);
  if (job.total) Object.assign(bar, { max: job.total, value: job.done });
  entry.append(bar);
  return entry;
}

function line(level, text) {
  const entry = document.createElement("li");
  entry.className = level;
  entry.textContent = text;
  return entry;
}

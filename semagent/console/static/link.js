// The one WebSocket to the console: facts, frames, and what time it is over there.

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 5000;
const PING_MS = 2000;
const PINGS_KEPT = 8;
const SILENT_MS = 7000; // without an answer to a ping
const GIVEN_UP_MS = 40000; // a large frame over a slow line may take so long
const ANSWER_MS = 5000;

export class Link {
  // handlers: hello(value), facts(value), frame(head, body) -> Promise, and
  // state("open" | "silent" | "lost", reason)
  constructor(handlers) {
    this.handlers = handlers;
    this.wait = FIRST_WAIT_MS;
    this.wants = { want: ["raw"], coding: codingFor(location.hostname) };
    this.offsets = [];
    this.connect();
    setInterval(() => this.beat(), PING_MS);
  }

  // A line that is cut somewhere on the way says nothing: the browser believes that it is open.
  beat() {
    this.say({ ping: performance.now() });
    const silent = performance.now() - this.heard;
    if (this.socket.readyState !== WebSocket.OPEN || silent < SILENT_MS) return;
    if (silent < GIVEN_UP_MS) this.handlers.state("silent");
    else this.drop();
  }

  drop() {
    const { socket } = this;
    socket.onmessage = socket.onclose = null;
    socket.close();
    this.again();
  }

  // This page's clock plus this is the clock of the machine semagent runs on, in milliseconds.
  get clockOffset() {
    const best = this.offsets.reduce((a, b) => (b.delay < a.delay ? b : a), { delay: Infinity, offset: null });
    return best.offset;
  }

  now() {
    const offset = this.clockOffset;
    return offset === null ? null : performance.now() + offset;
  }

  want(kinds) {
    this.wants.want = kinds;
    this.say({ want: kinds });
  }

  say(value) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(value));
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/live`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.wait = FIRST_WAIT_MS;
      this.offsets = [];
      this.heard = performance.now();
      this.say(this.wants);
      this.say({ ping: performance.now() });
      this.handlers.state("open");
    };
    socket.onmessage = (event) => this.take(socket, event.data);
    socket.onclose = ({ reason }) => this.again(reason);
    this.socket = socket;
  }

  async take(socket, data) {
    if (performance.now() - this.heard >= SILENT_MS) this.handlers.state("open");
    this.heard = performance.now();
    if (data instanceof ArrayBuffer) {
      const { head, body } = unpack(data);
      await this.dealWith(socket, head.kind, () => this.handlers.frame(head, body));
      return;
    }
    const value = JSON.parse(data);
    if (value.pong !== undefined) this.clockRead(value);
    if (value.hello) this.handlers.hello(value.hello);
    if (value.facts) await this.dealWith(socket, "facts", () => this.handlers.facts(value));
  }

  // The next one is sent after this one is acknowledged: one that cannot be shown must not be the last.
  async dealWith(socket, stream, show) {
    try {
      await show();
    } finally {
      if (socket === this.socket) this.say({ ack: stream });
    }
  }

  clockRead({ pong, now_ms }) {
    const now = performance.now();
    this.offsets.push({ delay: now - pong, offset: now_ms - (now + pong) / 2 });
    if (this.offsets.length > PINGS_KEPT) this.offsets.shift();
  }

  again(reason = "") {
    this.handlers.state("lost", reason);
    setTimeout(async () => {
      this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 1.7);
      // Another run has other tokens: then the sign-in has to be shown.
      const answer = await fetch("/api/facts", { signal: AbortSignal.timeout(ANSWER_MS) }).catch(() => null);
      if (answer?.status === 401) location.reload();
      else this.connect();
    }, this.wait);
  }
}

// Pixels as they are on this machine, JPEG over a network.
export function codingFor(host) {
  const near = ["localhost", "[::1]"].includes(host) || host.startsWith("127.");
  return near ? "lossless" : "compact";
}

export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return { head, body: new Uint8Array(buffer, 4 + length) };
}

// The live line to one session. It stays up by itself:
//
//   connecting ──hello──▶ open ──close, or silence──▶ waiting ──delay──▶ connecting
//                                    └─ 4401, 4404 ─▶ closed (only the person can mend that)
//
// It knows frames only as { type }; what they mean is transcript.js. The address is always this page's own.

export const LOGGED_OUT = 4401;
export const GONE = 4404;
const FIRST_DELAY = 250;
const LONGEST_DELAY = 5_000;
const SILENCE = 2.5; // heartbeats without a frame before the line counts as dead

/** Milliseconds to wait before attempt n (from 0): doubling, capped, between half and the whole so that clients spread out. */
export function delay(attempt, random) {
  const whole = Math.min(FIRST_DELAY * 2 ** attempt, LONGEST_DELAY);
  return whole / 2 + (whole / 2) * random;
}

/**
 * Opens the line. `cursor()` gives { seq, epoch } to resume after; `onFrame(frame)` gets every frame;
 * `onState(state, code)` gets "connecting", "open", "waiting" or "closed". Gives { send, wake, close }.
 */
export function openSocket({ session, cursor, onFrame, onState }) {
  let socket = null;
  let attempt = 0;
  let heartbeat = 20_000;
  let heardAt = 0;
  let timer = 0;
  let beat = 0;
  let over = false;

  function connect() {
    clearTimeout(timer);
    onState("connecting");
    heardAt = Date.now();
    socket = new WebSocket(address(session, cursor()));
    socket.onmessage = hear;
    socket.onclose = (event) => lost(event.code);
    schedule();
  }

  function hear(event) {
    heardAt = Date.now();
    const frame = JSON.parse(event.data);
    if (frame.type === "hello") greeted(frame);
    onFrame(frame);
  }

  function greeted(hello) {
    attempt = 0;
    heartbeat = 1000 * (hello.heartbeat_s ?? hello.data?.heartbeat_s ?? 20);
    schedule();
    onState("open");
  }

  function schedule() {
    clearInterval(beat);
    beat = setInterval(pulse, heartbeat);
  }

  function pulse() {
    if (Date.now() - heardAt > SILENCE * heartbeat) drop();
    else send({ type: "ping" });
  }

  function drop() {
    const dead = socket;
    dead.onclose = dead.onmessage = null;
    dead.close();
    lost(1006);
  }

  function lost(code) {
    clearInterval(beat);
    if (over) return;
    if (code === LOGGED_OUT || code === GONE) {
      over = true;
      onState("closed", code);
      return;
    }
    onState("waiting", code);
    timer = setTimeout(connect, delay(attempt, Math.random()));
    attempt += 1;
  }

  function send(frame) {
    if (socket.readyState !== WebSocket.OPEN) return false;
    socket.send(JSON.stringify(frame));
    return true;
  }

  // The network is back, or the person looks at the page again: a waiting line connects now, a silent one has to prove itself.
  function wake() {
    if (over) return;
    if (socket.readyState > WebSocket.OPEN) connect();
    else if (Date.now() - heardAt > heartbeat) drop();
  }

  function close() {
    over = true;
    clearTimeout(timer);
    clearInterval(beat);
    socket.onclose = socket.onmessage = null;
    socket.close();
  }

  connect();
  return { send, wake, close };
}

function address(session, { seq, epoch }) {
  const reign = epoch === null ? "" : `&epoch=${epoch}`;
  const url = new URL(`ws/${session}?after=${seq}${reign}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

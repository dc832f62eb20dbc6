// The open session: its first page, its live line, and what the person does in it.
//
// A prompt goes into the outbox before it goes anywhere else and leaves it when its user_message comes back. Until then it is
// sent again after every reconnect under the same request id, so it arrives exactly once whatever the network does.

import * as api from "./api.js";
import * as keep from "./keep.js";
import { change, page, toast } from "./page.js";
import { pulse, pulseSoon } from "./pulse.js";
import { dropSession, noteSession } from "./sessions.js";
import { GONE, LOGGED_OUT, openSocket } from "./socket.js";
import { EMPTY, firstKnownSeq, fold, runningTurn, withPage } from "./transcript.js";
import { titleOf } from "./words.js";

const AGAIN = 2_000; // milliseconds until a session is asked for again when the server did not say
const FRAME_LIMIT = 1024 * 1024; // bytes; the server closes the line on a longer frame
const RESTART = 20_000; // milliseconds that a restart is believed to take before the page says only that it reconnects
const SAY_SO_AFTER = 700; // milliseconds without a line before the page mentions it

const TOO_LONG = "That is more than 1 MB. Put it into a file in the workspace and tell finn its name.";

let line = null;
let visit = 0;
let lateTimer = 0;
let againTimer = 0;

/** Shows a session, or an empty new chat when `id` is null. */
export async function open(id) {
  const mine = enter(id);
  if (id === null) return;
  change({ loading: true });
  try {
    const answer = await api.messages(id);
    if (mine !== visit) return;
    change({ transcript: withPage(EMPTY, answer), loading: false });
    connect(id);
    await nameIt(id);
  } catch (error) {
    if (mine === visit) notOpened(error);
  }
}

// An old session may not be in the part of the list that is here.
async function nameIt(id) {
  if (!page.sessions.some((session) => session.id === id)) noteSession(await api.session(id));
}

/** Sends what was typed: a prompt (it queues while a turn runs), or with `type` "steer" a word into the running turn. */
export async function say(text, type = "prompt") {
  const words = text.trim();
  if (!words) return;
  const entry = { request_id: requestId(), type, text: words, at: Date.now(), refused: null };
  if (new Blob([JSON.stringify(frameOf(entry))]).size > FRAME_LIMIT) throw new Error(TOO_LONG);
  const id = page.current ?? (await begin(words));
  keep.posted(id, entry);
  change({ outbox: keep.outbox(id), atEnd: true });
  line?.send(frameOf(entry));
}

/** Stops the running turn; the queue stays. */
export async function stop() {
  if (line?.send({ type: "abort", request_id: requestId() })) return;
  try {
    await api.stop(page.current);
  } catch (error) {
    toast(`Not stopped: ${error.message}`);
  }
}

/** Takes a prompt that was not acknowledged back out of the outbox and gives its text. */
export function takeBack(requestId) {
  const entry = page.outbox.find((each) => each.request_id === requestId);
  keep.acknowledged(page.current, requestId);
  change({ outbox: keep.outbox(page.current) });
  return entry?.text ?? "";
}

export async function loadEarlier() {
  if (page.loadingEarlier || !page.transcript.earlier) return;
  const mine = visit;
  change({ loadingEarlier: true });
  try {
    const answer = await api.messages(page.current, firstKnownSeq(page.transcript));
    if (mine === visit) change({ transcript: withPage(page.transcript, answer) });
  } catch (error) {
    toast(`Earlier messages did not come: ${error.message}`);
  } finally {
    if (mine === visit) change({ loadingEarlier: false });
  }
}

/** The network is back or the page is looked at again. */
export function wake() {
  line?.wake();
  if (page.trouble && page.phase === "ready") open(page.current);
}

/** Another tab may have sent or taken back what waits here. */
export function outboxChanged() {
  if (page.current) change({ outbox: keep.outbox(page.current) });
}

export function leave() {
  line?.close();
  line = null;
  clearTimeout(lateTimer);
  clearTimeout(againTimer);
  lateTimer = 0;
}

// ── coming and going ─────────────────────────────────────────────────────────────────────────────────────────────────

function enter(id) {
  leave();
  visit += 1;
  change({ current: id, transcript: EMPTY, loading: false, loadingEarlier: false, gone: false, trouble: null, link: "idle", late: false,
    draining: false, opened: new Set(), atEnd: true, outbox: id ? keep.outbox(id) : [] });
  return visit;
}

async function begin(words) {
  const session = await api.createSession(titleOf(words));
  noteSession({ updated_at: session.created_at, messages: 0, turn: null, ...session });
  history.pushState(null, "", `#/s/${session.id}`);
  enter(session.id);
  change({ transcript: { ...EMPTY, seq: session.seq } });
  connect(session.id);
  return session.id;
}

function notOpened(error) {
  if (error.status === 404) change({ gone: true, loading: false });
  else if (error.status !== 401) {
    change({ trouble: error, loading: false });
    againTimer = setTimeout(() => open(page.current), error.retryAfter ? error.retryAfter * 1000 : AGAIN);
  }
}

function connect(id) {
  line = openSocket({
    session: id,
    cursor: () => ({ seq: page.transcript.seq, epoch: page.transcript.epoch }),
    onFrame: (frame) => hear(id, frame),
    onState: (state, code) => linkChanged(id, state, code),
  });
}

function linkChanged(id, link, code) {
  change({ link });
  if (link === "open") {
    clearTimeout(lateTimer);
    lateTimer = 0;
    change({ late: false, draining: false, reachable: true });
    pulse(); // after a restart other things may be true
  } else if (!lateTimer) {
    lateTimer = setTimeout(() => change({ late: page.link !== "open" }), SAY_SO_AFTER);
  }
  if (code === LOGGED_OUT) change({ phase: "login" });
  if (code === GONE) {
    dropSession(id);
    change({ gone: true });
  }
}

// ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────

function hear(id, frame) {
  change({ transcript: fold(page.transcript, frame, Date.now()) });
  EFFECTS[frame.type]?.(id, frame);
}

// What a frame does beside changing the transcript.
const EFFECTS = {
  hello: (id) => flush(id),
  user_message: (id, frame) => {
    keep.acknowledged(id, frame.data.request_id);
    change({ outbox: keep.outbox(id) });
    touch(id);
    pulseSoon();
  },
  message: (id, frame) => frame.seq > page.transcript.helloSeq && frame.data.text && change({ said: frame.data.text }),
  turn_end: (id) => {
    touch(id);
    pulseSoon();
  },
  draining: () => {
    change({ draining: true });
    setTimeout(() => change({ draining: false }), RESTART);
  },
  session: (id, frame) => sessionChanged(frame.data),
  error: (id, frame) => notDone(id, frame.data),
};

function flush(id) {
  keep.outbox(id).filter((entry) => entry.refused === null).forEach((entry) => line?.send(frameOf(entry)));
}

function touch(id) {
  noteSession({ id, updated_at: new Date().toISOString(), turn: runningTurn(page.transcript) });
}

function sessionChanged({ id, title, deleted }) {
  if (!deleted) noteSession({ id, title });
  else dropSession(id);
}

function notDone(id, { code, message, hint, request_id }) {
  if (code === "draining" || code === "starting") return; // it stays in the outbox and goes out after the restart
  if (code === "rate_limited") setTimeout(() => flush(id), 1_100);
  else if (page.outbox.some((entry) => entry.request_id === request_id)) {
    keep.refused(id, request_id, { code, message, hint });
    change({ outbox: keep.outbox(id) });
  } else toast(message);
  if (code === "store_unavailable" || code === "fenced") pulse(); // and the status line says so for as long as it is so
}

const frameOf = ({ type, text, request_id }) => ({ type, text, request_id });

// Not crypto.randomUUID: browsers keep that from pages without TLS, and finn may be one on a home network.
function requestId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

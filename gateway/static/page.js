// What the page is at this moment, in one object, and the way to change it. Every change is drawn once, at the next frame.

import { EMPTY } from "./transcript.js";

export const page = {
  phase: "boot",        // boot, login, ready
  trouble: null,        // ApiError that keeps the page from starting or a session from opening
  login: { busy: false, error: null },
  sessions: [],         // as the API gives them, newest first
  next: null,           // cursor to older sessions, null when all are here
  current: null,        // id of the open session, null in a new chat
  transcript: EMPTY,
  loading: false,       // the open session's first page is on its way
  loadingEarlier: false,
  gone: false,          // the open session no longer exists
  link: "idle",         // idle, connecting, open, waiting, closed
  late: false,          // the link has been down long enough to say so
  draining: false,
  outbox: [],           // prompts not yet acknowledged, as keep.js holds them
  health: null,
  panel: null,          // what the status panel shows, while it is open: { parts, errors, running, mending }
  reachable: true,
  opened: new Set(),    // keys of cards, steps and thoughts that are unfolded
  atEnd: true,          // the reader is at the end, so the text is followed
  drawer: false,
  dialog: null,         // palette, keys, panel
  renaming: null,       // { id, where } where: rail, head
  toasts: [],           // { id, text, action: null | { words, run } }
  said: "",             // the last finished message, for the live region
};

let draw = () => {};
let scheduled = false;

export function onChange(drawPage) {
  draw = drawPage;
}

export function change(patch) {
  Object.assign(page, patch);
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

/** Unfolds or folds what has this key. */
export function toggle(key) {
  const opened = new Set(page.opened);
  if (!opened.delete(key)) opened.add(key);
  change({ opened });
}

let toasts = 0;

/** Shows a line at the foot for a while; `action` is a way back, e.g. { words: "Undo", run }. */
export function toast(text, action = null) {
  const id = (toasts += 1);
  change({ toasts: [...page.toasts, { id, text, action }].slice(-3) });
  setTimeout(() => dismiss(id), action ? 9_000 : 5_000);
}

export function dismiss(id) {
  change({ toasts: page.toasts.filter((shown) => shown.id !== id) });
}

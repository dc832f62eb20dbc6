// What the page keeps in this browser: drafts, prompts that are not yet acknowledged, and the theme. Text only, no secret.
//
//   finn.draft.SESSION    the text in the composer ("new" before a session exists)
//   finn.outbox.SESSION   [{ request_id, type, text, at, refused }]   type: prompt or steer; refused: null or { code, message }
//
// A browser that refuses storage (private mode, full) costs only the survival of a reload, so the memory below takes over.

const memory = new Map();

export const draft = (session) => get(`finn.draft.${session}`, "");
export const keepDraft = (session, text) => set(`finn.draft.${session}`, text, "");

export const outbox = (session) => get(`finn.outbox.${session}`, []);
export const posted = (session, entry) => keepOutbox(session, [...outbox(session), entry]);
export const acknowledged = (session, requestId) => keepOutbox(session, outbox(session).filter((entry) => entry.request_id !== requestId));
export const refused = (session, requestId, reason) => keepOutbox(session, outbox(session).map((entry) => (
  entry.request_id === requestId ? { ...entry, refused: reason } : entry)));

/** Forgets everything that was typed here, at logout. */
export function forget() {
  memory.clear();
  const ours = Object.keys(localStorage).filter((key) => /^finn\.(draft|outbox)\./.test(key));
  ours.forEach((key) => localStorage.removeItem(key));
}

const keepOutbox = (session, entries) => set(`finn.outbox.${session}`, entries, []);

function get(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? memory.get(key) ?? otherwise;
  } catch {
    return memory.get(key) ?? otherwise;
  }
}

function set(key, value, nothing) {
  const empty = JSON.stringify(value) === JSON.stringify(nothing);
  try {
    if (empty) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
    memory.delete(key);
  } catch {
    memory.set(key, value);
  }
}

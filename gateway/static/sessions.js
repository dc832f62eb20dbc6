// The list of sessions in the rail: loading, paging, renaming, deleting and the way back.

import * as api from "./api.js";
import { change, page, toast } from "./page.js";

/** Reads the newest page again and keeps the older ones that were already here. */
export async function refreshSessions() {
  const answer = await api.sessions();
  const oldest = answer.sessions.at(-1)?.updated_at ?? "";
  const fresh = new Set(answer.sessions.map((session) => session.id));
  const stays = (session) => session.id === page.current || (answer.next !== null && session.updated_at < oldest);
  const others = page.sessions.filter((session) => !fresh.has(session.id) && stays(session));
  const paged = answer.next !== null && page.sessions.length > answer.sessions.length;
  change({ sessions: sorted([...answer.sessions, ...others]), next: paged ? page.next : answer.next });
}

export async function moreSessions() {
  if (page.next === null) return;
  const { sessions, next } = await api.sessions(page.next);
  const known = new Set(page.sessions.map((session) => session.id));
  change({ sessions: sorted([...page.sessions, ...sessions.filter((session) => !known.has(session.id))]), next });
}

/** Puts what is known of one session into the list: a new one, a new title, a later time. */
export function noteSession(session) {
  const known = page.sessions.find((each) => each.id === session.id);
  const others = page.sessions.filter((each) => each.id !== session.id);
  change({ sessions: sorted([{ ...known, ...session }, ...others]) });
}

export function dropSession(id) {
  change({ sessions: page.sessions.filter((session) => session.id !== id) });
}

export async function rename(id, given) {
  const title = given.trim();
  const before = titleFor(id);
  change({ renaming: null });
  if (!title || title === before) return;
  noteSession({ id, title });
  try {
    await api.renameSession(id, title);
  } catch (error) {
    noteSession({ id, title: before });
    toast(`Not renamed: ${error.message}`);
  }
}

/** Deletes at once and offers the way back. */
export async function remove(id) {
  const session = page.sessions.find((each) => each.id === id);
  try {
    await api.deleteSession(id);
  } catch (error) {
    toast(`Not deleted: ${error.message}`);
    return;
  }
  dropSession(id);
  if (page.current === id) location.hash = "#/";
  toast(`Deleted “${session?.title || UNTITLED}”`, { words: "Undo", run: () => restore(session) });
}

async function restore(session) {
  try {
    await api.restoreSession(session.id);
  } catch (error) {
    toast(`Not restored: ${error.message}`);
    return;
  }
  noteSession(session);
  location.hash = `#/s/${session.id}`;
}

export const UNTITLED = "Untitled chat";

export function titleFor(id) {
  return page.sessions.find((session) => session.id === id)?.title ?? "";
}

const sorted = (sessions) => sessions.sort((a, b) => (a.updated_at < b.updated_at ? 1 : -1));

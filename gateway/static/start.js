// From nothing to a page: are we let in, what is there, which session does the address name.

import { sessions as askSessions } from "./api.js";
import { leave, open } from "./conversation.js";
import { change, page } from "./page.js";
import { pulse } from "./pulse.js";

const SESSION = /^#\/s\/([0-9A-HJKMNP-TV-Z]{26})$/;
const AGAIN = 2_000; // milliseconds until the next try when the server did not say

let timer = 0;

/** Begins, and begins again after a login or while the server is away. */
export async function start() {
  clearTimeout(timer);
  try {
    const { sessions, next } = await askSessions();
    change({ phase: "ready", trouble: null, sessions, next });
    pulse();
    route(true);
  } catch (error) {
    notStarted(error);
  }
}

/** Opens what the address names. The hash gives a session id or nothing. */
export function route(anew = false) {
  const id = SESSION.exec(location.hash)?.[1] ?? null;
  if (anew || id !== page.current) open(id);
}

function notStarted(error) {
  leave();
  if (error.status === 401) return;
  change({ phase: "boot", trouble: error });
  timer = setTimeout(start, error.retryAfter ? error.retryAfter * 1000 : AGAIN);
}

// Looks every 30 seconds, while somebody looks at the page, how finn is and what sessions there are; sooner while something
// that was said is on its way to the store.

import * as api from "./api.js";
import { copiesIn } from "./copies.js";
import { change, page } from "./page.js";
import { refreshSessions } from "./sessions.js";

const EVERY = 30_000;
const SOON = 1_500;
const AGAIN = 5_000; // while the store fails, so that it is not called unreachable for long when it is back
let timer = 0;

/** Something was said: looks as soon as the store may have it. */
export function pulseSoon() {
  if (copiesIn(page.health?.checks ?? {}).store) later(SOON);
}

function later(ms) {
  clearTimeout(timer);
  timer = setTimeout(pulse, ms);
}

export async function pulse() {
  clearTimeout(timer);
  if (page.phase !== "ready" || document.visibilityState === "hidden") return;
  later(EVERY);
  const [health] = await Promise.allSettled([api.health(), refreshSessions()]); // the list is refused while finn waits
  if (health.status === "rejected") {
    change({ reachable: health.reason.status !== 0 });
    return;
  }
  change({ health: health.value, reachable: true });
  const { store } = copiesIn(page.health.checks ?? {}, page.transcript.seq);
  if (store && !store.has) later(store.failing ? AGAIN : SOON);
}

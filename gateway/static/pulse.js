// Looks every 30 seconds, while somebody looks at the page, how finn is and what sessions there are; sooner while something
// that was said is on its way to the store.

import * as api from "./api.js";
import { copiesIn } from "./copies.js";
import { change, page } from "./page.js";
import { refreshSessions } from "./sessions.js";

const EVERY = 30_000;
const SOON = 1_500;
let timer = 0;

/** Something was said: looks as soon as the store may have it. */
export function pulseSoon() {
  if (!copiesIn(page.health?.checks ?? {}).store) return;
  clearTimeout(timer);
  timer = setTimeout(pulse, SOON);
}

export async function pulse() {
  clearTimeout(timer);
  if (page.phase !== "ready" || document.visibilityState === "hidden") return;
  timer = setTimeout(pulse, EVERY);
  const [health] = await Promise.allSettled([api.health(), refreshSessions()]); // the list is refused while finn waits
  if (health.status === "rejected") {
    change({ reachable: health.reason.status !== 0 });
    return;
  }
  change({ health: health.value, reachable: true });
  const { store } = copiesIn(page.health.checks ?? {}, page.transcript.seq);
  if (store && !store.has && !store.failing) pulseSoon();
}

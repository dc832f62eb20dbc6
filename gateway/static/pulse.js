// Looks every 30 seconds, while somebody looks at the page, how finn is and what sessions there are.

import * as api from "./api.js";
import { change, page } from "./page.js";
import { refreshSessions } from "./sessions.js";

const EVERY = 30_000;
let timer = 0;

export async function pulse() {
  clearTimeout(timer);
  if (page.phase !== "ready" || document.visibilityState === "hidden") return;
  timer = setTimeout(pulse, EVERY);
  try {
    const [health] = await Promise.all([api.health(), refreshSessions()]);
    change({ health, reachable: true });
  } catch (error) {
    change({ reachable: error.status !== 0 });
  }
}

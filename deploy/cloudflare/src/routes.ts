// Who is meant, from the address alone.
//
//   PUBLIC_URL/a/NAME/rest   ─▶ NAME, /rest
//   HOST/rest                ─▶ whose host it is
//   anything else            ─▶ nobody
//
// One agent's host leads to no other agent: what a browser lets a page do, it lets it do to its own host.

import type { Env } from "./settings";

/** An agent on the list, what is asked of it, and the path under which it is seen from outside ("" for a host's own). */
export interface Place {
  readonly agent: string;
  readonly path: string;
  readonly base: string;
}

const BY_PATH = /^\/a(?:\/([^/]*)(\/.*)?)?$/;

/** The place that a URL means; null where nobody of that name is on the list. A path of "" lacks its last slash. */
export function placeOf(url: URL, { AGENTS, PUBLIC_URL }: Pick<Env, "AGENTS" | "PUBLIC_URL">): Place | null {
  const found = url.host === new URL(PUBLIC_URL).host ? BY_PATH.exec(url.pathname) : null;
  if (found !== null) {
    const [, name = "", rest = ""] = found;
    return Object.hasOwn(AGENTS, name) ? { agent: name, path: rest, base: `/a/${name}` } : null;
  }
  const agent = Object.keys(AGENTS).find((each) => AGENTS[each]?.includes(url.host));
  return agent === undefined ? null : { agent, path: url.pathname, base: "" };
}

const PROBES = ["/livez", "/readyz", "/health"];

/** Whether it only asks how the agent is. A probe wakes nobody, unless it says `x-wake: 1`. */
export function isProbe(request: Request, path: string): boolean {
  const asks = request.method === "GET" || request.method === "HEAD";
  return asks && PROBES.includes(path) && request.headers.get("x-wake") !== "1";
}

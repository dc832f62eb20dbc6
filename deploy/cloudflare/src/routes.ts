// Who is meant, from the address alone.
//
//   /a/NAME/rest   ─▶ NAME, /rest        any host
//   HOST/rest      ─▶ whose host it is
//   anything else  ─▶ nobody

/** An agent on the list, what is asked of it, and the path under which it is seen from outside ("" for a host's own). */
export interface Place {
  readonly agent: string;
  readonly path: string;
  readonly base: string;
}

const BY_PATH = /^\/a\/([a-z0-9][a-z0-9-]{0,31})(\/.*)?$/;

/** The place that a URL means; null where nobody of that name is on the list. A path of "" lacks its last slash. */
export function placeOf(url: URL, agents: Readonly<Record<string, readonly string[]>>): Place | null {
  const [, name, rest] = BY_PATH.exec(url.pathname) ?? [];
  if (name !== undefined) return Object.hasOwn(agents, name) ? { agent: name, path: rest ?? "", base: `/a/${name}` } : null;
  const agent = Object.keys(agents).find((each) => agents[each]?.includes(url.host));
  return agent === undefined ? null : { agent, path: url.pathname, base: "" };
}

const PROBES = ["/livez", "/readyz", "/health"];

/** Whether it only asks how the agent is. A probe wakes nobody, unless it says `x-wake: 1`. */
export function isProbe(request: Request, path: string): boolean {
  const asks = request.method === "GET" || request.method === "HEAD";
  return asks && PROBES.includes(path) && request.headers.get("x-wake") !== "1";
}

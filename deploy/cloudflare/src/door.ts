// The Worker: who is meant, whether the edge lets them in, then the agent's object.
//
//   request ─▶ place (404) ─▶ probe? ──────────────────▶ object: answers from what it knows
//                              └─▶ Access (403) ─▶ object ─▶ container
//   cron ────▶ each agent's object: wakes where something was left undone
//
// A name that is not on the list makes no object: every new object would be a new container, on somebody's bill.

import { refusedByAccess } from "./access";
import type { AgentContainer } from "./agent";
import { refusal } from "./problem";
import { isProbe, type Place, placeOf } from "./routes";
import { type Env, objectName } from "./settings";

export { AgentContainer } from "./agent";
export { ContainerProxy } from "@cloudflare/containers"; // an object that is made anew beside a running container needs it

export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const place = placeOf(url, env);
    if (place === null) {
      return refusal(request, { code: "not_found", detail: "no agent is at this address", hint: "agents are at /a/NAME/" });
    }
    if (place.path === "") return new Response(null, { status: 308, headers: { location: `${place.base}/${url.search}` } });
    const problem = isProbe(request, place.path) ? null : await refusedByAccess(request, env, Date.now());
    if (problem !== null) return refusal(request, problem);
    return seenFrom(place, await objectOf(place.agent, env).fetch(forwarded(request, url, place)));
  },

  async scheduled(_, env) {
    const looks = await Promise.allSettled(Object.keys(env.AGENTS).map((agent) => objectOf(agent, env).look(agent)));
    const failed = looks.filter((each) => each.status === "rejected").map((each): unknown => each.reason);
    if (failed.length > 0) throw new AggregateError(failed, "an agent could not be looked at");
  },
} satisfies ExportedHandler<Env>;

const objectOf = (agent: string, env: Env): DurableObjectStub<AgentContainer> =>
  env.AGENT.getByName(objectName(agent, env.GENERATION));

/** The request as its agent gets it: its own path; who it is for is the Worker's to say, and nobody's word before. */
function forwarded(request: Request, url: URL, place: Place): Request {
  const inner = new URL(url);
  inner.pathname = place.path;
  const passed = new Request(inner, request);
  for (const name of [...passed.headers.keys()]) {
    if (name.startsWith("x-finn-") || name === "cf-container-target-port") passed.headers.delete(name);
  }
  passed.headers.delete("cf-access-jwt-assertion");
  passed.headers.set("x-finn-agent", place.agent);
  const cookies = request.headers.get("cookie");
  if (cookies !== null) passed.headers.set("cookie", nearest(cookies));
  return passed;
}

/** Of cookies with one name the first, which a browser sends for the longest path: the agent's at /a/NAME/, not the host's. */
function nearest(cookies: string): string {
  const pairs = cookies.split("; ").map((each) => [each.split("=", 1)[0], each] as const);
  return pairs.filter(([name], n) => pairs.findIndex(([other]) => other === name) === n).map(([, each]) => each).join("; ");
}

/** The answer as it is seen from outside: of an agent by path, the cookie stays under that path. */
function seenFrom(place: Place, answer: Response): Response {
  const cookies = answer.headers.getSetCookie();
  if (place.base === "" || cookies.length === 0) return answer;
  const seen = new Response(answer.body, answer);
  seen.headers.delete("set-cookie");
  for (const each of cookies) seen.headers.append("set-cookie", each.replace("; Path=/;", `; Path=${place.base}/;`));
  return seen;
}

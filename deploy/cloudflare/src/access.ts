// Cloudflare Access at the edge: who does not bring its signed word does not reach an agent.
//
//   Cf-Access-Jwt-Assertion: HEADER.CLAIMS.SIGNATURE
//        alg RS256, a kid of the team's ─▶ signature ─▶ iss, aud, exp, nbf ─▶ in
//
// The header, never the cookie: Access sends it with every request, an upgrade too. What a token says is believed only
// once its signature holds; its algorithm is never the token's to choose.

import type { Problem } from "./problem";
import type { Env } from "./settings";

const ASSERTION = "cf-access-jwt-assertion";
const RS256 = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } as const;
const SKEW_S = 30; //: two clocks may differ by that
const KEEP_MS = 60 * 60_000; //: how long the team's keys are not asked for again; a key lives for weeks
const ASK_AGAIN_MS = 60_000; //: the same where a token names an unknown key, or the last question had no answer
const ASK_MS = 5_000;

type Claims = Readonly<Record<string, unknown>>;
type Keys = ReadonlyMap<string, CryptoKey>;

/** The team's keys as last seen by this isolate. Only values are kept: a promise belongs to the request that made it. */
interface Known {
  readonly team: string;
  readonly keys: Keys;
  readonly askedAt: number;
  readonly oldAt: number;
}

const NOTHING = { keys: new Map(), askedAt: -Infinity, oldAt: -Infinity } as const;

let known: Known = { team: "", ...NOTHING };

/** Why a request is not let in; null where it is, or where Access is not configured. */
export async function refusedByAccess(request: Request, env: Env, now: number): Promise<Problem | null> {
  const { ACCESS_TEAM: team, ACCESS_AUD: audience } = env;
  if (!team && !audience) return null;
  if (!/^[a-z0-9-]+$/.test(team) || !audience) {
    return misconfigured("ACCESS_TEAM and ACCESS_AUD are needed both", "set both, or neither, in wrangler.jsonc");
  }
  const token = request.headers.get(ASSERTION);
  if (token === null) return forbidden("nothing from Cloudflare Access came with the request");
  const parts = token.split(".");
  const [header, claims, signature] = [parts[0], parts[1], parts[2]].map(decoded);
  if (parts.length !== 3 || !header || !claims || !signature) return forbidden("the assertion is no signed token");
  const { alg, kid } = json(header);
  if (alg !== "RS256" || typeof kid !== "string") return forbidden("the assertion is not signed with RS256 and a named key");
  const keys = await keysOf(team, kid, now);
  if (keys === null) {
    const detail = "the keys of Cloudflare Access cannot be had";
    return { code: "access_unavailable", detail, hint: "ask again; if it stays, look at ACCESS_TEAM", retryAfter: ASK_AGAIN_MS / 1000 };
  }
  const key = keys.get(kid);
  const signed = new TextEncoder().encode(`${parts[0]}.${parts[1]}`);
  if (key === undefined || !(await crypto.subtle.verify(RS256, key, signature, signed))) {
    return forbidden("the assertion is not signed by this team");
  }
  const wrong = wrongClaim(json(claims), `https://${team}.cloudflareaccess.com`, audience, now / 1000);
  return wrong === null ? null : forbidden(wrong);
}

/** What keeps claims from counting here and now (in seconds); null where nothing does. */
export function wrongClaim(claims: Claims, issuer: string, audience: string, now: number): string | null {
  const { iss, aud, exp, nbf } = claims;
  if (iss !== issuer) return "the assertion is from another issuer";
  if (!(Array.isArray(aud) ? aud : [aud]).includes(audience)) return "the assertion is meant for another application";
  if (typeof exp !== "number" || exp + SKEW_S <= now) return "the assertion has expired";
  if (nbf !== undefined && (typeof nbf !== "number" || nbf - SKEW_S > now)) return "the assertion does not count yet";
  return null;
}

/** The keys of a team, asked for where they are old or the one that is looked for is not among them. Null: not to be had. */
async function keysOf(team: string, kid: string, now: number): Promise<Keys | null> {
  if (known.team !== team) known = { team, ...NOTHING };
  const { keys, askedAt, oldAt } = known;
  if (now > oldAt || (!keys.has(kid) && now > askedAt + ASK_AGAIN_MS)) {
    known = { team, keys, askedAt: now, oldAt: now + ASK_AGAIN_MS };
    const fresh = await askedFor(team);
    if (fresh !== null) known = { team, keys: fresh, askedAt: now, oldAt: now + KEEP_MS };
  }
  return known.keys.size === 0 ? null : known.keys;
}

async function askedFor(team: string): Promise<Keys | null> {
  try {
    const url = `https://${team}.cloudflareaccess.com/cdn-cgi/access/certs`;
    const answer = await fetch(url, { signal: AbortSignal.timeout(ASK_MS) });
    if (!answer.ok) return null;
    const { keys } = await answer.json<{ keys: (JsonWebKey & { kid: string })[] }>();
    const usable = keys.filter((each) => each.kty === "RSA" && (each.alg ?? "RS256") === "RS256");
    return new Map(await Promise.all(usable.map(async (each) => [each.kid, await imported(each)] as const)));
  } catch (error) {
    console.error("the keys of Cloudflare Access cannot be had", String(error));
    return null;
  }
}

const imported = (key: JsonWebKey): Promise<CryptoKey> => crypto.subtle.importKey("jwk", key, RS256, false, ["verify"]);

function decoded(part: string | undefined): Uint8Array<ArrayBuffer> | null {
  if (!part || !/^[A-Za-z0-9_-]+$/.test(part)) return null;
  try {
    return Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
  } catch {
    return null;
  }
}

/** The JSON object in these bytes; an empty one where there is none, which says nothing and so proves nothing. */
function json(bytes: Uint8Array): Claims {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof value === "object" && value !== null ? (value as Claims) : {};
  } catch {
    return {};
  }
}

const forbidden = (detail: string): Problem => ({ code: "forbidden_access", detail, hint: "log in through Cloudflare Access" });
const misconfigured = (detail: string, hint: string): Problem => ({ code: "misconfigured", detail, hint, retryAfter: 60 });

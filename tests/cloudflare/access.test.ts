// Cloudflare Access at the Worker: every way in which an assertion can be wrong, with keys that were made for this run.

import { env } from "cloudflare:workers";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";

import { refusedByAccess } from "../../deploy/cloudflare/src/access";
import type { Env } from "../../deploy/cloudflare/src/settings";
import { HOST, json, machine } from "./edge";
import worker from "./entry";

const AUD = "aud-of-the-application";
const RS256 = { name: "RSASSA-PKCS1-v1_5", modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" };
const NOW_S = 1_800_000_000;

type Pair = CryptoKeyPair & { jwk: JsonWebKey & { kid: string } };

let ours: Pair;
let next: Pair;
let stranger: Pair;
let team = "";
let teams = 0;
let published: unknown[] = [];
let asked = 0;
let reachable = true;

async function pair(kid: string): Promise<Pair> {
  const keys = (await crypto.subtle.generateKey(RS256, true, ["sign", "verify"])) as CryptoKeyPair;
  const jwk = (await crypto.subtle.exportKey("jwk", keys.publicKey)) as JsonWebKey;
  return { ...keys, jwk: { ...jwk, kid, use: "sig" } };
}

const base64url = (data: string | ArrayBuffer): string =>
  btoa(typeof data === "string" ? data : String.fromCharCode(...new Uint8Array(data)))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");

interface Forged {
  readonly header?: object;
  readonly claims?: object;
  readonly key?: Pair;
  readonly secret?: string;
}

const claims = (): object => ({ iss: `https://${team}.cloudflareaccess.com`, aud: [AUD], exp: NOW_S + 60, nbf: NOW_S - 60, email: "me@example.org" });

async function assertion({ header = {}, claims: more = {}, key = ours, secret }: Forged = {}): Promise<string> {
  const said = `${base64url(JSON.stringify({ alg: "RS256", kid: "ours", typ: "JWT", ...header }))}.${base64url(JSON.stringify({ ...claims(), ...more }))}`;
  const bytes = new TextEncoder().encode(said);
  if (secret === undefined) return `${said}.${base64url(await crypto.subtle.sign(RS256.name, key.privateKey, bytes))}`;
  const raw = new TextEncoder().encode(secret);
  const hmac = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return `${said}.${base64url(await crypto.subtle.sign("HMAC", hmac, bytes))}`;
}

const guarded = (): Env => ({ ...env, ACCESS_TEAM: team, ACCESS_AUD: AUD });

/** The code with which an assertion is refused at some time; "in" where it is not. */
async function tried(token: string | null, atS = NOW_S, given: Env = guarded()): Promise<string> {
  const headers: Record<string, string> = token === null ? {} : { "cf-access-jwt-assertion": token };
  return (await refusedByAccess(new Request(`${HOST}/a/main/`, { headers }), given, atS * 1000))?.code ?? "in";
}

beforeAll(async () => {
  [ours, next, stranger] = await Promise.all([pair("ours"), pair("next"), pair("ours")]);
});

beforeEach(() => {
  team = `team-${++teams}`;
  [published, asked, reachable] = [[ours.jwk], 0, true];
  const through = globalThis.fetch;
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    const { href } = new URL(input instanceof Request ? input.url : input);
    if (href !== `https://${team}.cloudflareaccess.com/cdn-cgi/access/certs`) return through(input, init);
    asked += 1;
    return reachable ? Response.json({ keys: published }) : new Response("no", { status: 502 });
  });
});

afterEach(() => vi.restoreAllMocks());

describe("an assertion", () => {
  test("of the team, for this application, in its time lets in", async () => {
    expect(await tried(await assertion())).toBe("in");
    expect(await tried(await assertion({ claims: { aud: AUD } }))).toBe("in");
    expect(await tried(await assertion({ claims: { aud: ["another", AUD] } }))).toBe("in");
    expect(await tried(await assertion({ claims: { nbf: undefined } }))).toBe("in");
  });

  test("with a claim that is wrong or missing does not", async () => {
    for (const wrong of [
      { iss: "https://evil.cloudflareaccess.com" },
      { iss: `https://${team}.cloudflareaccess.com.evil.example` },
      { iss: undefined },
      { aud: "another" },
      { aud: [] },
      { aud: undefined },
      { aud: `${AUD}x` },
      { exp: NOW_S - 60 },
      { exp: undefined },
      { exp: String(NOW_S + 60) },
      { exp: null },
      { nbf: NOW_S + 60 },
      { nbf: "now" },
    ]) {
      expect([wrong, await tried(await assertion({ claims: wrong }))]).toEqual([wrong, "forbidden_access"]);
    }
  });

  test("counts from its beginning to its end, give or take what two clocks may differ by", async () => {
    const token = await assertion();
    expect(await tried(token, NOW_S - 89)).toBe("in");
    expect(await tried(token, NOW_S - 91)).toBe("forbidden_access");
    expect(await tried(token, NOW_S + 89)).toBe("in");
    expect(await tried(token, NOW_S + 90)).toBe("forbidden_access");
  });

  test("does not choose its own algorithm", async () => {
    const [said] = [(await assertion()).split(".")];
    const none = base64url(JSON.stringify({ alg: "none", kid: "ours" }));
    const modulus = ours.jwk.n ?? "";
    const pem = `-----BEGIN PUBLIC KEY-----\n${base64url((await crypto.subtle.exportKey("spki", ours.publicKey)) as ArrayBuffer)}\n-----END PUBLIC KEY-----\n`;
    for (const token of [
      `${none}.${said[1]}.`,
      `${none}.${said[1]}`,
      `${none}.${said[1]}.${said[2]}`,
      await assertion({ header: { alg: "HS256" }, secret: modulus }),
      await assertion({ header: { alg: "HS256" }, secret: pem }),
      await assertion({ secret: modulus }),
      await assertion({ header: { alg: "RS512" } }),
      await assertion({ header: { alg: "rs256" } }),
      await assertion({ header: { alg: ["RS256"] } }),
      await assertion({ header: { alg: undefined } }),
      await assertion({ header: { alg: "PS256" } }),
    ]) {
      expect([token, await tried(token)]).toEqual([token, "forbidden_access"]);
    }
  });

  test("is signed by a named key of the team, over exactly what it says", async () => {
    const good = await assertion();
    const [head, body, mark] = good.split(".") as [string, string, string];
    const other = base64url(JSON.stringify({ ...claims(), email: "you@example.org" }));
    for (const token of [
      await assertion({ key: stranger }),
      await assertion({ header: { kid: "next" }, key: next }),
      await assertion({ header: { kid: undefined } }),
      await assertion({ header: { kid: 1 } }),
      await assertion({ header: { kid: undefined, jwk: stranger.jwk }, key: stranger }),
      await assertion({ header: { jku: "https://evil.example/certs" }, key: stranger }),
      `${head}.${other}.${mark}`,
      `${head}.${body}.${mark.slice(0, -4)}AAAA`,
      `${head}.${body}.`,
      `${head}.${body}`,
      `${good}.${mark}`,
      `${head}.${body}.${mark}=`,
      "a.b.c",
      "...",
      "",
      "null",
      `${base64url("null")}.${body}.${mark}`,
      `${base64url("[1]")}.${body}.${mark}`,
    ]) {
      expect([token, await tried(token)]).toEqual([token, "forbidden_access"]);
    }
    expect(await tried(null)).toBe("forbidden_access");
    expect(asked).toBe(1);
  });
});

describe("the team's keys", () => {
  test("are asked for once, again after an hour, and for an unknown name once a minute at most", async () => {
    const late = { exp: NOW_S + 9_999 };
    const [old, young] = [await assertion({ claims: late }), await assertion({ claims: late, header: { kid: "next" }, key: next })];
    for (let n = 0; n < 5; n++) expect(await tried(old)).toBe("in");
    expect(asked).toBe(1);
    published = [ours.jwk, next.jwk];
    expect(await tried(young, NOW_S + 30)).toBe("forbidden_access");
    expect(asked).toBe(1);
    expect(await tried(young, NOW_S + 61)).toBe("in");
    expect(asked).toBe(2);
    published = [next.jwk];
    expect(await tried(old, NOW_S + 3_661)).toBe("in");
    expect(await tried(old, NOW_S + 3_662)).toBe("forbidden_access");
    expect(await tried(young, NOW_S + 3_662)).toBe("in");
    expect(asked).toBe(3);
  });

  test("that cannot be had let nobody in, and say when to come again", async () => {
    reachable = false;
    const token = await assertion({ claims: { exp: NOW_S + 9_999 } });
    expect(await tried(token)).toBe("access_unavailable");
    expect(await tried(token, NOW_S + 1)).toBe("access_unavailable");
    expect(asked).toBe(1);
    reachable = true;
    expect(await tried(token, NOW_S + 61)).toBe("in");
    reachable = false;
    expect(await tried(token, NOW_S + 3_700)).toBe("in");
  });
});

describe("the Worker", () => {
  const through = (where: string, headers: Record<string, string> = {}, given: Env = guarded()): Promise<Response> =>
    worker.fetch(new Request(`${HOST}${where}`, { headers }) as never, given);

  test("starts nothing for whom Access does not know, whatever is asked", async () => {
    const upgrade = { upgrade: "websocket", authorization: `Bearer ${env.FINN_TOKEN}` };
    for (const answer of [
      await through("/a/guarded/"),
      await through("/a/guarded/api/sessions", { authorization: `Bearer ${env.FINN_TOKEN}` }),
      await through("/a/guarded/ws/1", upgrade),
      await through("/a/guarded/health", { "x-wake": "1" }),
      await through("/a/guarded/", { cookie: `CF_Authorization=${await assertion({ claims: { exp: Date.now() / 1000 + 60 } })}` }),
    ]) {
      expect([answer.status, (await json(answer)).code]).toEqual([403, "forbidden_access"]);
    }
    expect((await machine("guarded")).starts).toBe(0);
    expect((await through("/a/guarded/health")).status).toBe(200);
    expect((await machine("guarded")).starts).toBe(0);
  });

  test("lets in whom Access knows, and the agent's own token still decides", async () => {
    const known = { "cf-access-jwt-assertion": await assertion({ claims: { exp: Date.now() / 1000 + 60, nbf: 0 } }) };
    const refused = await through("/a/guarded/api/nothing", known);
    expect([refused.status, await refused.text()]).not.toContain("forbidden_access");
    expect((await machine("guarded")).starts).toBe(1);
  });

  test("with half of Access configured lets nobody in", async () => {
    for (const half of [{ ACCESS_TEAM: team, ACCESS_AUD: "" }, { ACCESS_TEAM: "", ACCESS_AUD: AUD }, { ACCESS_TEAM: "evil.example/x", ACCESS_AUD: AUD }]) {
      const answer = await through("/a/guarded/", {}, { ...env, ...half });
      expect([answer.status, (await json(answer)).code]).toEqual([503, "misconfigured"]);
    }
  });
});

// Worker, object and container as one: real workerd, and behind it a real finn on an empty disk with its state in a bucket.

import { listDurableObjectIds } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterAll, describe, expect, test, vi } from "vitest";

import worker from "./entry";
import { ask, asleep, awake, bearer, cron, HOST, inside, json, Line, machine, own, session, signalled, until } from "./edge";

const [SIGKILL, SIGTERM, SIGSTOP] = [9, 15, 19];

/** Does something while the clock of the Worker shows a later time. */
async function later<R>(ms: number, act: () => Promise<R>): Promise<R> {
  const then = Date.now() + ms;
  const clock = vi.spyOn(Date, "now").mockReturnValue(then);
  try {
    return await act();
  } finally {
    clock.mockRestore();
  }
}

afterAll(async () => {
  for (const agent of Object.keys(env.AGENTS)) {
    if ((await machine(agent)).starts > 0) await inside(agent, (object) => object.destroy());
  }
});

const problem = async (answer: Response) => {
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(answer.headers.get("x-request-id")).toBeTruthy();
  const { code, status, detail, hint } = await json(answer);
  expect(status).toBe(answer.status);
  expect(detail && hint).toBeTruthy();
  return code as string;
};
const unavailable = async (answer: Response) => {
  expect([answer.status, await problem(answer)]).toEqual([503, "agent_unavailable"]);
  expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0);
};

describe("routes", () => {
  test("an unknown agent is 404 and makes neither an object nor a container", async () => {
    const before = (await listDurableObjectIds(env.AGENT)).length;
    const paths = ["/a/nobody/health", "/a/", "/a//", "/a/nobody/", "/a/Main/", "/a/%6dain/", "/a/main~g1/", "/a/__proto__/", "/a/constructor/", "/a"];
    for (const where of [...paths, "https://other.example/", "https://other.example/health", "https://other.example/a/main/", "https://main.finn.example/", "https://finn.example:8443/"]) {
      const answer = await ask(where, { headers: bearer });
      expect([where, answer.status, await problem(answer)]).toEqual([where, 404, "not_found"]);
    }
    expect((await ask("/a/nobody/ws/1", { headers: { upgrade: "websocket" } })).status).toBe(404);
    expect((await listDurableObjectIds(env.AGENT)).length).toBe(before);
  });

  test("a path and a host lead to the same agent, and each agent to a container of its own", async () => {
    await awake("main");
    const id = await session("main");
    expect((await own(`https://finn.example/api/sessions/${id}`)).status).toBe(200);
    await awake("alice");
    for (const host of ["alice.example", "also.alice.example"]) {
      expect((await own(`https://${host}/api/sessions/${id}`)).status).toBe(404);
      expect((await json(own(`https://${host}/health`))).serviceId).toBe("alice");
    }
    expect((await json(own("/a/main/health"))).serviceId).toBe("main");
    expect((await own("https://alice.example/a/main/api/sessions")).status).toBe(404);
  });

  test("the name alone is sent to where relative addresses work", async () => {
    const answer = await ask("/a/main?x=1");
    expect([answer.status, answer.headers.get("location")]).toEqual([308, "/a/main/?x=1"]);
  });

  test("the page, its files and its login work under the path, and the cookie stays there", async () => {
    await awake("main");
    const page = await ask("/a/main/");
    expect(page.status).toBe(200);
    const html = await page.text();
    expect(html).not.toMatch(/(href|src|action)="\//);
    for (const [, file] of html.matchAll(/(?:href|src)="([^"]+)"/g)) {
      expect([file, (await ask(new URL(file!, `${HOST}/a/main/`).href)).status]).toEqual([file, 200]);
    }
    const form = { "content-type": "application/x-www-form-urlencoded", origin: HOST };
    const entered = await ask("/a/main/login", { method: "POST", headers: form, body: `token=${env.FINN_TOKEN}` });
    expect([entered.status, new URL(entered.headers.get("location")!, `${HOST}/a/main/login`).pathname]).toEqual([303, "/a/main/"]);
    const cookie = entered.headers.get("set-cookie")!;
    expect(cookie).toContain("; Path=/a/main/;");
    expect(cookie).toContain("; Secure");
    expect((await ask("/a/main/api/sessions", { headers: { cookie: cookie.split(";")[0]! } })).status).toBe(200);
  });

  test("two agents of one host know their own token and their own cookie, though a browser sends both", async () => {
    const login = async (where: string, token: string) => {
      const headers = { "content-type": "application/json", origin: HOST };
      const answer = await until(async () => {
        const tried = await ask(`${where}/login`, { method: "POST", headers, body: JSON.stringify({ token }) });
        return tried.status === 503 ? null : tried;
      });
      return answer.headers.get("set-cookie")?.split(";")[0];
    };
    expect(await login("/a/bob", env.FINN_TOKEN)).toBeUndefined();
    const [main, bob] = [await login("", env.FINN_TOKEN), await login("/a/bob", env.FINN_TOKEN__BOB)];
    const known = async (where: string, cookie?: string) => (await ask(`${where}/api/sessions`, { headers: { cookie: cookie ?? "" } })).status;
    expect(await known("", main)).toBe(200);
    expect(await known("/a/bob", `theme=dark; ${bob}; ${main}`)).toBe(200);
    expect(await known("/a/bob", main)).toBe(401);
  });

  test("what a client says of itself does not reach the object", async () => {
    await awake("main");
    const spoofed = { "x-finn-agent": "alice", "x-finn-proto": "9", "cf-container-target-port": "1" };
    expect((await json(own("/a/main/health", undefined, spoofed))).serviceId).toBe("main");
    expect((await own("/a/main/api/sessions", undefined, spoofed)).status).toBe(200);
  });
});

describe("an agent that is awake", () => {
  test("answers over HTTP, with its own words for what is wrong", async () => {
    await awake("main");
    const id = await session("main");
    const answer = await own(`/a/main/api/sessions/${id}/messages?wait=true`, { text: "hello" });
    expect([answer.status, (await json(answer)).stop_reason]).toEqual([200, "stop"]);
    expect((await ask("/a/main/api/sessions")).status).toBe(401);
    expect((await own("/a/main/api/nothing")).status).toBe(404);
    const foreign = await own("/a/main/api/sessions", { title: "" }, { origin: "https://evil.example" });
    expect([foreign.status, await problem(foreign)]).toEqual([403, "forbidden_origin"]);
  });

  test("answers probes itself, in full for its owner, and is not kept awake by them", async () => {
    await awake("main");
    expect(await json(ask("/a/main/health"))).not.toHaveProperty("checks");
    expect((await json(own("/a/main/health"))).checks).toHaveProperty("epoch");
    const idle = await inside("main", (object) => object["sleepAfterMs" as keyof object]);
    expect((await ask("/a/main/readyz")).status).toBe(200);
    expect((await ask("/a/main/livez", { method: "HEAD" })).status).toBe(200);
    expect(await inside("main", (object) => object["sleepAfterMs" as keyof object])).toBe(idle);
  });

  test("streams over its socket, both ways", async () => {
    await awake("main");
    const id = await session("main");
    const line = await Line.open(`/a/main/ws/${id}`);
    expect((await line.frame("hello")).session).toBe(id);
    line.say("hello", "r1");
    expect((await line.frame("user_message")).data.request_id).toBe("r1");
    expect((await line.frame("message")).data.text).toBe("echo: hello");
    await line.frame("turn_end");
    expect(line.frames.filter((each) => each.type === "text_delta").length).toBeGreaterThan(0);
  });

  test("closes a socket with its own code, and refuses a foreign page before the upgrade", async () => {
    await awake("main");
    const stranger = await Line.open(`/a/main/ws/${await session("main")}`, {});
    await until(() => stranger.closed);
    expect(stranger.closed!.code).toBe(4401);
    const evil = await ask("/a/main/ws/1", { headers: { ...bearer, upgrade: "websocket", origin: "https://evil.example" } });
    expect([evil.status, evil.webSocket]).toEqual([403, null]);
  });

  test("runs on when its object is made anew, as every deploy of the Worker does, and only loses its sockets", async () => {
    await awake("main");
    const id = await session("main");
    const line = await Line.open(`/a/main/ws/${id}`);
    await line.frame("hello");
    const { starts } = await machine("main");
    await expect(inside("main", (object) => object["ctx"].abort("deployed"))).rejects.toThrow("deployed");
    await until(() => line.closed);
    expect((await own(`/a/main/api/sessions/${id}`)).status).toBe(200);
    expect(await machine("main")).toMatchObject({ running: true, starts });
    expect(await inside("main", (object) => object.listSchedules("watch"))).toHaveLength(1);
    await inside("main", (object) => object.watch());
    expect(await inside("main", (object) => object.listSchedules("watch"))).toHaveLength(1);
  });
});

describe("an agent that sleeps", () => {
  test("is asked for an hour by probes and cron without its container hearing of it", async () => {
    await awake("sleeper");
    await inside("sleeper", (object) => object.watch());
    await asleep("sleeper");
    const { starts } = await machine("sleeper");
    const asked = await inside("sleeper", (object) => object.loopback.asked.length);
    for (let minute = 0; minute < 60; minute++) {
      const headers = minute % 2 ? bearer : {};
      const health = await json(ask("/a/sleeper/health", { headers }));
      expect(health).toMatchObject({ status: "pass", serviceId: "sleeper", releaseId: "the-image", notes: ["asleep"] });
      expect((await ask("/a/sleeper/livez", { headers, method: minute % 2 ? "HEAD" : "GET" })).status).toBe(200);
      expect((await ask("/a/sleeper/readyz", { headers })).status).toBe(200);
      if (minute % 15 === 0) await cron();
    }
    expect(await machine("sleeper")).toMatchObject({ running: false, starts });
    expect(await inside("sleeper", (object) => object.loopback.asked.length)).toBe(asked);
  });

  test("wakes with all it knew, though its disk was empty", async () => {
    await awake("sleeper");
    const id = await session("sleeper");
    await own(`/a/sleeper/api/sessions/${id}/messages?wait=true`, { text: "hello" });
    const { starts } = await machine("sleeper");
    await asleep("sleeper");
    await awake("sleeper");
    const { messages } = await json(own(`/a/sleeper/api/sessions/${id}/messages?after=0`));
    expect(messages.map((each: { text: string }) => each.text)).toEqual(["hello", "echo: hello"]);
    expect((await machine("sleeper")).starts).toBe(starts + 1);
  });

  test("is woken by a probe that says so", async () => {
    await awake("sleeper");
    await asleep("sleeper");
    const woken = async () => json(ask("/a/sleeper/health", { headers: { ...bearer, "x-wake": "1" } }));
    expect(await until(async () => (await woken()).checks?.["wal:lastSeq"])).toHaveLength(1);
  });

  test("goes to sleep after silence, and not while a turn runs", async () => {
    await awake("busy");
    const id = await session("busy");
    expect((await own(`/a/busy/api/sessions/${id}/messages`, { text: "take your time" })).status).toBe(202);
    await until(async () => (await json(own(`/a/busy/api/sessions/${id}`))).turn);
    await inside("busy", (object) => object.onActivityExpired());
    expect((await machine("busy")).running).toBe(true);
    expect((await own(`/a/busy/api/sessions/${id}/stop`, {})).status).toBe(200);
    await until(async () => (await json(own(`/a/busy/api/sessions/${id}`))).turn === null);
    await inside("busy", (object) => object.onActivityExpired());
    await until(async () => !(await machine("busy")).running);
    expect((await machine("busy")).stderr).toContain("finn has drained");
  });

  test("is put to sleep though a request was never let go, once it has had nothing to do for long", async () => {
    await awake("leaky");
    await inside("leaky", (object) => {
      object["inflightRequests" as keyof object] = 1 as never; // what Cloudflare's class leaks when a client leaves (#241)
    });
    await inside("leaky", (object) => object.watch());
    expect((await machine("leaky")).running).toBe(true);
    await later(31 * 60_000, () => inside("leaky", (object) => object.watch()));
    await until(async () => !(await machine("leaky")).running);
  });
});

describe("a generation", () => {
  test("is a new object and a new container on the same state, and the old one writes no more", async () => {
    await awake("alice");
    const id = (await json(own("https://alice.example/api/sessions", { title: "" }))).id;
    const newer = (path: string) => {
      const request = new Request(`https://alice.example${path}`, { headers: bearer });
      return worker.fetch(request as never, { ...env, GENERATION: 2 });
    };
    await until(async () => (await newer("/api/sessions")).status === 200);
    expect((await newer(`/api/sessions/${id}`)).status).toBe(200);
    const fenced = await own("https://alice.example/api/sessions", { title: "" });
    expect([fenced.status, (await json(fenced)).code]).toEqual([503, "fenced"]);
    await inside("alice", (object) => object.destroy(), 2);
  });
});

describe("cron", () => {
  test("wakes an agent that was cut off, and no other", async () => {
    await awake("crashed");
    await inside("crashed", (object) => object.watch());
    await asleep("sleeper");
    await signalled("crashed", SIGKILL);
    await until(async () => (await json(ask("/a/crashed/health"))).notes?.[0] === "asleep, though it was cut off");
    const others = await machine("sleeper");
    const { starts } = await machine("crashed");
    await cron();
    expect(await machine("crashed")).toMatchObject({ running: true, starts: starts + 1 });
    expect(await machine("sleeper")).toMatchObject({ running: false, starts: others.starts });
    await cron();
    expect((await machine("crashed")).starts).toBe(starts + 1);
    await asleep("crashed");
    await cron();
    expect(await machine("crashed")).toMatchObject({ running: false, starts: starts + 1 });
  });
});

describe("a container that", () => {
  test("does not start is told with a reason, left alone for a while, and tried again later", async () => {
    await unavailable(await own("/a/broken/api/sessions"));
    expect(await machine("broken")).toMatchObject({ running: false, starts: 1 });
    expect((await machine("broken")).stderr).toContain("FINN_MODEL");
    await unavailable(await own("/a/broken/api/sessions"));
    expect((await machine("broken")).starts).toBe(1);
    const health = await ask("/a/broken/health");
    expect([health.status, (await json(health)).status]).toEqual([503, "fail"]);
    await unavailable(await ask("/a/broken/readyz"));
    expect((await ask("/a/broken/livez")).status).toBe(200);
    await later(6_000, async () => unavailable(await own("/a/broken/api/sessions")));
    expect((await machine("broken")).starts).toBe(2);
  });

  test("never opens its port is given up, ended, and told as not there", async () => {
    await inside("mute", (object) => {
      object.startWithinMs = 1_000;
    });
    await unavailable(await own("/a/mute/api/sessions"));
    expect(await machine("mute")).toMatchObject({ running: false, starts: 1 });
  });

  test("hangs is seen, ended and started anew, and who waited for it is told to come again", async () => {
    await awake("hung");
    const id = await session("hung");
    await signalled("hung", SIGSTOP);
    const waiting = own("/a/hung/api/sessions");
    await inside("hung", async (object) => {
      const patience = object.answerWithinMs;
      object.answerWithinMs = 100;
      for (let look = 0; look < 3; look++) await object.watch();
      object.answerWithinMs = patience;
    });
    await unavailable(await waiting);
    await until(async () => !(await machine("hung")).running);
    await awake("hung");
    expect((await own(`/a/hung/api/sessions/${id}`)).status).toBe(200);
  });

  test("speaks the version before is understood, and any other is told as being replaced", async () => {
    expect((await own("/a/former/")).status).toBe(200);
    await unavailable(await own("/a/newer/"));
    await unavailable(await own("/a/foreign/"));
  });

  test("is drained closes its sockets 1012 through object and Worker, ends clean, and goes on with all it had said", async () => {
    await awake("drained");
    const id = await session("drained");
    const line = await Line.open(`/a/drained/ws/${id}`);
    await line.frame("hello");
    line.say("hello", "r1");
    await line.frame("turn_end");
    const { seq } = await line.frame("turn_end");
    await signalled("drained", SIGTERM);
    await until(() => line.closed);
    expect(line.frames.at(-1).type).toBe("draining");
    expect(line.closed!.code).toBe(1012);
    await until(async () => (await json(ask("/a/drained/health"))).notes?.[0] === "asleep");
    await awake("drained");
    const again = await Line.open(`/a/drained/ws/${id}?after=0`);
    const said = await until(() => again.frames.find((each) => each.type === "turn_end"));
    expect(said.seq).toBe(seq);
  });
});

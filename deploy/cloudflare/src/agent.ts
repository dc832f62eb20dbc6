// One agent: the object that knows how it is, and the container it lives in.
//
//   asleep ──request, or cron with something undone──▶ starting ──port answers──▶ awake
//     ▲                                                   │ fails: 503, tried again later and later
//     └── 10 min of silence and no turn runs: SIGTERM ────┴── hangs: SIGKILL, and it is undone what it did
//
// The container's disk is empty at every start; what the agent knows is in its store. Who writes there is decided by
// finn's own fence, never by this object being one. A probe and the cron are answered from memory and start nothing.

import { Container } from "@cloudflare/containers";

import { refusal } from "./problem";
import { isProbe } from "./routes";
import { containerSettings, type Env, PORT, PROTO, PROTO_HEADER } from "./settings";

const WATCH_S = 30; //: between two looks at a container that runs
const MISSES = 3; //: looks without an answer, after which a container is dead
const LEAK_MS = 30 * 60_000; //: awake that long with nothing to do, though it should sleep: a request was never let go
const DRAIN_MS = 15 * 60_000; //: the longest a container may take to end, as Cloudflare itself has it
const FIRST_RETRY_S = 5;
const LONGEST_RETRY_S = 300;

/** What outlives the object's own memory. */
interface Memory {
  readonly agent: string;
  /** What ran here last, as its /health said it. */
  readonly release: Readonly<Record<string, string>>;
  /** Why it has to be woken though nobody asks; null after a clean end. */
  readonly undone: string | null;
  /** The starts that failed in a row. */
  readonly failed: { readonly count: number; readonly at: number; readonly why: string } | null;
}

const NEW: Memory = { agent: "", release: {}, undone: null, failed: null };

export class AgentContainer extends Container<Env> {
  override defaultPort = PORT;
  override sleepAfter = "10m";
  override pingEndpoint = "localhost/livez";
  /** How long a container may take to open its port, and to answer a question of this object. */
  startWithinMs = 20_000;
  answerWithinMs = 5_000;

  #turns = 0; //: that ran when it was last looked at
  #understood = false; //: whether the container that runs speaks a version of ours
  #misses = 0;
  #busyAt = Date.now(); //: when there was last something to do
  #readyAt = Date.now(); //: when it was last seen not ending

  // ------------------------------------------------------------ what is asked of it

  override async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    this.#remember({ agent: request.headers.get("x-finn-agent") ?? "" });
    if (isProbe(request, pathname)) return this.#probed(request, pathname);
    const why = await this.#wake();
    if (why !== null) return this.#unavailable(request, why);
    this.#busyAt = Date.now();
    const asked = new Request(request);
    asked.headers.set(PROTO_HEADER, String(PROTO));
    const answer = await this.containerFetch(asked, PORT);
    if (answer.headers.has(PROTO_HEADER)) return answer;
    return this.#unavailable(request, firstLine(await answer.text())); // not finn's: what Cloudflare's class says of it
  }

  /** The cron's question: wakes the container where something was left undone, and touches nothing otherwise. */
  async look(agent: string): Promise<"awake" | "asleep" | "woken"> {
    this.#remember({ agent });
    if (this.#running) return "awake";
    if (this.#memory.undone === null) return "asleep";
    const why = await this.#wake();
    if (why !== null) throw new Error(`${agent} cannot be woken: ${why}`);
    return "woken";
  }

  /** How it is: by its own word while it runs, and otherwise from memory. One that sleeps is ready: it wakes. */
  async #probed(request: Request, path: string): Promise<Response> {
    const answer = this.#running ? await this.#ask(path, request) : null;
    if (answer !== null) return answer;
    const { status, note } = this.#condition();
    if (path === "/health") {
      const body = { status, ...this.#memory.release, serviceId: this.#memory.agent, notes: [note] };
      const headers = { "content-type": "application/health+json", "cache-control": "no-store" };
      return new Response(JSON.stringify(body), { status: status === "fail" ? 503 : 200, headers });
    }
    if (path === "/readyz" && status === "fail") return this.#unavailable(request, note);
    return new Response("ok", { headers: { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" } });
  }

  #condition(): { status: "pass" | "warn" | "fail"; note: string } {
    const { failed, undone } = this.#memory;
    if (this.#running) return { status: "fail", note: "awake, and does not answer" };
    if (failed !== null) return { status: "fail", note: `does not start: ${failed.why}` };
    if (undone !== null) return { status: "warn", note: `asleep, though ${undone}` };
    return { status: "pass", note: "asleep" };
  }

  // ------------------------------------------------------------ waking

  /** Returns when the container answers; otherwise says why it does not. After a failure it is left alone for a while. */
  async #wake(): Promise<string | null> {
    if (this.#running && (await this.getState()).status === "healthy" && this.#understood) return null;
    const failed = this.#memory.failed;
    if (failed !== null && Date.now() < failed.at + retryS(failed.count) * 1000) return failed.why;
    const why = (await this.#started()) ?? (await this.#misunderstood());
    this.#remember({ failed: why === null ? null : { count: (failed?.count ?? 0) + 1, at: Date.now(), why } });
    return why;
  }

  async #started(): Promise<string | null> {
    try {
      await this.startAndWaitForPorts({
        startOptions: { envVars: this.#settings },
        cancellationOptions: { portReadyTimeoutMS: this.startWithinMs },
      });
      return null;
    } catch (error) {
      if (this.#running) await this.destroy(); // it runs and does not listen: nobody else would end it
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Worker and container are not replaced at once: our version will do, and the one before. Another has to make way. */
  async #misunderstood(): Promise<string | null> {
    const answer = await this.#ask("/livez");
    if (answer === null) return "it opened its port and does not answer";
    const spoken = answer.headers.get(PROTO_HEADER);
    this.#understood = spoken !== null && [PROTO, PROTO - 1].includes(Number(spoken));
    if (this.#understood) return null;
    await this.stop();
    return `it speaks version ${spoken ?? "none"} and this Worker ${PROTO}; one of the two is being replaced`;
  }

  override async onStart(): Promise<void> {
    this.#turns = 0;
    this.#understood = false;
    this.#misses = 0;
    this.#busyAt = this.#readyAt = Date.now();
    this.#remember({ undone: "it was cut off" });
    this.deleteSchedules("watch");
    await this.schedule(WATCH_S, "watch");
  }

  /** Only an end that was seen, with exit code 0 and no turn behind it, leaves nothing undone. */
  override async onStop({ exitCode }: { exitCode: number; reason: string }): Promise<void> {
    const ended = (await this.getState()).status === "stopped_with_code" && exitCode === 0;
    if (ended) this.#remember({ undone: this.#turns > 0 ? "a turn was running" : null });
  }

  override onError(error: unknown): void {
    console.error(`${this.#memory.agent}: the container failed`, String(error));
  }

  // ------------------------------------------------------------ watching

  /** Whether the container lives, every half minute while it runs. Cloudflare itself never asks. */
  async watch(): Promise<void> {
    if (!this.#running) return;
    await this.schedule(WATCH_S, "watch"); // first: whatever goes wrong below, it is looked at again
    await this.#see();
    const now = Date.now();
    if (this.#misses >= MISSES) return this.#end("does not answer");
    if (now - this.#readyAt > DRAIN_MS) return this.#end("does not come to its end");
    if (now - this.#busyAt > LEAK_MS) await this.stop();
  }

  /** A turn belongs to the agent and not to who listens: while one runs, silence is no reason to sleep. */
  override async onActivityExpired(): Promise<void> {
    await this.#see();
    if (this.#turns === 0) await this.stop();
  }

  async #see(): Promise<void> {
    const ready = await this.#ask("/readyz");
    const health = ready && (await this.#ask("/health", { headers: { authorization: `Bearer ${this.#settings["FINN_TOKEN"]}` } }));
    if (!ready || !health) {
      this.#misses += 1;
      return;
    }
    this.#misses = 0;
    const drains = !ready.ok && (await ready.json<{ code?: string }>()).code === "draining";
    const { version, releaseId, checks } = await health.json<Health>();
    const count = (name: string): number => Number(checks?.[name]?.[0]?.observedValue ?? 0);
    this.#turns = count("turn:active");
    this.#remember({ release: { version, releaseId } });
    if (this.#turns + count("ws:connections") > 0) this.#busyAt = Date.now();
    if (!drains) this.#readyAt = Date.now();
  }

  /** Asks the container past everything that counts as use. Null where no answer comes in time. */
  async #ask(path: string, { method, headers }: Pick<RequestInit, "method" | "headers"> = {}): Promise<Response | null> {
    const asked = { method: method ?? "GET", headers: headers ?? {}, signal: AbortSignal.timeout(this.answerWithinMs) };
    const own = this.#settings["FINN_PUBLIC_URL"]?.replace("https:", "http:");
    try {
      return (await this.ctx.container?.getTcpPort(PORT).fetch(`${own}${path}`, asked)) ?? null;
    } catch {
      return null; // the answer is that there is none: whoever asked counts it
    }
  }

  async #end(why: string): Promise<void> {
    console.error(`${this.#memory.agent}: the container ${why}, and is ended`);
    await this.destroy();
  }

  // ------------------------------------------------------------ remembering

  get #running(): boolean {
    return this.ctx.container?.running ?? false;
  }

  get #memory(): Memory {
    return this.ctx.storage.kv.get<Memory>("memory") ?? NEW;
  }

  get #settings(): Record<string, string> {
    return containerSettings(this.#memory.agent, this.env);
  }

  /** Written only where something changed: a probe costs no write. */
  #remember(change: Partial<Memory>): void {
    const before = this.#memory;
    const after = { ...before, ...change };
    if (JSON.stringify(after) !== JSON.stringify(before)) this.ctx.storage.kv.put("memory", after);
  }

  #unavailable(request: Request, why: string): Response {
    const retryAfter = retryS(this.#memory.failed?.count ?? 1);
    const hint = "ask again; if it stays, look at the container's log";
    return refusal(request, { code: "agent_unavailable", detail: `the agent is not there: ${why}`, hint, retryAfter });
  }
}

interface Health {
  readonly version: string;
  readonly releaseId: string;
  readonly checks?: Readonly<Record<string, readonly { readonly observedValue: unknown }[]>>;
}

/** Seconds to leave it alone after so many failures in a row: longer and longer. */
const retryS = (failures: number): number => Math.min(FIRST_RETRY_S * 2 ** (failures - 1), LONGEST_RETRY_S);

const firstLine = (text: string): string => text.split("\n")[0] ?? "";

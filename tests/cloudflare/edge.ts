// What the tests of the Worker share: asking it as a browser would, looking into an agent's object, waiting for what happens.

import { runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";

import { objectName } from "../../deploy/cloudflare/src/settings";
import type { AgentContainer } from "./entry";

export const bearer = { authorization: `Bearer ${env.FINN_TOKEN}` };
export const HOST = "https://agents.example";

const PATIENCE_MS = 20_000; // for what has to happen; a test that needs it all fails
const LOOK_MS = 10;

/** One request at the Worker: a path of HOST, or a whole URL. It carries no token of its own. */
export async function ask(where: string, init: RequestInit = {}): Promise<Response> {
  const answer = await exports.default.fetch(new URL(where, HOST).href, { redirect: "manual", ...init });
  if (answer.webSocket !== null || answer.body === null) return answer;
  return new Response(await answer.arrayBuffer(), answer); // read to its end, as every client does
}

/** The same by the agent's owner; a body is sent as JSON. */
export function own(where: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
  const sent = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  return ask(where, { ...sent, headers: { ...bearer, "content-type": "application/json", ...headers } });
}

export const json = async <T = any>(answer: Response | Promise<Response>): Promise<T> => (await answer).json<T>();

/** Cron, once. */
export function cron(): Promise<unknown> {
  const worker = exports.default as unknown as { scheduled(options: { cron: string; scheduledTime: Date }): Promise<unknown> };
  return worker.scheduled({ cron: "17 * * * *", scheduledTime: new Date() });
}

/** Something done inside of an agent's object. */
export function inside<R>(agent: string, act: (object: AgentContainer) => R | Promise<R>, generation = env.GENERATION): Promise<R> {
  const objects = env.AGENT as unknown as DurableObjectNamespace; // the whole type is too deep for the compiler
  return runInDurableObject(objects.getByName(objectName(agent, generation)), act as (object: never) => R | Promise<R>);
}

/** How often the agent's container was started, and whether it runs, as the machine it runs on has it. */
export const machine = async (agent: string): Promise<{ running: boolean; starts: number; stderr: string }> =>
  json(fetch(`${env.MACHINES}/${env.AGENT.idFromName(objectName(agent, env.GENERATION))}`));

/** A signal to the agent's container from outside, as the host sends it. */
export const signalled = (agent: string, number: number): Promise<unknown> =>
  fetch(`${env.MACHINES}/${env.AGENT.idFromName(objectName(agent, env.GENERATION))}/signal/${number}`, { method: "POST" });

/** Returns what `look` says once that is something; it is asked again and again. */
export async function until<T>(look: () => T | Promise<T>): Promise<NonNullable<T>> {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > end) throw new Error(`it did not happen: ${String(look)}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** The agent, awake and ready for prompts. */
export async function awake(agent: string): Promise<void> {
  await until(async () => (await own(`/a/${agent}/api/sessions`)).status === 200);
}

/** The agent, asleep after a clean end, and its object knows. */
export async function asleep(agent: string): Promise<void> {
  await inside(agent, (object) => object.stop());
  await until(async () => !(await machine(agent)).running);
  await until(async () => (await json(ask(`/a/${agent}/health`))).notes?.[0] === "asleep");
}

/** A socket through Worker and object, and every frame that came over it. */
export class Line {
  readonly frames: any[] = [];
  closed: { code: number; reason: string } | null = null;

  private constructor(readonly socket: WebSocket) {
    socket.addEventListener("message", (event) => this.frames.push(JSON.parse(event.data as string)));
    socket.addEventListener("close", ({ code, reason }) => (this.closed = { code, reason }));
    socket.accept();
  }

  static async open(where: string, headers: Record<string, string> = bearer): Promise<Line> {
    const answer = await ask(where, { headers: { ...headers, upgrade: "websocket" } });
    if (answer.webSocket === null) throw new Error(`no socket: ${answer.status} ${await answer.text()}`);
    return new Line(answer.webSocket);
  }

  say(text: string, requestId: string): void {
    this.socket.send(JSON.stringify({ type: "prompt", text, request_id: requestId }));
  }

  frame(type: string): Promise<any> {
    return until(() => this.frames.find((each) => each.type === type));
  }
}

/** A new session of an agent. */
export const session = async (agent: string): Promise<string> => (await json(own(`/a/${agent}/api/sessions`, { title: "" }))).id;

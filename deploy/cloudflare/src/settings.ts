// What is configured in wrangler.jsonc, and what of it a container is given.

import type { AgentContainer } from "./agent";

export interface Env {
  readonly AGENT: DurableObjectNamespace<AgentContainer>;
  /** The allow-list: each agent with the hosts that mean it. */
  readonly AGENTS: Readonly<Record<string, readonly string[]>>;
  /** The own address, without a path: where every agent is at /a/NAME/. */
  readonly PUBLIC_URL: string;
  /** Part of every object's name. */
  readonly GENERATION: number;
  /** The part before .cloudflareaccess.com, and the audience of the application. Both or neither. */
  readonly ACCESS_TEAM: string;
  readonly ACCESS_AUD: string;
}

/** Version of what Worker and container expect of one another. The container says its own on every answer. */
export const PROTO = 1;
export const PROTO_HEADER = "x-finn-proto";

export const PORT = 8080;

const PASSED = /^(FINN|AWS|ANTHROPIC|OPENAI)_[A-Z0-9_]+$/;

/** The name of an agent's object. */
export const objectName = (agent: string, generation: number): string => `${agent}~g${generation}`;

/** The environment of an agent's container. A name with `__AGENT` behind it is for that agent alone, and wins. */
export function containerSettings(agent: string, env: Env): Record<string, string> {
  const given = Object.entries(env).filter((each): each is [string, string] => typeof each[1] === "string");
  const own = `__${agent.toUpperCase().replaceAll("-", "_")}`;
  const forAll = given.filter(([name]) => PASSED.test(name) && !name.includes("__"));
  const forThis = given.flatMap(([name, value]) =>
    PASSED.test(name) && name.endsWith(own) ? [[name.slice(0, -own.length), value] as const] : [],
  );
  const hosts = env.AGENTS[agent] ?? [];
  return {
    ...Object.fromEntries([...forAll, ...forThis]),
    FINN_AGENT_ID: agent,
    FINN_HOST: "0.0.0.0",
    FINN_PORT: String(PORT),
    FINN_PUBLIC_URL: hosts[0] === undefined ? env.PUBLIC_URL : `https://${hosts[0]}`,
    FINN_ALLOWED_HOSTS: [...hosts, new URL(env.PUBLIC_URL).host].join(","),
  };
}

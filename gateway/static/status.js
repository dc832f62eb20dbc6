// The one status line: the worst true thing, in about five words. Pure: facts in, { tone, text, detail } out.
// tone is good, plain, warn or bad.

/** `link` is the socket's state, `health` the last answer of GET /health (null: none yet), `reachable` whether it came. */
export function statusLine({ link, draining, reachable, health }) {
  if (draining) return { tone: "warn", text: "finn is restarting", detail: "It comes back by itself; what you type waits here." };
  if (link === "waiting" || reachable === false) return { tone: "warn", text: "Reconnecting…", detail: "What you type waits in this browser." };
  if (health === null) return { tone: "plain", text: "Connecting…", detail: "" };
  return worst(health);
}

// In order of weight: the first that is true is what the line says.
const FACTS = [
  (checks) => bad(checks, "wal:error") && { tone: "bad", text: "Cannot save on this machine", detail: output(checks, "wal:error") },
  (checks, health) => health.status === "fail" && { tone: "bad", text: "finn needs mending", detail: firstOutput(checks, "fail") },
  (checks) => bad(checks, "disk:free") && { tone: "warn", text: "The disk is nearly full", detail: output(checks, "disk:free") },
  (checks) => bad(checks, "store:lastError") && { tone: "warn", text: "Store unreachable, saved here", detail: output(checks, "store:lastError") },
  (checks) => bad(checks, "sandbox:rung") && { tone: "warn", text: "Saved here; commands are off", detail: output(checks, "sandbox:rung") },
  (checks) => model(checks) === "builtin" && { tone: "plain", text: "No model: built-in replies",
    detail: "Saved on this machine. Set ANTHROPIC_API_KEY or OPENAI_API_KEY and start finn again to give it a model." },
  (checks) => bad(checks, "model:state") && { tone: "warn", text: "The model does not answer", detail: output(checks, "model:state") },
  (checks) => bad(checks, "identity:checksum") && { tone: "warn", text: "Identity file is damaged", detail: output(checks, "identity:checksum") },
  (checks, health) => health.status === "warn" && { tone: "warn", text: "Saved here, with a warning", detail: firstOutput(checks, "warn") },
];

function worst(health) {
  const checks = health.checks ?? {};
  const fact = FACTS.map((told) => told(checks, health)).find(Boolean);
  return fact || { tone: "good", text: "Saved on this machine", detail: "Everything here is in finn's log on disk." };
}

export const hasModel = (health) => model(health?.checks ?? {}) !== "builtin";

const first = (checks, name) => checks[name]?.[0] ?? null;
const bad = (checks, name) => ["warn", "fail"].includes(first(checks, name)?.status);
const output = (checks, name) => first(checks, name)?.output ?? "";
const model = (checks) => (/(^|:)builtin$/.test(first(checks, "model:state")?.observedValue ?? "") ? "builtin" : "");
const firstOutput = (checks, status) => Object.values(checks).flat().find((check) => check.status === status)?.output ?? "";

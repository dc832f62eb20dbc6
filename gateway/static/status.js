// The one status line: the worst true thing, in about five words. Pure: facts in, { tone, text, detail } out.
// tone is good, plain, warn or bad.

import { copiesIn, savedDetail, savedWords, unreachableWords } from "./copies.js";

/** `link` is the socket's state, `health` the last answer of GET /health (null: none yet), `reachable` whether it came. */
export function statusLine({ link, draining, reachable, health, transcript }) {
  if (standsBy(health)) return { tone: "warn", text: "Another instance took over", detail: STANDS_BY };
  if (draining) return { tone: "warn", text: "finn is restarting", detail: "It comes back by itself; what you type waits here." };
  if (link === "waiting" || reachable === false) return { tone: "warn", text: "Reconnecting…", detail: "What you type waits in this browser." };
  if (health === null) return { tone: "plain", text: "Connecting…", detail: "" };
  return worst(health, copiesIn(health.checks ?? {}, transcript?.seq));
}

/** What keeps the page from its work, in words: { title, hint } for an error of the API. */
export function troubleWords({ code, message, hint }) {
  return TROUBLES[code] ?? { title: message, hint: hint || "The page tries again by itself." };
}

const STANDS_BY = "This finn and another share one memory, and only one of them may act. This one waits, and goes on when the other has stopped.";
const TROUBLES = {
  starting: { title: "finn is starting", hint: "It reads its log first. The page goes on by itself." },
  draining: { title: "finn is restarting", hint: "The page goes on by itself." },
  fenced: { title: "Another instance took over", hint: STANDS_BY },
  store_unavailable: { title: "finn waits for its memory",
    hint: "This machine's disk is empty and the copies do not answer. It asks again every few seconds and goes on by itself." },
};

/** Whether another instance has this agent's memory now. */
export const standsBy = (health) => first(health?.checks ?? {}, "gateway:state")?.observedValue === "fenced";

// In order of weight: the first that is true is what the line says.
const FACTS = [
  (checks) => bad(checks, "wal:error") && { tone: "bad", text: "Cannot save on this machine", detail: output(checks, "wal:error") },
  (checks, health) => health.status === "fail" && { tone: "bad", text: "finn needs mending", detail: firstOutput(checks, "fail") },
  (checks) => bad(checks, "disk:free") && { tone: "warn", text: "The disk is nearly full", detail: output(checks, "disk:free") },
  (checks, _, { store }) => store?.failing && { tone: "warn", text: unreachableWords(store), detail: waits(checks) },
  (checks, _, { git }) => git?.failing && { tone: "warn", text: "Saved here; git copy fails", detail: "Everything is saved on this machine. The copy in git is tried again within the hour." },
  (checks) => bad(checks, "sandbox:rung") && { tone: "warn", text: "Saved here; commands are off", detail: output(checks, "sandbox:rung") },
  (checks) => bad(checks, "files:leftOut") && { tone: "plain", text: "Saved, but for some files", detail: output(checks, "files:leftOut") },
  (checks, _, copies) => model(checks) === "builtin" && { tone: "plain", text: "No model: built-in replies",
    detail: `${savedWords(copies)}. Set ANTHROPIC_API_KEY or OPENAI_API_KEY and start finn again to give it a model.` },
  (checks) => bad(checks, "model:state") && { tone: "warn", text: "The model does not answer", detail: output(checks, "model:state") },
  (checks) => bad(checks, "identity:checksum") && { tone: "warn", text: "Identity file is damaged", detail: output(checks, "identity:checksum") },
  (checks, health) => health.status === "warn" && { tone: "warn", text: "Saved here, with a warning", detail: firstOutput(checks, "warn") },
];

function worst(health, copies) {
  const checks = health.checks ?? {};
  const fact = FACTS.map((told) => told(checks, health, copies)).find(Boolean);
  return fact || { tone: copies.store && !copies.store.has ? "plain" : "good", text: savedWords(copies), detail: savedDetail(copies) };
}

// With FINN_DURABILITY=store nothing is acknowledged that the store does not have.
const waits = (checks) => (first(checks, "store:durability")?.observedValue === "store"
  ? "What you say waits until the store answers." : "Everything is saved on this machine and goes to the store when it answers.");

export const hasModel = (health) => model(health?.checks ?? {}) !== "builtin";

const first = (checks, name) => checks[name]?.[0] ?? null;
const bad = (checks, name) => ["warn", "fail"].includes(first(checks, name)?.status);
const output = (checks, name) => first(checks, name)?.output ?? "";
const model = (checks) => (/(^|:)builtin$/.test(first(checks, "model:state")?.observedValue ?? "") ? "builtin" : "");
const firstOutput = (checks, status) => Object.values(checks).flat().find((check) => check.status === status)?.output ?? "";

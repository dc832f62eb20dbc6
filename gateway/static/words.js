// What the page says in plain words: tool calls, dates, sizes, costs.

// name: [while it runs, when it is done, what it was done to, icon, counted]
const TOOLS = {
  read: ["Reading", "Read", (args) => args.path, "file", ["file read", "files read"]],
  find: ["Searching for", "Searched for", (args) => args.text || args.pattern, "search", ["search", "searches"]],
  write: ["Writing", "Wrote", (args) => args.path, "pen", ["file written", "files written"]],
  edit: ["Editing", "Edited", (args) => args.path, "pen", ["edit", "edits"]],
  bash: ["Running", "Ran", (args) => args.command, "terminal", ["command", "commands"]],
  remember: ["Remembering", "Remembered", (args) => args.text, "bookmark", ["memory kept", "memories kept"]],
  recall: ["Looking up", "Looked up", (args) => args.query || "everything", "bookmark", ["look-up", "look-ups"]],
};
const LIST = ["Listing", "Listed", ({ path }) => (path === "." || path === "./" || !path ? "the workspace" : path), "file"];
const UNKNOWN = ["Using", "Used", null, "spark", ["other step", "other steps"]];

/** A call as { verb, object, icon }; the object is a path, a command, whatever the call is about. What failed was not done. */
export function toolWords(call, running) {
  const [present, past, object, icon] = (isList(call) ? LIST : TOOLS[call.name]) ?? UNKNOWN;
  const done = !running && (!call.isError || exitStatus(call) !== null);
  return { verb: done ? past : present, object: object ? oneLine(object(argsOf(call)) ?? "") : call.name ?? "a tool", icon };
}

// Reading a folder gives its list.
function isList(call) {
  return call.name === "read" && /^(?:|\.|.*\/)$/.test(argsOf(call).path ?? "");
}

/** Several calls in one line: "3 files read, 8 commands". */
export function stepsWords(calls) {
  return grouped(calls).map(([name, some]) => count(some.length, ...(TOOLS[name] ?? UNKNOWN)[4])).join(", ");
}

/** A call's arguments as an object; text that is no JSON object counts as no arguments. */
export function argsOf(call) {
  try {
    const args = JSON.parse(call.args);
    return args !== null && typeof args === "object" ? args : {};
  } catch {
    return {};
  }
}

/** The exit status a finished command told of, or null. */
export function exitStatus(call) {
  if (call.name !== "bash" || call.result === null) return null;
  return call.details?.exitCode ?? (call.isError ? null : 0);
}

/** Milliseconds as people say them. */
export function duration(ms) {
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 90_000) return `${Math.round(ms / 1000)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** Seconds of waiting or age, as people say them. */
export function span(seconds) {
  const unit = SPANS.find(([, length]) => seconds >= 2 * length) ?? SPANS.at(-1);
  return `${Math.round(Math.max(0, seconds) / unit[1])} ${unit[0]}`;
}
const SPANS = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

/** Bytes as people say them. */
export function size(bytes) {
  const unit = SIZES.find(([, length]) => bytes >= length);
  return unit ? `${Number((bytes / unit[1]).toPrecision(3))} ${unit[0]}` : `${bytes} bytes`;
}
const SIZES = [["GB", 2 ** 30], ["MB", 2 ** 20], ["KB", 2 ** 10]];

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** A time of day, with its date when that is not today. */
export function moment(ms, now) {
  return (sameDay(ms, now) ? clock : day).format(ms);
}

/** The heading a session stands under: Today, Yesterday, This week, or its month. */
export function ageGroup(iso, now) {
  const at = Date.parse(iso);
  const today = new Date(now).setHours(0, 0, 0, 0);
  if (at >= today) return "Today";
  if (at >= today - DAY) return "Yesterday";
  if (at >= today - 6 * DAY) return "This week";
  return "Older";
}
const DAY = 86_400_000;

/** Tokens and money as the provider reported them, or "" when it reported none. */
export function usageWords(usage) {
  if (!usage) return "";
  const tokens = usage.totalTokens ?? (usage.input ?? 0) + (usage.output ?? 0);
  const cost = usage.cost?.total ?? 0;
  const parts = [tokens ? `${tokens.toLocaleString()} tokens` : "", cost ? `${usage.cost.estimated ? "≈ " : ""}$${money(cost)}` : ""];
  return parts.filter(Boolean).join(" · ");
}

/** A title from a first prompt: its first line, cut at a word. */
export function titleOf(text) {
  const line = oneLine(text.trim().split("\n")[0]);
  if (line.length <= 60) return line;
  return `${line.slice(0, 60).replace(/\s+\S*$/, "")}…`;
}

/** Terminal output without the control sequences that only a terminal understands. */
export function plainTerminal(text) {
  return text.replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])/g, "").replace(/[^\n]*\r(?!\n)/g, "");
}

export const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

const oneLine = (value) => String(value).replace(/\s+/g, " ").trim();
const money = (cost) => (cost < 0.01 ? cost.toFixed(4) : cost.toFixed(2));
const sameDay = (one, other) => new Date(one).toDateString() === new Date(other).toDateString();

function grouped(calls) {
  const groups = new Map();
  calls.forEach((call) => groups.set(call.name, [...(groups.get(call.name) ?? []), call]));
  return [...groups];
}

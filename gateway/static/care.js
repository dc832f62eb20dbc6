// How finn looks after itself, in plain words: its tasks, what it was asked to do, what the doctor found.
// Pure: what the API told in, words out.

import { count, span } from "./words.js";

const TASKS = {
  replicate: "Sends what is new to the store",
  archive: "Writes everything to git",
  snapshot: "Sums up the log, so that a start is quick",
  health: "Looks how finn is",
  stale_beads: "Looks for tasks that lie still",
  drill: "Practises restoring everything from the copies",
  prune: "Clears away what nobody needs any more",
  orphans: "Brings home what another instance kept back",
};
const SOON = 60; // seconds; a next run that is nearer is not worth a number that changes all the time

/** A row for each task of /api/tasks, those that do not work first: { name, words, tone, told, why, paused }. */
export function taskRows({ tasks }, now) {
  const rows = tasks.map((task) => ({ name: task.name, words: TASKS[task.name] ?? task.name, why: task.last_error ?? "", ...stand(task, now) }));
  return [...rows.filter((row) => row.tone === "warn"), ...rows.filter((row) => row.tone !== "warn")];
}

function stand(task, now) {
  const failed = `Failed ${count(task.failures, "time", "times")}`;
  if (task.running) return { tone: "plain", told: "Runs now", paused: false };
  if (task.state === "open") return { tone: "warn", told: `${failed}, so it is left alone. Tries again ${until(task.next_run, now)}`, paused: true };
  if (task.state === "half_open") return { tone: "warn", told: `${failed}. Tries again now`, paused: true };
  if (task.last_error) return { tone: "warn", told: `${failed}, last ${since(task.last_run, now)}. Tries again ${until(task.next_run, now)}`, paused: true };
  if (!task.last_run) return { tone: "plain", told: `Has not run yet; comes ${until(task.next_run, now)}`, paused: false };
  return { tone: "good", told: `Worked ${since(task.last_run, now)}; comes again ${until(task.next_run, now)}`, paused: false };
}

const since = (iso, now) => (iso ? `${span((now - Date.parse(iso)) / 1000)} ago` : "just now");
const ahead = (iso, now) => (Date.parse(iso) - now) / 1000;
const until = (iso, now) => (!iso || ahead(iso, now) < SOON ? "within a minute" : `in ${span(ahead(iso, now))}`);

// ── beads ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const STALE = "stale:true";
const isOwn = (bead) => (bead.external_ref ?? "").startsWith("finn:"); // what finn keeps of itself is told elsewhere

/** What there is to do: { none, ready, doing, stale }, each of the last three a list of beads. */
export function beadsIn(all, ready) {
  const theirs = all.filter((bead) => !isOwn(bead));
  const moving = (bead) => !isStale(bead);
  return {
    none: theirs.length === 0,
    ready: ready.filter((bead) => bead.status === "open" && !isOwn(bead) && moving(bead)),
    doing: theirs.filter((bead) => bead.status === "in_progress" && moving(bead)),
    stale: theirs.filter(isStale),
  };
}

const isStale = (bead) => (bead.labels ?? []).includes(STALE);

// ── the doctor ───────────────────────────────────────────────────────────────────────────────────────────────────────

const TONES = { fail: "bad", warn: "warn", info: "plain", pass: "good" };
const WORST_FIRST = ["fail", "warn", "info"];

/** What is not well, the worst first: { id, tone, what, wanted, remedy, note }. What was just mended is told as well. */
export function findingRows({ findings }) {
  const sick = WORST_FIRST.flatMap((severity) => findings.filter((finding) => finding.severity === severity));
  const mended = findings.filter((finding) => finding.severity === "pass" && finding.fixability === "fixed");
  const alike = ({ severity, detail, remediation, data, fixability }) => JSON.stringify([severity, detail, remediation, data, fixability]);
  const once = [...new Map([...sick].reverse().map((finding) => [alike(finding), finding])).values()].reverse();
  return [...once, ...mended].map((finding) => ({
    id: finding.id,
    tone: TONES[finding.severity],
    what: told(finding.severity === "pass" ? finding.title : finding.detail),
    wanted: ["pass", "info"].includes(finding.severity) ? "" : finding.title, // a title says what should be so
    remedy: finding.severity === "pass" ? "" : finding.remediation, // as it is: it may be a command
    note: noteOn(finding),
  }));
}

// A sentence begins with a capital, but for a name that has none and a path.
const told = (text) => (/^(?:finn|git|br)\b|^[^a-z]/.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1));

function noteOn({ data, fixability }) {
  if (fixability === "fixed") return "Mended.";
  if (data?.tried) return `Mending was tried: ${data.tried}`;
  if (data?.blocked) return `Cannot be mended now: ${data.blocked}`;
  return "";
}

/** What mending would do, by finding: { id, what, steps }. Only what the doctor says it can mend now, and how. */
export function plansIn({ findings }) {
  return findings
    .filter((finding) => finding.fixability === "autofixable" && !["pass", "info"].includes(finding.severity) && finding.data?.plan?.length)
    .map(({ id, detail, data }) => ({ id, what: told(detail), steps: data.plan }));
}

/** "Nothing is wrong", or how much is: { tone, text }. */
export function doctorWords({ findings }) {
  const at = (severity) => findings.filter((finding) => finding.severity === severity).length;
  const bad = at("fail") + at("warn");
  if (bad) return { tone: at("fail") ? "bad" : "warn", text: `${count(bad, "thing needs", "things need")} a look` };
  return { tone: "good", text: `Nothing is wrong. ${count(findings.length, "thing was", "things were")} looked at` };
}

/** Why a part of the panel is not shown: { text, detail } for an error of the API. */
export function refusedWords({ status, code, message, hint }) {
  if (code === "forbidden_scope" || status === 403) return { text: "Your token may not see this", detail: "It needs a token that may do more. The owner makes one with `finn token create`." };
  if (status === 0) return { text: "finn does not answer", detail: "The page tries again by itself." };
  return { text: message, detail: hint || "The page tries again by itself." };
}

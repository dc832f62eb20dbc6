// How finn looks after itself, in words: tasks, beads, what the doctor found. Run with: node --test tests/page/

import assert from "node:assert/strict";
import { test } from "node:test";
import { beadsIn, doctorWords, findingRows, plansIn, refusedWords, taskRows } from "../../gateway/static/care.js";

const NOW = Date.parse("2026-11-20T10:00:00Z");
const at = (seconds) => new Date(NOW + seconds * 1000).toISOString();
const task = (more = {}) => ({ name: "archive", every_s: 3600, state: "closed", failures: 0, running: false, last_run: at(-300), last_error: null, next_run: at(3300), ...more });
const told = (more) => taskRows({ tasks: [task(more)] }, NOW)[0];
const finding = (id, severity, more = {}) => ({ id, severity, title: `about ${id}`, detail: "so it is", remediation: "do this", fixability: "notfixable", data: {}, ...more });

test("a task says whether it works, when it last ran and when it comes again", () => {
  assert.deepEqual(told(), { name: "archive", words: "Writes everything to git", why: "", tone: "good", told: "Worked 5 min ago; comes again in 55 min", paused: false });
  assert.equal(told({ last_run: null }).told, "Has not run yet; comes in 55 min");
  assert.equal(told({ running: true }).told, "Runs now");
  assert.equal(told({ next_run: at(5) }).told, "Worked 5 min ago; comes again within a minute");
});

test("a task that is left alone says why, and can be tried at once", () => {
  const open = told({ state: "open", failures: 3, last_error: "no answer", next_run: at(240) });
  assert.deepEqual([open.tone, open.why, open.paused, open.told], ["warn", "no answer", true, "Failed 3 times, so it is left alone. Tries again in 4 min"]);
  const once = told({ failures: 1, last_error: "no answer" });
  assert.deepEqual([once.told, once.paused], ["Failed 1 time, last 5 min ago. Tries again in 55 min", true]);
});

test("tasks that do not work come first, and one without a name of ours keeps its own", () => {
  const rows = taskRows({ tasks: [task(), task({ name: "brew", last_error: "no tea", failures: 1 })] }, NOW);
  assert.deepEqual(rows.map((row) => row.words), ["brew", "Writes everything to git"]);
});

test("beads are counted once, and those that finn keeps of itself not at all", () => {
  const beads = [
    { id: "a", title: "ready", status: "open" },
    { id: "b", title: "doing", status: "in_progress", labels: [] },
    { id: "c", title: "still", status: "in_progress", labels: ["stale:true"] },
    { id: "d", title: "circuit breaker of archive", status: "open", external_ref: "finn:breaker:archive" },
    { id: "e", title: "given back", status: "open", labels: ["stale:true"] },
  ];
  const { none, ...kinds } = beadsIn(beads, beads.filter((bead) => bead.status === "open"));
  const titles = Object.fromEntries(Object.entries(kinds).map(([kind, some]) => [kind, some.map((bead) => bead.title)]));
  assert.deepEqual([none, titles], [false, { ready: ["ready"], doing: ["doing"], stale: ["still", "given back"] }]);
  assert.equal(beadsIn([beads[3]], []).none, true);
});

test("findings are told the worst first, and what is well is only counted", () => {
  const findings = [finding("a", "pass"), finding("b", "warn"), finding("c", "fail"), finding("d", "info")];
  assert.deepEqual(findingRows({ findings }).map((row) => [row.id, row.tone]), [["c", "bad"], ["b", "warn"], ["d", "plain"]]);
  assert.deepEqual(doctorWords({ findings }), { tone: "bad", text: "2 things need a look" });
  assert.deepEqual(doctorWords({ findings: [findings[0], findings[3]] }), { tone: "good", text: "Nothing is wrong. 2 things were looked at" });
});

test("what several looks say in the same words is said once", () => {
  const unknown = ["a", "b", "c"].map((id) => finding(id, "info"));
  assert.deepEqual(findingRows({ findings: unknown }).map((row) => row.id), ["a"]);
  assert.equal(findingRows({ findings: [...unknown, finding("d", "info", { detail: "another" })] }).length, 2);
});

test("what was mended stays to be seen, and what cannot be mended says why", () => {
  const rows = findingRows({ findings: [finding("a", "pass", { fixability: "fixed" }), finding("b", "warn", { data: { blocked: "stop finn first" } }), finding("c", "warn", { data: { tried: "the disk is full" } })] });
  assert.deepEqual(rows.map((row) => [row.id, row.remedy, row.note]), [
    ["b", "do this", "Cannot be mended now: stop finn first"], ["c", "do this", "Mending was tried: the disk is full"], ["a", "", "Mended."]]);
});

test("a finding is told as what is so, and then as what should be", () => {
  const [row] = findingRows({ findings: [finding("a", "warn")] });
  assert.deepEqual([row.what, row.wanted], ["So it is", "about a"]);
  assert.equal(findingRows({ findings: [finding("a", "info")] })[0].wanted, "", "nothing is wrong with that");
  const names = ["finn runs as root", "/data is full"].map((detail) => findingRows({ findings: [finding("a", "warn", { detail })] })[0].what);
  assert.deepEqual(names, ["finn runs as root", "/data is full"]);
});

test("only what has a plan and is not well is offered to be mended", () => {
  const plan = { fixability: "autofixable", data: { plan: ["set wal to mode 0700"] } };
  const findings = [finding("a", "warn", plan), finding("b", "info", plan), finding("c", "fail"), finding("d", "warn", { fixability: "autofixable" })];
  assert.deepEqual(plansIn({ findings }), [{ id: "a", what: "So it is", steps: ["set wal to mode 0700"] }]);
});

test("what may not be seen is told apart from what cannot be had", () => {
  assert.equal(refusedWords({ status: 403, code: "forbidden_scope", message: "no" }).text, "Your token may not see this");
  assert.equal(refusedWords({ status: 0, code: "unreachable", message: "no" }).text, "finn does not answer");
  assert.deepEqual(refusedWords({ status: 503, code: "starting", message: "finn is starting", hint: "" }), { text: "finn is starting", detail: "The page tries again by itself." });
});

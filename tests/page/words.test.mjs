// The page's pure words: tools, times, the status line, the delays of the socket. Run with: node --test tests/page/

import assert from "node:assert/strict";
import { test } from "node:test";
import { delay } from "../../gateway/static/socket.js";
import { hasModel, statusLine } from "../../gateway/static/status.js";
import { ageGroup, argsOf, duration, exitStatus, plainTerminal, stepsWords, titleOf, toolWords, usageWords } from "../../gateway/static/words.js";

const call = (name, args, more = {}) => ({ name, args: JSON.stringify(args), result: "ok", isError: false, details: null, ...more });
const check = (observedValue, status = "pass", output) => [{ observedValue, status, output }];
const facts = (checks, status = "pass", more = {}) => ({ link: "open", draining: false, reachable: true, health: { status, checks }, ...more });

test("a call is told as a verb and an object", () => {
  const told = (name, args, running) => Object.values(toolWords(call(name, args), running)).slice(0, 2).join(" ");
  assert.equal(told("read", { path: "notes/plan.md" }, false), "Read notes/plan.md");
  assert.equal(told("read", { path: "." }, true), "Listing the workspace");
  assert.equal(told("bash", { command: "ls\n  -la" }, true), "Running ls -la");
  assert.equal(told("find", { pattern: "*.md", text: "tea" }, false), "Searched for tea");
  assert.equal(told("brew", {}, false), "Used brew");
});

test("what failed is not told as done, but a command that ran to a bad end is", () => {
  const failed = { isError: true, result: "no" };
  assert.equal(toolWords(call("write", { path: "a" }, failed), false).verb, "Writing");
  assert.equal(toolWords(call("bash", { command: "false" }, { ...failed, details: { exitCode: 1 } }), false).verb, "Ran");
});

test("arguments that are no JSON object count as none", () => {
  assert.deepEqual(["{", "7", "null", null].map((args) => argsOf({ args })), [{}, {}, {}, {}]);
});

test("several calls are counted by kind", () => {
  assert.equal(stepsWords([call("bash", {}), call("read", {}), call("bash", {})]), "2 commands, 1 file read");
});

test("the exit status is the tool's own, and of a failure without one nothing is said", () => {
  assert.equal(exitStatus(call("bash", {}, { details: { exitCode: 3 }, isError: true })), 3);
  assert.equal(exitStatus(call("bash", {}, { details: { exitCode: null }, isError: true })), null);
  assert.equal(exitStatus(call("bash", {})), 0);
  assert.equal(exitStatus(call("read", {})), null);
});

test("terminal output loses colours and overwritten lines, and nothing else", () => {
  assert.equal(plainTerminal("\x1b[32mok\x1b[0m\n10%\r100%\r\nend \x1b]0;title\x07."), "ok\n100%\r\nend .");
});

test("durations and costs are short", () => {
  assert.deepEqual([120, 2_140, 61_000, 600_000].map(duration), ["0.1 s", "2.1 s", "61 s", "10 min"]);
  assert.equal(usageWords({ input: 1000, output: 34, totalTokens: 1034, cost: { total: 0.0123 } }), `${(1034).toLocaleString()} tokens · $0.01`);
  assert.equal(usageWords({ input: 0, output: 0, totalTokens: 0, cost: null }), "");
});

test("a title is the first line of a prompt, cut at a word", () => {
  assert.equal(titleOf("  List files\nand more"), "List files");
  const cut = titleOf("one two three four five six seven eight nine ten eleven twelve thirteen");
  assert.equal(cut, "one two three four five six seven eight nine ten eleven…");
});

test("sessions are grouped by the day of their last word", () => {
  const now = new Date(2026, 5, 15, 12).getTime();
  const at = (days) => ageGroup(new Date(2026, 5, 15 - days, 11).toISOString(), now);
  assert.deepEqual([0, 1, 2, 6, 7, 40].map(at), ["Today", "Yesterday", "This week", "This week", "Older", "Older"]);
});

test("the status line says the worst true thing", () => {
  const line = (given) => statusLine(given).text;
  const builtin = { "model:state": check("finn:builtin") };
  assert.equal(line(facts({})), "Saved on this machine");
  assert.equal(line(facts(builtin)), "No model: built-in replies");
  assert.equal(line(facts({ ...builtin, "wal:error": check("EIO", "fail", "disk") }, "fail")), "Cannot save on this machine");
  assert.equal(line(facts({}, "warn")), "Saved here, with a warning");
  assert.equal(line(facts({}, "pass", { link: "waiting" })), "Reconnecting…");
  assert.equal(line(facts({}, "pass", { reachable: false })), "Reconnecting…");
  assert.equal(line(facts({}, "pass", { link: "waiting", draining: true })), "finn is restarting");
  assert.equal(line(facts({}, "pass", { health: null })), "Connecting…");
});

test("a builtin model counts as none", () => {
  assert.equal(hasModel({ checks: { "model:state": check("finn:builtin") } }), false);
  assert.equal(hasModel({ checks: { "model:state": check("anthropic:some-model") } }), true);
});

test("reconnects wait longer each time, up to five seconds, spread by chance", () => {
  assert.deepEqual([0, 1, 2, 5, 50].map((attempt) => delay(attempt, 1)), [250, 500, 1000, 5000, 5000]);
  assert.equal(delay(3, 0), 1000);
});

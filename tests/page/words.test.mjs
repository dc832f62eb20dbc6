// The page's pure words: tools, times, the status line, the delays of the socket. Run with: node --test tests/page/

import assert from "node:assert/strict";
import { test } from "node:test";
import { leftOut, tierRows } from "../../gateway/static/copies.js";
import { delay } from "../../gateway/static/socket.js";
import { hasModel, standsBy, statusLine, troubleWords } from "../../gateway/static/status.js";
import { ageGroup, argsOf, duration, exitStatus, plainTerminal, size, span, stepsWords, titleOf, toolWords, usageWords } from "../../gateway/static/words.js";

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

const copied = (more = {}) => ({ "wal:lastSeq": check(40), "store:lagSeq": check(0), "store:lagSeconds": check(0), ...more });

test("the status line says where what was said is kept, and never more than is so", () => {
  const line = (checks, seq = 40) => statusLine(facts(checks, "pass", { transcript: { seq } })).text;
  assert.equal(line(copied()), "Saved here and in store");
  assert.equal(line(copied(), 41), "Saved here, store follows"); // what was just said is not in what health told
  assert.equal(line(copied({ "store:lagSeq": check(2) })), "Saved here, store follows");
  assert.equal(line(copied({ "store:lagSeq": check(2) }), 38), "Saved here, store follows");
  assert.equal(line(copied({ "git:lagSeconds": check(1200) })), "Saved here and in store");
  assert.equal(line(copied({ "git:lagSeconds": check(0) })), "Saved here, store and git");
  assert.equal(line({ "git:lagSeconds": check(0) }), "Saved here and in git");
  assert.equal(line({ "git:lagSeconds": check(10) }), "Saved on this machine");
});

test("a store that fails is told with how long it has", () => {
  const failing = { "store:lastError": check("refused", "warn", "look at it") };
  const line = (more, link = "open") => statusLine(facts(copied({ ...failing, ...more }), "warn", { link }));
  assert.equal(line({ "store:failingSeconds": check(185) }).text, "Store unreachable for 3 min");
  assert.equal(line({ "store:lagSeconds": check(9000) }).text, "Store unreachable for 3 h");
  assert.equal(line({}).text, "Store unreachable, saved here");
  assert.match(line({}).detail, /saved on this machine and goes to the store/);
  assert.match(line({ "store:durability": check("store") }).detail, /waits until the store answers/);
  assert.equal(line({}, "waiting").text, "Reconnecting…");
  const git = { "git:lastError": check("rejected", "warn", "look"), "git:lagSeconds": check(9) };
  assert.equal(statusLine(facts(copied(git), "warn")).text, "Saved here; git copy fails");
});

test("another instance that took over is told before everything else", () => {
  const health = { status: "warn", checks: { "gateway:state": check("fenced", "warn", "x") } };
  assert.equal(statusLine(facts({}, "warn", { health, link: "waiting", draining: true })).text, "Another instance took over");
  assert.deepEqual([standsBy(health), standsBy(null), standsBy({ status: "warn" })], [true, false, false]);
});

test("files that are on this machine only are told", () => {
  const given = facts(copied({ "files:leftOut": check(2, "warn", "big.iso (larger than 8 MB)") }), "warn");
  assert.equal(statusLine(given).text, "Saved, but for some files");
});

test("what keeps the page from its work has a title and says what happens next", () => {
  const titles = ["starting", "draining", "fenced", "store_unavailable"].map((code) => troubleWords({ code, message: "x", hint: "" }).title);
  assert.deepEqual(titles, ["finn is starting", "finn is restarting", "Another instance took over", "finn waits for its memory"]);
  assert.deepEqual(troubleWords({ code: "internal", message: "It broke.", hint: "" }), { title: "It broke.", hint: "The page tries again by itself." });
});

test("each tier is told with what it has and since when", () => {
  const now = Date.parse("2026-01-01T00:10:00Z");
  const tier = { name: "store", state: "saved", at: "2026-01-01T00:09:58Z", bytes: 2 ** 21, lag_seq: 0, lag_s: 0, error: null, since: null, place: "s3://b" };
  const words = (more) => tierRows({ tiers: [{ ...tier, ...more }] }, now)[0].words;
  assert.equal(words({}), "Has everything, as of 2 s ago · 2 MB");
  assert.equal(words({ name: "local" }), "Has everything · 2 MB");
  assert.equal(words({ state: "behind", lag_seq: 12, lag_s: 2040, bytes: null }), "Lacks 12 records of the last 34 min");
  assert.equal(words({ state: "failing", since: "2026-01-01T00:07:00Z", lag_seq: 1, bytes: null }), "Fails for 3 min, lacks 1 record");
  assert.equal(words({ state: "unknown", at: null, bytes: null }), "Has not answered yet");
  assert.deepEqual(tierRows({ tiers: [{ ...tier, state: "failing", error: "no answer" }] }, now)[0],
    { name: "The store", tone: "warn", words: "Fails · 2 MB", place: "s3://b", error: "no answer" });
});

test("caches are not among what is left out", () => {
  const left = [{ path: "a/.git", why: "a folder of caches or dependencies" }, { path: "b", why: "larger than 8 MB" }];
  assert.deepEqual(leftOut({ left_out: left }).map((each) => each.path), ["b"]);
});

test("spans and sizes are short", () => {
  assert.deepEqual([-1, 2.4, 119, 185, 7200, 180_000].map(span), ["0 s", "2 s", "119 s", "3 min", "2 h", "2 d"]);
  assert.deepEqual([0, 1023, 1536, 8 * 2 ** 20, 2 ** 30].map(size), ["0 bytes", "1023 bytes", "1.5 KB", "8 MB", "1 GB"]);
});

test("a builtin model counts as none", () => {
  assert.equal(hasModel({ checks: { "model:state": check("finn:builtin") } }), false);
  assert.equal(hasModel({ checks: { "model:state": check("anthropic:some-model") } }), true);
});

test("reconnects wait longer each time, up to five seconds, spread by chance", () => {
  assert.deepEqual([0, 1, 2, 5, 50].map((attempt) => delay(attempt, 1)), [250, 500, 1000, 5000, 5000]);
  assert.equal(delay(3, 0), 1000);
});

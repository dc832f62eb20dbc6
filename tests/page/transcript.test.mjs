// The transcript's fold, frame by frame. Run with: node --test tests/page/

import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY, firstKnownSeq, fold, lastPrompt, runningTurn, withPage } from "../../gateway/static/transcript.js";

const hello = (seq, turn = null, queue = []) => ({ type: "hello", protocol: 1, session: "S", epoch: 1, seq, heartbeat_s: 20, queue, turn });
const prompt = (seq, turn, text) => ({ type: "user_message", seq, turn, data: { id: `u${turn}`, parent: null, text, request_id: `r${turn}` } });
const delta = (turn, text) => ({ type: "text_delta", turn, data: { delta: text } });
const thinking = (turn, text) => ({ type: "thinking_delta", turn, data: { delta: text } });
const message = (seq, turn, text, stop_reason = "stop") => (
  { type: "message", seq, turn, data: { id: `m${seq}`, parent: null, text, usage: null, stop_reason } });
const toolStart = (seq, turn, call) => ({ type: "tool_start", seq, turn, data: { call, name: "bash", args: '{"command":"ls"}' } });
const toolEnd = (seq, turn, call, result = "ok") => (
  { type: "tool_end", seq, turn, data: { call, name: "bash", result, truncated: false, is_error: false } });
const turnEnd = (seq, turn, stop_reason = "stop", error) => ({ type: "turn_end", seq, turn, data: { stop_reason, error, usage: null } });
const retry = (seq, turn) => ({ type: "retry", seq, turn, data: { attempt: 2, max: 4, delay_ms: 500, code: "model_error", message: "cut" } });
const queue = (...entries) => ({ type: "queue", data: { queue: entries } });
const waiting = (turn) => ({ id: `u${turn}`, turn, text: "later", request_id: `r${turn}` });
const reset = (seq) => ({ type: "reset", seq });

const played = (frames, from = EMPTY) => frames.reduce((state, frame, index) => fold(state, frame, 1000 + index), from);
const shown = (state) => state.turns.map((turn) => turn.items.map((item) => `${item.kind}:${item.text ?? item.result}`));
const WHOLE = [hello(0), prompt(1, "A", "hi"), delta("A", "he"), toolStart(2, "A", "c1"), toolEnd(4, "A", "c1"), delta("A", "hello"),
  message(5, "A", "hello"), turnEnd(6, "A")];

test("a message replaces what was streamed of it", () => {
  const streaming = played(WHOLE.slice(0, 3));
  assert.equal(streaming.stream.text, "he");
  const written = fold(streaming, message(2, "A", "hey you"), 2000);
  assert.equal(written.stream.text, "");
  assert.deepEqual(shown(written), [["user:hi", "assistant:hey you"]]);
});

test("a replay that overlaps what is known adds nothing twice", () => {
  const once = played(WHOLE);
  const twice = played([hello(6), ...WHOLE.slice(1).filter((frame) => frame.seq)], once);
  assert.deepEqual(twice.turns, once.turns);
  assert.equal(twice.seq, 6);
});

test("a page from REST and a replay of the same records make one transcript", () => {
  const page = { epoch: 1, seq: 2, prev: null, messages: [
    { id: "uA", seq: 1, role: "user", turn: "A", text: "hi", content: [], created_at: "2026-01-01T00:00:00Z" },
    { id: "m2", seq: 2, role: "assistant", turn: "A", text: "", stop_reason: "tool_use", created_at: "2026-01-01T00:00:01Z",
      content: [{ type: "toolCall", id: "c1", name: "bash", arguments: { command: "ls" } }] },
    { id: "t4", seq: 4, role: "toolResult", turn: "A", text: "ok", tool_call_id: "c1", tool_name: "bash", is_error: false, content: [],
      created_at: "2026-01-01T00:00:03Z" }] };
  const loaded = withPage(EMPTY, page);
  assert.equal(loaded.seq, 2);
  const state = played([hello(6), toolStart(3, "A", "c1"), toolEnd(4, "A", "c1"), message(5, "A", "done"), turnEnd(6, "A")], loaded);
  assert.deepEqual(shown(state), [["user:hi", "assistant:", "tool:ok", "assistant:done"]]);
  assert.equal(state.turns[0].items[2].ms, 2000);
  assert.equal(runningTurn(state), null);
});

test("an earlier page goes before what is known, and a call cut by the edge becomes whole", () => {
  const result = { id: "t4", seq: 4, role: "toolResult", turn: "A", text: "ok", tool_call_id: "c1", tool_name: "bash", content: [] };
  const call = { id: "m2", seq: 2, role: "assistant", turn: "A", text: "look", content: [{ type: "toolCall", id: "c1", name: "bash", arguments: {} }] };
  const newest = withPage(EMPTY, { epoch: 1, seq: 9, prev: 4, messages: [result] });
  assert.equal(newest.earlier, true);
  assert.equal(firstKnownSeq(newest), 4);
  const whole = withPage(newest, { epoch: 1, seq: 9, prev: null, messages: [call] });
  assert.deepEqual(shown(whole), [["assistant:look", "tool:ok"]]);
  assert.equal(whole.turns[0].items[1].args, "{}");
  assert.equal(whole.earlier, false);
});

test("reset forgets everything after its seq, a tool's result included", () => {
  const state = fold(played(WHOLE), reset(3), 3000);
  assert.deepEqual(shown(state), [["user:hi", "tool:null"]]);
  assert.equal(state.turns[0].end, null);
  assert.equal(state.seq, 3);
});

test("reset keeps what hello told of the running turn", () => {
  const running = { id: "B", text_so_far: "so far", thinking_so_far: "", tools: [{ call: "c9", name: "bash", args: "{}" }] };
  const state = played([hello(3, running), reset(3)], played(WHOLE));
  assert.equal(state.stream.text, "so far");
  assert.equal(runningTurn(state), "B");
  assert.deepEqual(state.turns.at(-1).items.map((item) => item.key), ["c9"]);
});

test("records after a reset are taken although their seq was seen before", () => {
  const state = played([hello(4), reset(1), message(4, "A", "the other history")], played(WHOLE));
  assert.deepEqual(shown(state), [["user:hi", "assistant:the other history"]]);
});

test("a retry discards what the failed call had written", () => {
  const state = played([hello(0), prompt(1, "A", "hi"), delta("A", "wro"), retry(2, "A")]);
  assert.equal(state.stream.text, "");
  assert.equal(state.stream.retry.attempt, 2);
  const again = played([delta("A", "right")], state);
  assert.equal(again.stream.text, "right");
  assert.equal(again.stream.retry, null);
});

test("a retry in the replay does not discard what hello brought", () => {
  const state = played([hello(2, { id: "A", text_so_far: "second attempt", thinking_so_far: "", tools: [] }), prompt(1, "A", "hi"), retry(2, "A")]);
  assert.equal(state.stream.text, "second attempt");
});

test("deltas after hello continue the text so far", () => {
  const state = played([hello(1, { id: "A", text_so_far: "one ", thinking_so_far: "", tools: [] }), prompt(1, "A", "hi"), delta("A", "two")]);
  assert.equal(state.stream.text, "one two");
  assert.equal(runningTurn(state), "A");
});

test("a turn interrupted by a restart keeps the written beginning and is not running", () => {
  const before = played([hello(0), prompt(1, "A", "hi"), delta("A", "the beginning and more")]);
  const state = played([hello(3), message(2, "A", "the beginning", "interrupted"), turnEnd(3, "A", "interrupted")], before);
  assert.deepEqual(shown(state), [["user:hi", "assistant:the beginning"]]);
  assert.equal(state.turns[0].end.stopReason, "interrupted");
  assert.equal(state.stream, null);
  assert.equal(runningTurn(state), null);
});

test("a queued prompt stands below the answer it waits for, and runs when the queue lets it go", () => {
  const queued = played([hello(0), prompt(1, "A", "first"), delta("A", "x"), prompt(2, "B", "second"), queue(waiting("B"))]);
  assert.equal(runningTurn(queued), "A");
  const ended = played([message(3, "A", "answer"), turnEnd(4, "A")], queued);
  assert.equal(runningTurn(ended), null);
  const next = played([queue()], ended);
  assert.equal(runningTurn(next), "B");
  assert.deepEqual(shown(next), [["user:first", "assistant:answer"], ["user:second"]]);
});

test("thinking that was streamed stays with the message it led to", () => {
  const state = played([hello(0), prompt(1, "A", "hi"), thinking("A", "hm"), thinking("A", "m"), delta("A", "a"), message(2, "A", "a")]);
  assert.equal(state.turns[0].items[1].thinking, "hmm");
  assert.equal(state.turns[0].items[1].thinkingMs, 2);
});

test("the error of a turn is kept with its hint", () => {
  const error = { code: "model_error", message: "refused", hint: "set a key" };
  const state = played([hello(0), prompt(1, "A", "hi"), turnEnd(2, "A", "error", error)]);
  assert.deepEqual(state.turns[0].end.error, error);
});

test("a steering word stays in the running turn, in log order", () => {
  const state = played([hello(0), prompt(1, "A", "go"), toolStart(2, "A", "c1"),
    { ...prompt(3, "A", "left, please"), data: { id: "u2", text: "left, please", request_id: "r2" } }, toolEnd(4, "A", "c1")]);
  assert.deepEqual(shown(state), [["user:go", "tool:ok", "user:left, please"]]);
  assert.equal(lastPrompt(state), "left, please");
});

test("what is left out of the context and what the system notes are items of their turn", () => {
  const state = played([hello(0), prompt(1, "A", "hi"), { type: "context_cut", seq: 2, turn: "A", data: { left_out: 4, first_kept: "x" } },
    { type: "note", seq: 3, turn: "A", data: { id: "n", parent: null, text: "a restart came between" } }]);
  assert.deepEqual(state.turns[0].items.map((item) => item.kind), ["user", "cut", "note"]);
});

test("a transcript is never changed in place", () => {
  const frozen = (value) => (Object.values(value ?? {}).forEach((inner) => typeof inner === "object" && frozen(inner)), Object.freeze(value));
  WHOLE.reduce((state, frame, index) => frozen(fold(state, frame, index)), frozen({ ...EMPTY }));
});

test("a steering word that waits to be heard does not make the running turn wait", () => {
  const steer = { type: "user_message", seq: 3, turn: "A", data: { id: "u2", parent: null, text: "left", request_id: "r2" } };
  const waits = { id: "u2", turn: "A", text: "left", request_id: "r2" };
  const state = played([hello(0), prompt(1, "A", "go"), queue(waiting("A")), queue(), steer, queue(waits)]);
  assert.equal(runningTurn(state), "A");
  const ended = played([turnEnd(4, "A"), queue(waits)], state);
  assert.equal(runningTurn(ended), null);
});

test("notes, cuts and ends that come by REST are part of the page", () => {
  const base = { turn: "A", created_at: "2026-01-01T00:00:00Z" };
  const state = withPage(EMPTY, { epoch: 1, seq: 9, prev: null, messages: [
    { ...base, id: "uA", seq: 1, role: "user", text: "hi" },
    { ...base, id: "k", seq: 2, role: "context_cut", left_out: 3, first_kept: "x" },
    { ...base, id: "n", seq: 3, role: "note", text: "a restart" },
    { ...base, id: "e", seq: 4, role: "turn_end", stop_reason: "error", error: { code: "model_error", message: "no", hint: "" } }] });
  assert.deepEqual(state.turns[0].items.map((item) => item.kind), ["user", "cut", "note"]);
  assert.equal(state.turns[0].end.error.message, "no");
  assert.equal(state.seq, 9);
});

test("what was streamed and never became a message ends with its turn", () => {
  const state = played([hello(0), prompt(1, "A", "hi"), delta("A", "lost"), turnEnd(2, "A", "error")]);
  assert.equal(state.stream, null);
});

test("turns of an earlier page stand before those that were here", () => {
  const said = (seq, turn) => ({ id: `u${turn}`, seq, role: "user", turn, text: turn, content: [] });
  const newest = withPage(EMPTY, { epoch: 1, seq: 9, prev: "5", messages: [said(5, "C"), said(7, "D")] });
  const whole = withPage(newest, { epoch: 1, seq: 12, prev: null, messages: [said(1, "A"), said(3, "B")] });
  assert.deepEqual(whole.turns.map((turn) => turn.id), ["A", "B", "C", "D"]);
  assert.equal(whole.seq, 9);
});

test("what was recovered from another instance is known as such, live and by REST", () => {
  const live = played([hello(0), { type: "note", seq: 3, data: { id: "2-3", parent: null, text: "Recovered from …", recovered: true } }]);
  assert.equal(live.turns[0].items[0].kind, "found");
  const said = { turn: "A", created_at: "2026-01-01T00:00:00Z", role: "user" };
  const state = withPage(EMPTY, { epoch: 2, seq: 9, prev: null, messages: [
    { ...said, id: "1-1", seq: 1, text: "hi" }, { ...said, id: "2-3", seq: 3, text: "lost", recovered: true }] });
  assert.deepEqual(state.turns[0].items.map((item) => item.recovered), [false, true]);
});

// One conversation as the page shows it: a pure fold of REST pages and socket frames.
//
//   Transcript  { epoch, seq, helloSeq, earlier, turns, open, queue, stream }
//     seq       the cursor: every record up to it is in here
//     helloSeq  records up to it are replay: they say what was, not what is happening now
//     earlier   true while the server holds messages older than the first one here
//     open      ids of turns that have not ended, the waiting ones included
//     queue     [{id, turn, text, request_id}] prompts that wait for their turn
//     stream    the message being written: { turn, text, thinking, since, thinkingMs, retry } or null
//   Turn        { id, items, end }     end: null or { seq, stop_reason, error, usage }
//   Item        { kind, key, seq, … }  kind: user, assistant, tool, note, cut
//
// Turns stand in the order of their first record, so a prompt that waited stays below the answer it waited for.
// Nothing here knows the clock: `now` (milliseconds) comes in as an argument.

const RECORDS = new Set(["user_message", "tool_start", "tool_end", "message", "turn_start", "turn_end", "retry", "context_cut", "note"]);
const OUTPUT_LIMIT = 20_000; // characters of a running tool's live output kept in the page

export const EMPTY = Object.freeze({
  epoch: null, seq: 0, helloSeq: 0, earlier: false, turns: [], open: [], queue: [], stream: null,
});

/** The state after one socket frame. A record that is already in here changes nothing. */
export function fold(state, frame, now) {
  const step = STEPS[frame.type];
  if (!step) return state;
  if (!RECORDS.has(frame.type)) return step(state, frame, now);
  if (frame.seq <= state.seq) return state;
  const live = frame.seq > state.helloSeq;
  const opened = live && frame.turn && frame.type !== "note" ? withOpen(state, frame.turn) : state;
  return { ...step(opened, frame, now, live), seq: frame.seq };
}

/** The state with a page of messages from REST put before, after or over what is known. */
export function withPage(state, page) {
  const turns = page.messages.reduce(putMessage, state.turns);
  const cursor = state.epoch === null ? { seq: page.seq, epoch: page.epoch } : {}; // only the first page moves it
  return { ...state, ...cursor, turns: [...turns].sort((a, b) => firstSeq(a) - firstSeq(b)), earlier: page.prev !== null };
}

/** The turn that is being answered now, or null: the first open one that does not wait in the queue. */
export function runningTurn(state) {
  const waiting = waitingIds(state);
  return state.turns.find((turn) => state.open.includes(turn.id) && !isWaiting(turn, waiting))?.id ?? null;
}

/** Ids of the messages that wait: prompts for their turn, steering words for the running turn to hear them. */
export function waitingIds(state) {
  return new Set(state.queue.map((entry) => entry.id));
}

const isWaiting = (turn, waiting) => turn.items.length > 0 && turn.items.every((item) => waiting.has(item.key));

/** The seq to ask earlier messages before, or null when there is nothing here yet. */
export function firstKnownSeq(state) {
  const seqs = state.turns.flatMap((turn) => turn.items.map((item) => item.seq)).filter((seq) => seq !== null);
  return seqs.length ? Math.min(...seqs) : null;
}

/** The text of the newest prompt, or "". */
export function lastPrompt(state) {
  const prompts = state.turns.flatMap((turn) => turn.items.filter((item) => item.kind === "user"));
  return prompts.at(-1)?.text ?? "";
}

// ── steps: one for each frame that changes what is shown ─────────────────────────────────────────────────────────────

const STEPS = { hello, reset, queue, text_delta, thinking_delta, tool_update, user_message, tool_start, tool_end, message,
  turn_start, turn_end, retry, context_cut, note };

function hello(state, frame, now) {
  const { epoch, seq, turn, queue: waiting = [] } = fields(frame);
  const open = [...(turn ? [turn.id] : []), ...waiting.map((entry) => entry.turn).filter((id) => !isOver(state, id))];
  const stream = turn && streamOf(turn.id, turn.text_so_far ?? "", turn.thinking_so_far ?? "", now);
  const greeted = { ...state, epoch, helloSeq: seq, queue: waiting, open, stream: stream ?? null };
  return (turn?.tools ?? []).reduce((known, call) => put(known, turn.id, runningCall(call, null, now)), withTurn(greeted, turn?.id));
}

// Nothing after N is part of the log's history. What hello said about the present stays: it is newer than the cursor.
function reset(state, frame) {
  const { seq } = fields(frame);
  const turns = state.turns.map((turn) => cutTurn(turn, seq, state.open.includes(turn.id)));
  return { ...state, seq, turns: turns.filter((turn) => turn.items.length || state.open.includes(turn.id)) };
}

function queue(state, frame) {
  const waiting = fields(frame).queue ?? [];
  const fresh = waiting.filter((entry) => !isOver(state, entry.turn));
  return fresh.reduce((known, entry) => withOpen(known, entry.turn), { ...state, queue: waiting });
}

function text_delta(state, frame, now) {
  const stream = streamFor(state, frame.turn, now);
  const thinkingMs = stream.thinkingMs ?? (stream.thinking ? now - stream.since : null);
  return withStream(state, { ...stream, thinkingMs, text: stream.text + frame.data.delta, retry: null });
}

function thinking_delta(state, frame, now) {
  const stream = streamFor(state, frame.turn, now);
  const since = stream.thinking ? stream.since : now;
  return withStream(state, { ...stream, since, thinking: stream.thinking + frame.data.delta, retry: null });
}

function tool_update(state, frame) {
  const { call, delta } = frame.data;
  return changeItem(state, frame.turn, call, (item) => ({ ...item, output: (item.output + delta).slice(-OUTPUT_LIMIT) }));
}

function user_message(state, frame, now, live) {
  const { id, text, request_id, created_at } = frame.data;
  return put(state, frame.turn ?? id, { kind: "user", key: id, seq: frame.seq, text, requestId: request_id ?? null,
    at: time(created_at) ?? (live ? now : null) });
}

function tool_start(state, frame, now, live) {
  return put(state, frame.turn, runningCall(frame.data, frame.seq, live ? now : null));
}

function tool_end(state, frame, now, live) {
  const { call, name, result, truncated, is_error, details } = frame.data;
  const done = { result, truncated, isError: is_error, details: details ?? null, endSeq: frame.seq };
  const known = put(state, frame.turn, runningCall({ call, name, args: null }, frame.seq, null));
  return changeItem(known, frame.turn, call, (item) => ({ ...item, ...done, ms: live && item.startedAt ? now - item.startedAt : item.ms }));
}

function message(state, frame, now, live) {
  const { id, text, usage, stop_reason, content, created_at } = frame.data;
  const streamed = live && state.stream?.turn === frame.turn ? state.stream : null;
  const thinking = frame.data.thinking ?? (thinkingOf(content) || streamed?.thinking || "");
  const item = { kind: "assistant", key: id, seq: frame.seq, text, thinking, thinkingMs: streamed?.thinkingMs ?? null, usage,
    model: frame.data.model ?? null, stopReason: stop_reason, at: time(created_at) ?? (live ? now : null) };
  const written = put(state, frame.turn, item);
  return streamed ? withStream(written, streamOf(frame.turn, "", "", now)) : written;
}

// Live, the turn is open from here on (see fold): a stop button before the first word, also for a late steer.
function turn_start(state) {
  return state;
}

function turn_end(state, frame) {
  const ended = withEnd(state, frame.turn, frame.seq, frame.data);
  const stream = state.stream?.turn === frame.turn ? null : state.stream;
  return { ...ended, stream, open: state.open.filter((id) => id !== frame.turn) };
}

// The model is asked again: what it had begun to write is not part of the answer.
function retry(state, frame, now, live) {
  return live ? withStream(state, { ...streamOf(frame.turn, "", "", now), retry: frame.data }) : state;
}

function context_cut(state, frame) {
  return put(state, frame.turn, { kind: "cut", key: `cut-${frame.seq}`, seq: frame.seq, leftOut: frame.data.left_out });
}

function note(state, frame) {
  const { id, text, recovered } = frame.data;
  return put(state, frame.turn, { kind: recovered ? "found" : "note", key: id ?? `note-${frame.seq}`, seq: frame.seq, text });
}

// ── REST messages, as Pi writes them ─────────────────────────────────────────────────────────────────────────────────

function putMessage(turns, message) {
  if (message.role === "turn_end") return withEnd({ turns }, message.turn, message.seq, message).turns;
  return itemsOf(message).reduce((known, item) => put(known, message.turn, item), { turns }).turns;
}

function itemsOf(message) {
  const at = time(message.created_at);
  const { id, seq, text } = message;
  const recovered = message.recovered ?? false; // said to an instance that had lost its place, and found again
  if (message.role === "user") return [{ kind: "user", key: id, seq, text, requestId: message.request_id ?? null, recovered, at }];
  if (message.role === "toolResult") return [toolResult(message, at)];
  if (message.role === "note") return [{ kind: "note", key: id, seq, text }];
  if (message.role === "context_cut") return [{ kind: "cut", key: `cut-${seq}`, seq, leftOut: message.left_out }];
  const calls = (message.content ?? []).filter((block) => block.type === "toolCall");
  const said = { kind: "assistant", key: id, seq, text, thinking: thinkingOf(message.content), thinkingMs: null,
    usage: message.usage ?? null, model: message.model ?? null, stopReason: message.stop_reason ?? null, recovered, at };
  const calledAt = calls.length === 1 ? at : null; // of parallel calls the record times do not tell how long each took
  return [said, ...calls.map((call) => ({ ...runningCall({ ...call, call: call.id, args: call.arguments }, seq, null), calledAt }))];
}

function toolResult(message, at) {
  const call = { call: message.tool_call_id, name: message.tool_name, args: null };
  return { ...runningCall(call, message.seq, null), result: message.text, isError: message.is_error ?? false,
    truncated: message.truncated ?? false, details: message.details ?? null, endSeq: message.seq, endedAt: at };
}

function thinkingOf(content) {
  const blocks = Array.isArray(content) ? content.filter((block) => block.type === "thinking") : [];
  return blocks.map((block) => block.thinking).join("\n\n");
}

// ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function runningCall({ call, name, args, output }, seq, startedAt) {
  const written = typeof args === "string" || args == null ? args ?? null : JSON.stringify(args);
  return { kind: "tool", key: call, seq, name, args: written, startedAt, calledAt: null, endedAt: null, ms: null,
    output: output ?? "", result: null, truncated: false, isError: false, details: null, endSeq: null };
}

function streamOf(turn, text, thinking, since) {
  return { turn, text, thinking, since, thinkingMs: null, retry: null };
}

function streamFor(state, turn, now) {
  return state.stream?.turn === turn ? state.stream : streamOf(turn, "", "", now);
}

function withStream(state, stream) {
  return { ...withTurn(withOpen(state, stream.turn), stream.turn), stream };
}

function withOpen(state, turn) {
  return state.open.includes(turn) ? state : { ...state, open: [...state.open, turn] };
}

function withEnd(state, id, seq, { stop_reason, error, usage }) {
  const end = { seq, stopReason: stop_reason, error: error ?? null, usage: usage ?? null };
  return changeTurn(withTurn(state, id), id, (turn) => ({ ...turn, end }));
}

function isOver(state, id) {
  return state.turns.some((turn) => turn.id === id && turn.end !== null);
}

function withTurn(state, id) {
  const known = id == null || state.turns.some((turn) => turn.id === id);
  return known ? state : { ...state, turns: [...state.turns, { id, items: [], end: null }] };
}

function changeTurn(state, id, change) {
  return { ...state, turns: state.turns.map((turn) => (turn.id === id ? change(turn) : turn)) };
}

function changeItem(state, turnId, key, change) {
  return changeTurn(state, turnId, (turn) => (
    { ...turn, items: turn.items.map((item) => (item.key === key ? change(item) : item)) }));
}

// Puts an item in its turn, in log order; one that is known by its key is completed, never doubled.
function put(state, turnId, item) {
  const id = turnId ?? state.turns.at(-1)?.id ?? "";
  return changeTurn(withTurn(state, id), id, (turn) => ({ ...turn, items: placed(turn.items, item) }));
}

function placed(items, item) {
  const at = items.findIndex((known) => known.key === item.key);
  if (at >= 0) return items.with(at, item.kind === "tool" ? completed(items[at], item) : { ...items[at], ...item });
  const before = item.seq === null ? -1 : items.findIndex((known) => known.seq !== null && known.seq > item.seq);
  return before < 0 ? [...items, item] : items.toSpliced(before, 0, item);
}

// Two views of one call: its start knows the arguments, its end the result. How long it took is told only by two times of
// one clock: the page's (startedAt, now) or the server's (calledAt, endedAt).
function completed(known, item) {
  const [first, second] = (item.seq ?? Infinity) < (known.seq ?? Infinity) ? [item, known] : [known, item];
  const calledAt = first.calledAt ?? second.calledAt;
  const endedAt = known.endedAt ?? item.endedAt;
  return {
    ...first,
    args: first.args ?? second.args,
    output: known.output || item.output,
    result: known.result ?? item.result,
    truncated: known.truncated || item.truncated,
    isError: known.isError || item.isError,
    details: known.details ?? item.details,
    endSeq: known.endSeq ?? item.endSeq,
    startedAt: first.startedAt ?? second.startedAt,
    calledAt, endedAt,
    ms: known.ms ?? item.ms ?? (calledAt && endedAt ? endedAt - calledAt : null),
  };
}

function cutTurn(turn, seq, isOpen) {
  const kept = turn.items.filter((item) => (item.seq === null ? isOpen : item.seq <= seq));
  const items = kept.map((item) => (item.endSeq > seq ? { ...item, result: null, isError: false, details: null, endSeq: null, ms: null } : item));
  return { ...turn, items, end: turn.end && turn.end.seq > seq ? null : turn.end };
}

function firstSeq(turn) {
  return turn.items.find((item) => item.seq !== null)?.seq ?? Infinity;
}

function fields(frame) {
  return { ...frame, ...frame.data };
}

function time(iso) {
  return iso ? Date.parse(iso) : null;
}

// The transcript: turn after turn, what the person said, what the agent did and said, and how it ended.

import { loadEarlier, say, takeBack } from "../conversation.js";
import { copy, proseNode } from "../markdown.js";
import { change, page, toast } from "../page.js";
import { runningTurn } from "../transcript.js";
import { guard, html, nothing, repeat } from "../vendor.js";
import { count, moment, usageWords } from "../words.js";
import { ICONS } from "../icons.js";
import { putIntoComposer } from "./composer.js";
import { iconButton, movingLine } from "./parts.js";
import { stepsView } from "./steps.js";

const proses = new Map(); // key → node that shows markdown; one session's at a time
let owner = null;

export function turnsView() {
  forgetOtherSessions();
  const { turns, earlier, queue, open, stream } = page.transcript;
  const running = runningTurn(page.transcript);
  const waiting = new Set(queue.map((entry) => entry.turn));
  return html`
    ${earlier ? html`<button type="button" class="quiet earlier" @click=${loadEarlier}>
      ${page.loadingEarlier ? "Loading earlier messages…" : "Earlier messages"}</button>` : nothing}
    ${repeat(turns, (turn) => turn.id, (turn, index) => {
      const streamed = stream?.turn === turn.id ? stream : null;
      const last = index === turns.length - 1 && !page.outbox.length;
      const now = turn.id === running;
      return guard([turn, streamed, now, waiting.has(turn.id), open.includes(turn.id), page.opened, last], () => (
        turnView(turn, { streamed, running: now, waits: waiting.has(turn.id), open: open.includes(turn.id), last })));
    })}
    ${repeat(page.outbox, (entry) => entry.request_id, outboxView)}`;
}

function forgetOtherSessions() {
  if (owner === page.current) return;
  proses.clear();
  owner = page.current;
}

function turnView(turn, { streamed, running, waits, open, last }) {
  const parts = partsOf(turn, streamed);
  const answer = turn.items.filter((item) => item.kind === "assistant");
  return html`
    <section class="turn ${last ? "last" : ""}" aria-label="Turn">
      ${repeat(parts, (part) => part.key, (part) => partView(part, { open, waits }))}
      ${running && !busyElsewhere(turn, streamed) ? workingView(streamed) : nothing}
      ${turn.end || !open ? endView(turn, last) : nothing}
      ${open || !answer.some((item) => item.text) ? nothing : footView(answer)}
    </section>`;
}

// ── parts: what was said stands alone, what was done in between is gathered ──────────────────────────────────────────

function partsOf(turn, streamed) {
  const parts = [];
  const step = (item) => {
    if (parts.at(-1)?.kind === "steps") parts.at(-1).steps.push(item);
    else parts.push({ kind: "steps", key: `steps-${item.key}`, steps: [item] });
  };
  turn.items.forEach((item) => {
    if (item.kind === "tool") step(item);
    else if (item.kind !== "assistant") parts.push(item);
    else {
      if (item.thinking) step({ kind: "thought", key: `${item.key}-thought`, text: item.thinking, ms: item.thinkingMs, live: false });
      if (item.text) parts.push({ kind: "prose", key: item.key, text: item.text, done: true });
    }
  });
  if (streamed?.thinking) step({ kind: "thought", key: `${turn.id}-thought`, text: streamed.thinking, ms: streamed.thinkingMs, live: !streamed.text });
  if (streamed?.text) parts.push({ kind: "prose", key: `${turn.id}-stream`, text: streamed.text, done: false });
  return parts;
}

const partView = (part, turn) => PARTS[part.kind](part, turn);
const PARTS = {
  user: (part, { waits }) => bubble(part.text, waits ? html`${ICONS.clock} Waits for its turn` : nothing, waits ? "waits" : "", part.at),
  prose: (part) => html`<div class="answer" data-testid="message-assistant" data-state=${part.done ? "done" : "streaming"}>${shown(part)}</div>`,
  steps: (part, { open }) => stepsView(part.steps, open),
  note: (part) => html`<p class="aside-line" dir="auto">${part.text}</p>`,
  cut: (part) => html`<p class="divider"><span>${count(part.leftOut, "earlier message", "earlier messages")} left out of what the model sees</span></p>`,
};

function shown({ key, text, done }) {
  if (!proses.has(key)) proses.set(key, proseNode());
  const prose = proses.get(key);
  prose.show(text, done);
  return prose.root;
}

function bubble(text, caption, className, at) {
  return html`
    <div class="said ${className}" data-testid="message-user">
      <div class="bubble" dir="auto" title=${at ? moment(at, Date.now()) : ""}>${text}</div>
      ${caption === nothing ? nothing : html`<div class="said-caption">${caption}</div>`}
    </div>`;
}

// ── while it runs ────────────────────────────────────────────────────────────────────────────────────────────────────

function busyElsewhere(turn, streamed) {
  return Boolean(streamed?.text || streamed?.thinking) || turn.items.some((item) => item.kind === "tool" && item.result === null);
}

function workingView(streamed) {
  const { attempt, max, message } = streamed?.retry ?? {};
  return html`<div class="working" data-testid="working">
    ${streamed?.retry ? html`<p class="aside-line warn">Trying again (${attempt} of ${max}): ${message}</p>` : html`<span class="visually-hidden">Working</span>`}
    ${movingLine()}</div>`;
}

// ── how it ended ─────────────────────────────────────────────────────────────────────────────────────────────────────

const TRY_AGAIN = { words: "Try again", prompt: (turn) => turn.items.findLast((item) => item.kind === "user")?.text ?? "" };
const GO_ON = { words: "Go on", prompt: () => "Go on." };

// stop_reason: [tone, icon, title, what to do next]; a turn that just stopped needs no word.
const ENDS = {
  abort: ["quiet", "stop", "Stopped", null],
  interrupted: ["warn", "pause", "Interrupted by a restart. What was written is kept.", TRY_AGAIN],
  error: ["bad", "alert", "The answer did not come", TRY_AGAIN],
  length: ["warn", "pause", "Cut off: the answer reached the model's limit", GO_ON],
  tool_limit: ["warn", "pause", "Paused: too many steps in one turn", GO_ON],
  refused: ["warn", "alert", "The model declined to answer", null],
  budget: ["warn", "pause", "Paused: the budget is reached", null],
};

function endView(turn, last) {
  const reason = turn.end?.stopReason ?? turn.items.findLast((item) => item.kind === "assistant")?.stopReason;
  if (!ENDS[reason]) return nothing;
  const [tone, icon, title, next] = ENDS[reason];
  const error = turn.end?.error;
  const again = next && last && next.prompt(turn);
  return html`
    <div class="end ${tone}" data-testid="turn-end" data-reason=${reason} role=${tone === "bad" ? "alert" : "note"}>
      ${ICONS[icon]}
      <div class="end-words">
        <p class="end-title">${title}</p>
        ${error ? html`<p dir="auto">${error.message}</p>` : nothing}
        ${error?.hint ? html`<p class="end-hint" dir="auto">${error.hint}</p>` : nothing}
      </div>
      ${again ? html`<button type="button" class="button small" data-testid="retry" @click=${() => say(again).catch(tell)}>
        ${ICONS.again}<span>${next.words}</span></button>` : nothing}
    </div>`;
}

function footView(answer) {
  const text = answer.map((item) => item.text).filter(Boolean).join("\n\n");
  const at = answer.at(-1).at;
  const usage = usageWords(sum(answer.map((item) => item.usage)));
  return html`
    <div class="turn-foot">
      ${iconButton({ icon: ICONS.copy, label: "Copy the answer", testid: "copy-answer", run: () => copyAnswer(text) })}
      ${at ? html`<time datetime=${new Date(at).toISOString()}>${moment(at, Date.now())}</time>` : nothing}
      ${usage ? html`<span>${usage}</span>` : nothing}
    </div>`;
}

function sum(usages) {
  const told = usages.filter(Boolean);
  if (!told.length) return null;
  const total = (number) => told.reduce((all, usage) => all + (number(usage) ?? 0), 0);
  return {
    totalTokens: total((usage) => usage.totalTokens ?? (usage.input ?? 0) + (usage.output ?? 0)),
    cost: { total: total((usage) => usage.cost?.total), estimated: told.some((usage) => usage.cost?.estimated) },
  };
}

async function copyAnswer(text) {
  toast((await copy(text)) ? "Copied" : "This browser did not let the page copy.");
}

// ── not yet acknowledged ─────────────────────────────────────────────────────────────────────────────────────────────

function outboxView(entry) {
  if (entry.refused) return refusedView(entry);
  const words = page.link === "open" ? "Sending…" : "Not sent yet, waits for the connection";
  return bubble(entry.text, words, "unsent", null);
}

function refusedView(entry) {
  const edit = () => putIntoComposer(takeBack(entry.request_id));
  const again = () => say(takeBack(entry.request_id), entry.type).catch(tell);
  return html`${bubble(entry.text, html`<span class="bad">Not taken: ${entry.refused.message}</span>
    <button type="button" class="quiet" data-testid="retry" @click=${again}>Try again</button>
    <button type="button" class="quiet" @click=${edit}>Edit</button>
    <button type="button" class="quiet" @click=${() => takeBack(entry.request_id)}>Discard</button>`, "unsent", null)}`;
}

const tell = (error) => toast(error.message);
export const jumpToEnd = () => change({ atEnd: true });

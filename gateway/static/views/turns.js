// The transcript: turn after turn, what the person said, what the agent did and said, and how it ended.

import { loadEarlier, say, takeBack } from "../conversation.js";
import { copy, proseNode } from "../markdown.js";
import { change, page, toast, toggle } from "../page.js";
import { runningTurn, waitingIds } from "../transcript.js";
import { guard, html, nothing, repeat } from "../vendor.js";
import { count, moment, usageWords } from "../words.js";
import { ICONS } from "../icons.js";
import { putIntoComposer } from "./composer.js";
import { iconButton, movingLine, sentence } from "./parts.js";
import { stepsView } from "./steps.js";

const LONG = 1_500; // characters of a prompt, and lines, beyond which it is folded
const LONG_LINES = 16;

const proses = new Map(); // key → node that shows markdown; one session's at a time
let owner = null;

export function turnsView() {
  forgetOtherSessions();
  const { turns, earlier, open, stream } = page.transcript;
  const running = runningTurn(page.transcript);
  const waiting = waitingIds(page.transcript);
  return html`
    ${earlier ? html`<button type="button" class="quiet earlier" @click=${loadEarlier}>
      ${page.loadingEarlier ? "Loading earlier messages…" : "Earlier messages"}</button>` : nothing}
    ${repeat(turns, (turn) => turn.id, (turn, index) => {
      const streamed = stream?.turn === turn.id ? stream : null;
      const last = index === turns.length - 1 && !page.outbox.length;
      const now = turn.id === running;
      const waits = turn.items.filter((item) => waiting.has(item.key)).length;
      return guard([turn, streamed, now, waits, open.includes(turn.id), page.opened, last], () => (
        turnView(turn, { streamed, running: now, waiting, open: open.includes(turn.id), last })));
    })}
    ${repeat(page.outbox, (entry) => entry.request_id, outboxView)}`;
}

function forgetOtherSessions() {
  if (owner === page.current) return;
  proses.clear();
  owner = page.current;
}

function turnView(turn, { streamed, running, waiting, open, last }) {
  const parts = partsOf(turn, streamed);
  const answer = turn.items.filter((item) => item.kind === "assistant");
  return html`
    <section class="turn ${last ? "last" : ""}">
      ${repeat(parts, (part) => part.key, (part) => partView(part, { open, waiting, running }))}
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
  turn.items.forEach((item, index) => {
    if (item.recovered && !turn.items[index - 1]?.recovered) parts.push({ kind: "recovered", key: `${item.key}-recovered` });
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
  user: (part, { waiting, running }) => (waiting.has(part.key) ? bubble(part, "waits", waitsView(running)) : bubble(part, "", nothing)),
  prose: (part) => html`<div class="answer"><h2 class="visually-hidden">finn</h2>
    <div data-testid="message-assistant" data-state=${part.done ? "done" : "streaming"}>${shown(part)}</div></div>`,
  steps: (part, { open }) => stepsView(part.steps, open),
  note: (part) => html`<p class="aside-line" data-testid="note">Told the model: <q dir="auto">${part.text}</q></p>`,
  found: (part) => html`<p class="aside-line" data-testid="note" dir="auto">${part.text}</p>`,
  recovered: () => html`<p class="divider" data-testid="recovered"><span>Recovered from an instance that lost its place</span></p>`,
  cut: (part) => html`<p class="divider"><span>${count(part.leftOut, "earlier message", "earlier messages")} left out of what the model sees</span></p>`,
};

function shown({ key, text, done }) {
  if (!proses.has(key)) proses.set(key, proseNode());
  const prose = proses.get(key);
  prose.show(text, done);
  return prose.root;
}

const waitsView = (running) => html`${ICONS.clock} ${running ? "Waits until the answer can hear it" : "Waits for its turn"}`;

function bubble({ key, text, at }, className, caption) {
  const folds = text.length > LONG || text.split("\n").length > LONG_LINES;
  const folded = folds && !page.opened.has(key);
  return html`
    <div class="said ${className}"><h2 class="visually-hidden">You</h2>
      <div class="bubble ${folded ? "long" : ""}" dir="auto" data-testid="message-user" title=${at ? moment(at, Date.now()) : ""}>${text}</div>
      ${folds ? html`<button type="button" class="quiet" aria-expanded=${!folded} @click=${() => toggle(key)}>${folded ? "Show all" : "Show less"}</button>` : nothing}
      ${caption === nothing ? nothing : html`<div class="said-caption">${caption}</div>`}
    </div>`;
}

// ── while it runs ────────────────────────────────────────────────────────────────────────────────────────────────────

function busyElsewhere(turn, streamed) {
  return Boolean(streamed?.text || streamed?.thinking) || turn.items.some((item) => item.kind === "tool" && item.result === null);
}

function workingView(streamed) {
  const { attempt, message } = streamed?.retry ?? {};
  return html`<div class="working" data-testid="working">
    ${streamed?.retry ? html`<p class="aside-line warn">Attempt ${attempt} failed, trying again: ${message}</p>` : html`<span class="visually-hidden">Working</span>`}
    ${movingLine()}</div>`;
}

// ── how it ended ─────────────────────────────────────────────────────────────────────────────────────────────────────

const TRY_AGAIN = { words: "Try again", prompt: (turn) => turn.items.findLast((item) => item.kind === "user")?.text ?? "" };
const GO_ON = { words: "Go on", prompt: () => "Go on." };

// stop_reason: [tone, icon, title, what to do next]; a turn that just stopped needs no word. Where the title says it all, the
// error's message is left out and only its hint is shown.
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
        ${error && reason !== "interrupted" ? html`<p dir="auto">${sentence(error.message)}</p>` : nothing}
        ${error?.hint ? html`<p class="end-hint" dir="auto">${sentence(error.hint)}</p>` : nothing}
      </div>
      ${again ? html`<button type="button" class="button small" data-testid="retry" @click=${() => say(again).catch(tell)}>
        ${ICONS.again}<span>${next.words}</span></button>` : nothing}
    </div>`;
}

function footView(answer) {
  const text = answer.map((item) => item.text).filter(Boolean).join("\n\n");
  const at = answer.at(-1).at;
  const usage = [answer.at(-1).model, usageWords(sum(answer.map((item) => item.usage)))].filter(Boolean).join(" · ");
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
  return bubble({ key: entry.request_id, text: entry.text, at: null }, "unsent", words);
}

function refusedView(entry) {
  const edit = () => putIntoComposer(takeBack(entry.request_id));
  const again = () => say(takeBack(entry.request_id), entry.type).catch(tell);
  return bubble({ key: entry.request_id, text: entry.text, at: null }, "unsent", html`<span class="bad">Not taken: ${entry.refused.message}</span>
    <button type="button" class="quiet" data-testid="retry" @click=${again}>Try again</button>
    <button type="button" class="quiet" @click=${edit}>Edit</button>
    <button type="button" class="quiet" @click=${() => takeBack(entry.request_id)}>Discard</button>`);
}

const tell = (error) => toast(error.message);
export const jumpToEnd = () => change({ atEnd: true });

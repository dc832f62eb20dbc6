// What the agent did between two pieces of text: its calls and thoughts, one line each, several folded into one.

import { argsOf, count, duration, exitStatus, plainTerminal, stepsWords, toolWords } from "../words.js";
import { codeBlock } from "../markdown.js";
import { page, toggle } from "../page.js";
import { guard, html, nothing, repeat } from "../vendor.js";
import { ICONS } from "../icons.js";
import { movingLine } from "./parts.js";

const FOLD_FROM = 3; // calls in a row; fewer stand as they are

/** `steps` are tool items and thoughts ({ kind: "thought" }) in order; `open` says that their turn is still going on. */
export function stepsView(steps, open) {
  const calls = steps.filter((step) => step.kind === "tool");
  if (calls.length < FOLD_FROM) return repeat(steps, (step) => step.key, (step) => stepView(step, open));
  const going = steps.filter((step) => isRunning(step, open));
  const key = `steps-${calls[0].key}`;
  const unfolded = page.opened.has(key);
  const done = calls.filter((call) => !isRunning(call, open));
  const failed = done.filter((call) => call.isError).length;
  return html`
    <div class="steps">
      <button type="button" class="line steps-line" aria-expanded=${unfolded} data-testid="steps" @click=${() => toggle(key)}>
        <span class="line-icon turn">${ICONS.chevron}</span>
        <span class="line-verb">${count(done.length, "step", "steps")}</span>
        <span class="line-object">${stepsWords(done)}</span>
        ${failed ? html`<span class="line-fact bad">${failed} failed</span>` : nothing}
      </button>
      <div class="steps-inner ${unfolded ? "unfolded" : ""}">
        ${repeat(unfolded ? steps : going, (step) => step.key, (step) => stepView(step, open))}
      </div>
    </div>`;
}

const stepView = (step, open) => guard([step, open, page.opened.has(step.key)], () => (
  step.kind === "tool" ? toolView(step, open) : thoughtView(step)));
const isRunning = (step, open) => open && (step.kind === "tool" ? step.result === null : step.live);

// ── a call ───────────────────────────────────────────────────────────────────────────────────────────────────────────

function toolView(call, open) {
  const running = isRunning(call, open);
  const unfolded = page.opened.has(call.key);
  const { verb, object, icon } = toolWords(call, running);
  return html`
    <div class="tool ${running ? "running" : ""} ${call.isError ? "failed" : ""}" data-testid="tool-card" data-tool=${call.name ?? ""}
      data-state=${running ? "running" : call.result === null ? "unknown" : call.isError ? "failed" : "done"}>
      <button type="button" class="line" aria-expanded=${unfolded} @click=${() => toggle(call.key)}>
        <span class="line-icon">${ICONS[icon]}</span>
        <span class="line-verb">${verb}</span>
        ${object ? html`<span class="line-object ${call.name === "bash" ? "code-words" : ""}" dir="auto">${object}</span>` : nothing}
        ${facts(call, running)}
        <span class="line-icon turn">${ICONS.chevron}</span>
      </button>
      ${running ? movingLine() : nothing}
      ${unfolded ? html`<div class="tool-body">${bodyOf(call)}</div>` : nothing}
    </div>`;
}

function facts(call, running) {
  if (running) return nothing;
  if (call.result === null) return html`<span class="line-fact warn">outcome unknown</span>`;
  const status = exitStatus(call);
  const told = [
    call.ms !== null && call.ms >= 500 ? html`<span class="line-fact">${duration(call.ms)}</span>` : nothing,
    status !== null ? html`<span class="line-fact ${status ? "bad" : ""}">exit ${status}</span>` : nothing,
    call.isError && status === null ? html`<span class="line-fact bad">failed</span>` : nothing,
  ];
  return told;
}

function bodyOf(call) {
  const args = argsOf(call);
  const shown = BODIES[call.name]?.(args, call);
  return html`${shown ?? plainArgs(call)} ${resultOf(call)}
    ${call.truncated ? html`<p class="tool-note">Shortened for the page. The whole result is in the chat's export.</p>` : nothing}`;
}

// How a call's arguments are best read, by tool; the others show name and value.
const BODIES = {
  bash: () => nothing,
  write: (args) => codeBlock(String(args.content ?? ""), languageOf(args.path)),
  edit: (args, call) => diff(call.details?.diff?.split("\n") ?? asked(args.edits ?? [])),
  read: () => nothing,
};

function resultOf(call) {
  const text = plainTerminal(call.result ?? call.output);
  if (call.name === "bash") return terminal(text, call.isError, argsOf(call).command ?? "");
  if (!text) return call.result === null ? nothing : html`<p class="tool-note">No output.</p>`;
  if (call.name === "read" && !call.isError) return codeBlock(text, languageOf(argsOf(call).path));
  if ((call.name === "write" || call.name === "edit") && !call.isError) return nothing;
  return terminal(text, call.isError);
}

function terminal(text, failed, command = "") {
  return html`<div class="terminal ${failed ? "failed" : ""}" dir="ltr">
    ${command ? html`<pre class="command" tabindex="0">$ ${command}</pre>` : nothing}
    ${text ? html`<pre tabindex="0">${text}</pre>` : nothing}</div>`;
}

function plainArgs(call) {
  const entries = Object.entries(argsOf(call));
  if (!entries.length) return call.args && call.args !== "{}" ? terminal(call.args, false) : nothing;
  return html`<dl class="args">${entries.map(([name, value]) => html`
    <dt>${name}</dt><dd dir="auto">${typeof value === "string" ? value : JSON.stringify(value)}</dd>`)}</dl>`;
}

// Lines as the tool writes them: a sign, the line's number, the line.
function diff(lines) {
  return html`<div class="terminal diff" dir="ltr"><pre tabindex="0">${lines.map((line) => (
    html`<span class=${SIGNS[line[0]] ?? "stayed"}>${line}</span>`))}</pre></div>`;
}
const SIGNS = { "-": "gone", "+": "come" };

// An edit that has not been made, or failed: what was asked for.
const asked = (edits) => edits.flatMap(({ oldText = "", newText = "" }) => (
  [...oldText.split("\n").map((line) => `-${line}`), ...newText.split("\n").map((line) => `+${line}`)]));

const languageOf = (path) => LANGUAGES[/\.(\w+)$/.exec(path ?? "")?.[1]];
const LANGUAGES = { py: "python", js: "javascript", mjs: "javascript", ts: "typescript", json: "json", jsonl: "json", md: "markdown",
  sh: "bash", css: "css", html: "xml", xml: "xml", svg: "xml", sql: "sql", yml: "yaml", yaml: "yaml", toml: "ini", ini: "ini", go: "go",
  rs: "rust", diff: "diff", patch: "diff" };

// ── a thought ────────────────────────────────────────────────────────────────────────────────────────────────────────

function thoughtView(thought) {
  const unfolded = page.opened.has(thought.key);
  const words = thought.live ? "Thinking" : thought.ms >= 500 ? `Thought for ${duration(thought.ms)}` : "Thought";
  return html`
    <div class="thought" data-testid="thinking">
      <button type="button" class="line" aria-expanded=${unfolded} @click=${() => toggle(thought.key)}>
        <span class="line-icon">${ICONS.thought}</span><span class="line-verb">${words}</span>
        <span class="line-icon turn">${ICONS.chevron}</span>
      </button>
      ${thought.live ? movingLine() : nothing}
      ${unfolded ? html`<div class="thought-body" dir="auto">${thought.text}</div>` : nothing}
    </div>`;
}

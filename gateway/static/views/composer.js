// Where the person writes: grows with the text, keeps drafts per session, knows the keys of its own, completes /commands.

import { ALT, COMMANDS } from "../commands.js";
import { say, stop } from "../conversation.js";
import * as keep from "../keep.js";
import { change, page, toast } from "../page.js";
import { lastPrompt, runningTurn } from "../transcript.js";
import { html, nothing, ref } from "../vendor.js";
import { ICONS } from "../icons.js";
import { keyCaps } from "./parts.js";

const SLASH = /^\/([a-z]*)$/;
let field = null;
let owner = null; // the session whose draft the field holds
let slash = { matches: [], chosen: 0 };

export function composerView() {
  if (field && owner !== page.current) queueMicrotask(adopt);
  const running = runningTurn(page.transcript) !== null;
  const typed = Boolean(field?.value.trim());
  return html`
    <form class="composer" @submit=${submit}>
      ${slash.matches.length ? slashView() : nothing}
      <label class="visually-hidden" for="composer">Message to finn</label>
      <textarea id="composer" data-testid="composer" rows="1" dir="auto" enterkeyhint="send" autocomplete="off"
        placeholder=${running ? "Write on; it waits its turn" : "Write to finn"} ?disabled=${page.gone} ${ref(mount)}
        aria-controls=${slash.matches.length ? "slash" : nothing} aria-activedescendant=${slash.matches.length ? `slash-${slash.chosen}` : nothing}
        @input=${typing} @keydown=${key}></textarea>
      <div class="composer-foot">
        <span class="composer-hint">${hint(running, typed)}</span>
        ${running ? html`<button type="button" class="round stop" data-testid="stop" aria-label="Stop the answer" title="Stop (Esc)" @click=${stop}>
          ${ICONS.stop}</button>` : nothing}
        ${running && !typed ? nothing : html`<button type="submit" class="round send" data-testid="send" ?disabled=${!typed || page.gone}
          aria-label=${running ? "Queue the message" : "Send"} title=${running ? "Queue (Enter)" : "Send (Enter)"}>${ICONS.up}</button>`}
      </div>
    </form>`;
}

/** Puts text into the field for editing. What stood there goes below it, so nothing is lost. */
export function putIntoComposer(text) {
  const before = field.value.trim();
  put(before ? `${text}\n${before}` : text);
  field.focus();
}

function hint(running, typed) {
  if (!running || !typed) return nothing;
  return html`${keyCaps(["Enter"])}<span>queues</span><button type="button" class="quiet" data-testid="steer" @click=${() => send("steer")}>Steer the answer</button>
    ${keyCaps([ALT, "Enter"])}`;
}

// ── the field ────────────────────────────────────────────────────────────────────────────────────────────────────────

function mount(element) {
  field = element ?? null;
  if (field) adopt();
}

// Another session is open: the field takes over its draft.
function adopt() {
  owner = page.current;
  put(keep.draft(owner ?? "new"));
  if (matchMedia("(pointer: fine)").matches) field.focus();
}

function put(text) {
  field.value = text;
  grow();
  keep.keepDraft(owner ?? "new", text);
  match();
}

function typing() {
  grow();
  keep.keepDraft(owner ?? "new", field.value);
  match();
}

// Where the browser cannot size the field by its content alone.
function grow() {
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

async function submit(event) {
  event?.preventDefault();
  await send("prompt");
}

async function send(type) {
  const text = field.value;
  if (!text.trim()) return;
  put("");
  try {
    await say(text, type);
  } catch (error) {
    putIntoComposer(text);
    toast([error.message, error.hint].filter(Boolean).join(" "));
  }
}

function key(event) {
  if (event.isComposing || event.keyCode === 229) return; // an input method is at work
  if (slash.matches.length && slashKey(event)) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    send(event.altKey ? "steer" : "prompt");
  } else if (event.key === "ArrowUp" && field.value === "" && lastPrompt(page.transcript)) {
    event.preventDefault();
    put(lastPrompt(page.transcript));
  }
}

// ── slash commands ───────────────────────────────────────────────────────────────────────────────────────────────────

function match() {
  const start = SLASH.exec(field.value)?.[1];
  const matches = start === undefined ? [] : COMMANDS.filter((command) => command.when() && command.name.startsWith(start));
  slash = { matches, chosen: 0 };
  change({});
}

function slashKey(event) {
  const { matches, chosen } = slash;
  const moves = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in moves) slash = { matches, chosen: (chosen + moves[event.key] + matches.length) % matches.length };
  else if (event.key === "Enter") runSlash(matches[chosen]);
  else if (event.key === "Tab") put(`/${matches[chosen].name}`);
  else if (event.key === "Escape") slash = { matches: [], chosen: 0 };
  else return false;
  event.preventDefault();
  event.stopPropagation();
  change({});
  return true;
}

function runSlash(command) {
  put("");
  command.run();
}

function slashView() {
  return html`<ul class="slash" id="slash" role="listbox" aria-label="Commands">${slash.matches.map((command, index) => html`
    <li role="option" id="slash-${index}" aria-selected=${index === slash.chosen} @mousedown=${(event) => { event.preventDefault(); runSlash(command); }}>
      <span class="slash-name">/${command.name}</span><span>${command.words}</span></li>`)}</ul>`;
}

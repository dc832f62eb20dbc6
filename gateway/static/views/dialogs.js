// What opens over the page: the palette (go to a chat, do a command), the sheet of keyboard shortcuts, the status panel.

import { COMMANDS, MORE_KEYS } from "../commands.js";
import { change, page } from "../page.js";
import { UNTITLED } from "../sessions.js";
import { html, nothing, ref } from "../vendor.js";
import { count } from "../words.js";
import { ICONS } from "../icons.js";
import { panelView } from "./panel.js";
import { iconButton, keyCaps } from "./parts.js";

const SHOWN = 40;
let wanted = "";
let chosen = 0;

export function dialogView() {
  return DIALOGS[page.dialog]?.() ?? nothing;
}

const DIALOGS = { palette: paletteView, keys: keysView, panel: () => panelView({ show, close: closePanel }) };
const close = () => change({ dialog: null });

// Closing gives the focus back to where it was, if that is still there.
function closePanel() {
  change({ dialog: null, panel: null });
  if (document.activeElement.matches("body, dialog *")) document.getElementById("composer")?.focus();
}

// A dialog can open only once it is part of the page, which is after this drawing.
function show(dialog) {
  if (dialog) queueMicrotask(() => dialog.isConnected && !dialog.open && dialog.showModal());
}

// ── palette ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function paletteView() {
  const entries = matching();
  return html`
    <dialog class="palette" aria-label="Go to a chat or a command" ${ref(showPalette)} @close=${close} @click=${outside}>
      <input class="palette-field" type="text" placeholder="Go to a chat or a command" aria-label="Chat or command" role="combobox"
        aria-expanded="true" aria-controls="palette-list" spellcheck="false" @input=${wish} @keydown=${move}>
      <ul id="palette-list" role="listbox" aria-label="Matches">${entries.map((entry, index) => html`
        <li role="option" aria-selected=${index === chosen} @click=${() => go(entry)} @mousemove=${() => choose(index)}>
          <span class="palette-kind">${entry.icon}</span><span class="palette-words" dir="auto">${entry.words}</span>${keyCaps(entry.keys)}</li>`)}</ul>
      ${entries.length ? nothing : html`<p class="palette-none">Nothing is called that.</p>`}
      <p class="palette-foot">Looks through commands and the titles of ${page.next === null ? "all" : "the newest"}
        ${count(page.sessions.length, "chat", "chats")}.</p>
    </dialog>`;
}

function showPalette(dialog) {
  [wanted, chosen] = ["", 0];
  show(dialog);
}

function matching() {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (text) => words.every((word) => text.toLowerCase().includes(word));
  const commands = COMMANDS.filter((command) => command.when()).map((command) => ({ ...command, icon: ICONS.chevron }));
  const chats = page.sessions.map(({ id, title }) => ({ words: title || UNTITLED, keys: [], icon: ICONS.chat, run: () => { location.hash = `#/s/${id}`; } }));
  const entries = words.length ? [...chats, ...commands] : [...commands.slice(0, 4), ...chats, ...commands.slice(4)];
  return entries.filter((entry) => fits(entry.words)).slice(0, SHOWN);
}

function wish(event) {
  wanted = event.target.value;
  choose(0);
}

function choose(index) {
  chosen = index;
  change({});
}

function move(event) {
  const entries = matching();
  const moves = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in moves) choose((chosen + moves[event.key] + entries.length) % entries.length);
  else if (event.key === "Enter" && entries[chosen]) go(entries[chosen]);
  else return;
  event.preventDefault();
  requestAnimationFrame(() => document.querySelector('#palette-list [aria-selected="true"]')?.scrollIntoView({ block: "nearest" }));
}

function go(entry) {
  change({ dialog: null });
  entry.run();
}

function outside(event) {
  if (event.target === event.currentTarget) close();
}

// ── shortcuts ────────────────────────────────────────────────────────────────────────────────────────────────────────

function keysView() {
  const rows = [...MORE_KEYS.slice(0, 4), ...COMMANDS.filter((command) => command.keys.length), ...MORE_KEYS.slice(4)];
  return html`
    <dialog class="sheet" aria-labelledby="keys-title" ${ref(show)} @close=${close} @click=${outside}>
      <header><h2 id="keys-title">Keyboard</h2>${iconButton({ icon: ICONS.close, label: "Close", run: close })}</header>
      <dl>${rows.map((row) => html`<dt>${row.words}</dt><dd>${keyCaps(row.keys)}</dd>`)}</dl>
    </dialog>`;
}

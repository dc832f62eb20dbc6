// The whole page: rail, head, reading column, composer, and what floats over them.

import { newChat } from "../commands.js";
import { loadEarlier, open, wake } from "../conversation.js";
import { change, dismiss, page } from "../page.js";
import { titleFor, UNTITLED } from "../sessions.js";
import { start } from "../start.js";
import { standsBy, troubleWords } from "../status.js";
import { html, nothing, ref, repeat } from "../vendor.js";
import { ICONS } from "../icons.js";
import { composerView } from "./composer.js";
import { dialogView } from "./dialogs.js";
import { loginView } from "./login.js";
import { iconButton, mark, movingLine } from "./parts.js";
import { railView, titleField } from "./rail.js";
import { turnsView } from "./turns.js";
import { welcomeView } from "./welcome.js";

const NEAR = 64; // pixels from the end that still count as reading along
const AHEAD = 400; // pixels from the top at which earlier messages are fetched

export function shellView() {
  return VIEWS[page.phase]();
}

const VIEWS = { boot: bootView, login: loginView, ready: readyView };

function bootView() {
  if (!page.trouble) return html`<main class="gate"><div class="gate-wait">${mark()}${movingLine()}</div></main>`;
  return html`<main class="gate">${troubleView(page.trouble, start)}</main>`;
}

function readyView() {
  return html`
    <button type="button" class="skip button" @click=${() => document.getElementById("composer").focus()}>Skip to the message field</button>
    <div class="page ${page.drawer ? "drawer-open" : ""}">
      ${railView()}
      <div class="scrim" @click=${() => change({ drawer: false })}></div>
      <main class="column" ?inert=${page.drawer}>
        ${headView()} ${reconnectView()}
        <div class="scroller" id="scroller" tabindex="-1" ${ref(mountScroller)} @scroll=${scrolled}>
          <div class="reading" role="log" aria-live="off" aria-label="Conversation">${contentView()}</div>
        </div>
        <div class="foot">
          ${page.atEnd || page.current === null ? nothing : html`<button type="button" class="jump" data-testid="jump-latest" @click=${jump}>
            ${ICONS.down}<span>Jump to latest</span></button>`}
          ${composerView()}
        </div>
      </main>
      ${dialogView()}
      <div class="toasts" role="status">${repeat(page.toasts, (toast) => toast.id, toastView)}</div>
      <div class="visually-hidden" role="status" aria-live="polite">${page.said ? `finn: ${page.said.slice(0, 800)}` : ""}</div>
    </div>`;
}

function headView() {
  const renaming = page.renaming?.id === page.current && page.renaming?.where === "head";
  const title = titleFor(page.current) || UNTITLED;
  return html`
    <header class="head">
      ${iconButton({ icon: ICONS.menu, label: "Chats", className: "drawer-only", expanded: page.drawer, run: openDrawer })}
      ${page.current === null || page.gone ? html`<span class="head-title"></span>` : renaming ? titleField({ id: page.current, title: titleFor(page.current) }) : html`
        <h1 class="head-title"><button type="button" dir="auto" title="Rename" @click=${() => change({ renaming: { id: page.current, where: "head" } })}>${title}</button></h1>`}
      ${iconButton({ icon: ICONS.plus, label: "New chat", className: "drawer-only", run: newChat })}
    </header>`;
}

function reconnectView() {
  const shown = page.current !== null && !page.gone && (page.draining || page.late);
  if (!shown) return nothing;
  const words = standsBy(page.health) ? "Another instance took over. What you write waits here." : page.draining ? "finn is restarting. The page comes back by itself." : "Reconnecting. What you write waits here and is sent then.";
  return html`<div class="reconnect" data-testid="reconnect-bar" role="status">${movingLine()}<span>${words}</span>
    <button type="button" class="quiet" @click=${wake}>Try now</button></div>`;
}

function openDrawer() {
  change({ drawer: true });
  setTimeout(() => document.querySelector("#rail .drawer-only")?.focus(), 60);
}

function contentView() {
  if (page.trouble) return troubleView(page.trouble, () => open(page.current));
  if (page.gone) return goneView();
  if (page.loading) return html`<div class="gate-wait">${movingLine()}</div>`;
  const empty = page.transcript.turns.length === 0 && page.outbox.length === 0;
  return empty ? welcomeView() : turnsView();
}

const goneView = () => html`
  <section class="trouble"><h1>This chat is not here</h1><p>It was deleted, or the address is not one of finn's chats.</p>
    <button type="button" class="button" @click=${newChat}>${ICONS.plus}<span>New chat</span></button></section>`;

const troubleView = (error, again) => html`
  <section class="trouble" role="alert" data-testid="trouble"><h1>${troubleWords(error).title}</h1>
    <p>${troubleWords(error).hint}</p>
    <button type="button" class="button" data-testid="retry" @click=${again}>${ICONS.again}<span>Try now</span></button></section>`;

const toastView = (toast) => html`
  <div class="toast"><span>${toast.text}</span>${toast.action ? html`
    <button type="button" class="quiet" data-testid="undo" @click=${() => { dismiss(toast.id); toast.action.run(); }}>${toast.action.words}</button>` : nothing}</div>`;

// ── scrolling: the text is followed only while the reader is at its end ──────────────────────────────────────────────

let scroller = null;
let before = { height: 0, first: null, session: null };

function mountScroller(element) {
  scroller = element ?? null;
}

function scrolled() {
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
  if (atEnd !== page.atEnd) change({ atEnd });
  if (scroller.scrollTop < AHEAD && page.transcript.earlier) loadEarlier();
}

function jump() {
  change({ atEnd: true });
  document.getElementById("composer")?.focus();
}

/** After each drawing: stay at the end, or stay where the reader is when earlier messages came in above. */
export function settleScroll() {
  if (!scroller) return;
  const first = page.transcript.turns[0]?.items[0]?.key ?? null;
  if (page.current === null) scroller.scrollTop = before.session === null ? scroller.scrollTop : 0;
  else if (page.atEnd) scroller.scrollTop = scroller.scrollHeight;
  else if (first !== before.first && before.first !== null) scroller.scrollTop += scroller.scrollHeight - before.height;
  before = { height: scroller.scrollHeight, first, session: page.current };
  if (scroller.scrollHeight < scroller.clientHeight + AHEAD) loadEarlier(); // folded turns can leave the page nearly empty
}

// The left rail: new chat, the sessions by age, the one status line.

import { chooseTheme, newChat } from "../commands.js";
import { change, page } from "../page.js";
import { openPanel } from "../panel.js";
import { moreSessions, remove, rename, UNTITLED } from "../sessions.js";
import { statusLine } from "../status.js";
import { nextTheme, theme } from "../theme.js";
import { runningTurn } from "../transcript.js";
import { guard, html, nothing, ref, repeat } from "../vendor.js";
import { ageGroup } from "../words.js";
import { ICONS } from "../icons.js";
import { iconButton, mark, movingLine } from "./parts.js";

const THEME_ICONS = { system: ICONS.half, light: ICONS.sun, dark: ICONS.moon };

export function railView() {
  return html`
    <aside class="rail" id="rail" aria-label="Chats">
      <div class="rail-head">
        <a class="brand" href="#/">${mark()}<span>finn</span></a>
        ${iconButton({ icon: ICONS.close, label: "Close the list", className: "drawer-only", run: () => change({ drawer: false }) })}
      </div>
      <div class="rail-actions">
        <button type="button" class="button new-chat" data-testid="new-chat" @click=${newChat}>${ICONS.plus}<span>New chat</span></button>
        ${iconButton({ icon: ICONS.search, label: "Go to a chat or a command", run: () => change({ dialog: "palette", drawer: false }) })}
      </div>
      <nav class="rail-list" aria-label="Chats by age">
        ${guard([page.sessions, page.current, page.renaming, runningTurn(page.transcript), new Date().toDateString()], () => groups().map(
          ([name, sessions]) => html`<h2>${name}</h2><ul>${repeat(sessions, (session) => session.id, row)}</ul>`))}
        ${page.next === null ? nothing : html`
          <button type="button" class="quiet more-sessions" ${ref(loadInView)} @click=${moreSessions}>Older chats</button>`}
      </nav>
      ${footView()}
    </aside>`;
}

function groups() {
  const now = Date.now();
  const named = new Map();
  page.sessions.forEach((session) => {
    const name = ageGroup(session.updated_at, now);
    if (!named.has(name)) named.set(name, []);
    named.get(name).push(session);
  });
  return [...named];
}

function row(session) {
  const current = session.id === page.current;
  const running = current ? runningTurn(page.transcript) !== null : Boolean(session.turn);
  const renaming = page.renaming?.id === session.id && page.renaming.where === "rail";
  return guard([session, current, running, renaming], () => html`
    <li class="session ${current ? "current" : ""}" data-testid="session-item" data-session=${session.id}>
      ${renaming ? titleField(session, "rail") : html`
        <a href="#/s/${session.id}" dir="auto" aria-current=${current ? "page" : "false"} title=${session.title || UNTITLED}
          @click=${() => change({ drawer: false })}>${session.title || UNTITLED}</a>
        ${running ? movingLine() : nothing}
        <span class="session-actions">
          ${iconButton({ icon: ICONS.pen, label: `Rename ${session.title || UNTITLED}`, testid: "rename",
            run: () => change({ renaming: { id: session.id, where: "rail" } }) })}
          ${iconButton({ icon: ICONS.bin, label: `Delete ${session.title || UNTITLED}`, testid: "delete", run: () => remove(session.id) })}
        </span>`}
    </li>`);
}

/** A title that is being changed: Enter and leaving keep it, Escape does not. */
export function titleField(session) {
  return html`<input class="title-field" aria-label="Title of the chat" dir="auto" maxlength="200" .value=${session.title ?? ""} ${ref(focusOnce)}
    @keydown=${(event) => titleKey(event, session.id)} @blur=${(event) => page.renaming && rename(session.id, event.target.value)}>`;
}

function titleKey(event, id) {
  if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
  event.stopPropagation();
  if (event.key === "Enter") rename(id, event.target.value);
  else change({ renaming: null });
}

function focusOnce(field) {
  if (field) queueMicrotask(() => field.select());
}

function footView() {
  const { tone, text, detail } = statusLine(page);
  return html`
    <div class="rail-foot">
      <button type="button" class="status-line ${tone}" title=${detail} aria-haspopup="dialog" @click=${openPanel}>
        <span class="dot" aria-hidden="true"></span><span data-testid="status-line" role="status">${text}</span></button>
      ${iconButton({ icon: THEME_ICONS[theme()], label: `Theme: ${theme()}. Change to ${nextTheme()}`, testid: "theme-toggle",
        run: () => chooseTheme(nextTheme()) })}
    </div>`;
}

const seen = new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) moreSessions();
}, { rootMargin: "300px" });

function loadInView(button) {
  seen.disconnect();
  if (button) seen.observe(button);
}

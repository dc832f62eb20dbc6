// The panel that slides over from the right: where everything is kept, what finn does by itself, what is to do, what is wrong.

import { beadsIn, doctorWords, findingRows, plansIn, refusedWords, taskRows } from "../care.js";
import { leftOut, tierRows } from "../copies.js";
import { ICONS } from "../icons.js";
import { page } from "../page.js";
import { leavePlan, mend, runTask, showPlan, undo } from "../panel.js";
import { statusLine } from "../status.js";
import { html, nothing, ref } from "../vendor.js";
import { count, size } from "../words.js";
import { iconButton, movingLine, sentence } from "./parts.js";

const NAMED = 12; // files that are listed; the rest is counted
const SHOWN = 5; // beads of a kind; the rest is counted

export function panelView({ show, close }) {
  const { tone, text, detail } = statusLine(page);
  return html`
    <dialog class="panel" aria-labelledby="panel-title" data-testid="panel" ${ref(show)} @close=${close} @click=${outside}>
      <header class="panel-head"><h2 id="panel-title">How finn is</h2>${worstView(page.panel.parts.doctor)}${iconButton({ icon: ICONS.close, label: "Close", run: (event) => event.currentTarget.closest("dialog").close() })}</header>
      <div class="panel-body" tabindex="-1">
        <div class="panel-line ${tone}"><span class="dot" aria-hidden="true"></span><div><strong>${text}</strong><p>${detail}</p></div></div>
        ${SECTIONS.map(sectionView)}
      </div>
    </dialog>`;
}

// In the head, so that nothing moves when the doctor has answered.
function worstView(doctor) {
  const { tone, text } = doctor ? doctorWords(doctor) : { tone: "good" };
  return tone === "good" ? nothing : html`<button type="button" class="quiet ${tone}" @click=${() => document.getElementById("part-doctor").scrollIntoView()}>${text}</button>`;
}

const SECTIONS = [
  { name: "storage", title: "Where it is kept", view: storageView },
  { name: "tasks", title: "What finn does by itself", view: tasksView },
  { name: "beads", title: "What is to do", view: beadsView },
  { name: "doctor", title: "What the doctor found", view: doctorView },
];

// What was answered before stays while an answer fails: only who has nothing to show says why.
function sectionView({ name, title, view }) {
  const { parts, errors } = page.panel;
  const error = errors[name];
  if (error?.status === 404) return nothing; // this finn has no such part
  return html`<section class="part" data-testid="part-${name}" aria-labelledby="part-${name}"><h3 id="part-${name}">${title}</h3>
    ${parts[name] ? view(parts[name]) : error ? refusedView(error) : html`<div class="part-wait">${movingLine()}<span class="visually-hidden">Looking…</span></div>`}
  </section>`;
}

function refusedView(error) {
  const { text, detail } = refusedWords(error);
  return html`<div class="row plain"><span class="dot" aria-hidden="true"></span><div><p class="row-name">${text}</p><p>${sentence(detail)}</p></div></div>`;
}

// ── tiers ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function storageView(storage) {
  return html`<ul class="rows" data-testid="tiers">${tierRows(storage, Date.now()).map(tierView)}</ul>${filesView(storage)}`;
}

const tierView = ({ name, tone, words, place, error }) => html`
  <li class="row ${tone}"><span class="dot" aria-hidden="true"></span>
    <div><p class="row-name">${name}</p><p>${words}</p>${place ? html`<p class="row-place">${place}</p>` : nothing}
      ${error ? html`<p class="row-why">${error}</p>` : nothing}</div></li>`;

function filesView({ inventory, left_out }) {
  const only = leftOut({ left_out });
  const bytes = inventory.reduce((sum, file) => sum + file.bytes, 0);
  return html`
    <p class="part-note">${count(inventory.length, "file", "files")} of the workspace and the notes ${inventory.length === 1 ? "is" : "are"} kept,
      ${size(bytes)}.${only.length ? html` On this machine only:` : nothing}</p>
    ${only.length ? html`<ul class="part-list" data-testid="left-out">${only.slice(0, NAMED).map((each) => html`<li><code>${each.path}</code> ${each.why}</li>`)}
      ${only.length > NAMED ? html`<li>and ${only.length - NAMED} more</li>` : nothing}</ul>` : nothing}`;
}

// ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function tasksView(tasks) {
  return html`<ul class="rows" data-testid="tasks">${taskRows(tasks, Date.now()).map(taskView)}</ul>`;
}

const taskView = ({ name, words, tone, told, why, paused }) => html`
  <li class="row ${tone}" data-task=${name}><span class="dot" aria-hidden="true"></span>
    <div><p class="row-name">${words}</p><p>${told}</p>${why ? html`<p class="row-why">${why}</p>` : nothing}</div>
    ${paused ? html`<button type="button" class="button small" ?disabled=${page.panel.running !== ""} aria-label="Try now: ${words}"
      @click=${() => runTask(name)}>${page.panel.running === name ? "Trying…" : "Try now"}</button>` : nothing}</li>`;

// ── beads ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function beadsView({ all, ready }) {
  const { none, ...kinds } = beadsIn(all, ready);
  if (none) return html`<p class="part-note">Nothing. Say “add task …” in a chat, and it is kept here until it is done.</p>`;
  return html`<ul class="rows">${KINDS.map(([kind, title, tone]) => kindView(title, kinds[kind], kinds[kind].length ? tone : "plain"))}</ul>`;
}

const KINDS = [["ready", "Ready to begin", "plain"], ["doing", "In progress", "good"], ["stale", "Lies still", "warn"]];

const kindView = (title, beads, tone) => html`
  <li class="row ${tone}"><span class="dot" aria-hidden="true"></span>
    <div><p class="row-name">${title} <span class="row-count">${beads.length}</span></p>
      ${beads.slice(0, SHOWN).map((bead) => html`<p class="row-bead" dir="auto">${bead.title}</p>`)}
      ${beads.length > SHOWN ? html`<p>and ${beads.length - SHOWN} more</p>` : nothing}</div></li>`;

// ── the doctor ───────────────────────────────────────────────────────────────────────────────────────────────────────

function doctorView(doctor) {
  const { tone, text } = doctorWords(doctor);
  return html`
    <div class="row ${tone}"><span class="dot" aria-hidden="true"></span><div><p class="row-name" data-testid="doctor-line">${text}</p></div></div>
    <ul class="rows" data-testid="findings">${findingRows(doctor).map(findingView)}</ul>
    <div class="mending" data-testid="mending" role="status">${mendingView(doctor)}</div>`;
}

const findingView = ({ id, tone, what, wanted, remedy, note }) => html`
  <li class="row ${tone}" data-finding=${id}><span class="dot" aria-hidden="true"></span>
    <div><p class="row-name">${what}</p>${wanted ? html`<p>Should be: ${wanted}</p>` : nothing}
      ${remedy ? html`<p class="row-do">${sentence(remedy)}</p>` : nothing}${note ? html`<p>${sentence(note)}</p>` : nothing}</div></li>`;

const mendingView = (doctor) => (STEPS[page.panel.mending?.step] ?? offerView)(page.panel.mending, doctor);

function offerView(_, doctor) {
  if (!plansIn(doctor).length) return nothing;
  return html`<button type="button" class="button" @click=${then(showPlan)}>Fix what is safe</button>`;
}

const STEPS = {
  plan: ({ plans }) => html`
    <p class="row-name">This is what finn will do</p>
    ${plans.map(planView)}
    <p>What is replaced is kept, and can be put back.</p>
    <div class="mending-do"><button type="button" class="button primary" @click=${then(mend)}>Do it</button>
      <button type="button" class="button" @click=${then(leavePlan)}>Leave it</button></div>`,
  busy: () => html`<p>Mending…</p>${movingLine()}`,
  done: ({ fix, sick }) => html`
    <p class="row-name">${fix ? "Mended" : "Nothing was changed"}</p>
    ${fix ? html`<ul class="part-list">${fix.applied.map((one) => html`<li>${one}</li>`)}</ul>` : nothing}
    ${sick.length ? html`<p>${count(sick.length, "thing is", "things are")} not well yet: ${sick.map((one) => one.title).join(", ")}.</p>` : nothing}
    ${fix ? html`<p>To put it all back: the button, or ${sentence(`\`${fix.undo}\``)} in a terminal.</p>` : nothing}
    <div class="mending-do"><button type="button" class="button" @click=${then(leavePlan)}>Good</button>
      ${fix ? html`<button type="button" class="button" @click=${then(undo)}>Undo</button>` : nothing}</div>`,
  undone: ({ restored }) => html`
    <p class="row-name">As it was before</p><ul class="part-list">${restored.map((one) => html`<li>${one}</li>`)}</ul>
    <div class="mending-do"><button type="button" class="button" @click=${then(leavePlan)}>Good</button></div>`,
  failed: ({ error }) => html`
    <p class="row-name">${error.code === "forbidden_scope" ? "This needs the owner's token" : "It did not work"}</p><p>${error.message}</p>
    ${error.hint ? html`<p>${sentence(error.hint)}</p>` : nothing}
    <div class="mending-do"><button type="button" class="button" @click=${then(leavePlan)}>Good</button></div>`,
};

// A click beside the panel closes it; closing gives the focus back to where it came from.
function outside(event) {
  if (event.target === event.currentTarget) event.currentTarget.close();
}

const planView = ({ what, steps }) => html`<div class="plan"><p>${what}</p><ul class="part-list">${steps.map((step) => html`<li>${step}</li>`)}</ul></div>`;

// The button that was pressed is gone after it: whoever uses keys goes on at the one that came in its place.
function then(run) {
  return async () => {
    await run();
    requestAnimationFrame(() => requestAnimationFrame(() => (document.querySelector(".mending .button") ?? document.querySelector(".panel-body"))?.focus()));
  };
}

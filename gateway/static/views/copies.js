// The sheet behind the status line: where everything is kept, how long ago, and what is on this machine only.

import * as api from "../api.js";
import { leftOut, tierRows } from "../copies.js";
import { change, page } from "../page.js";
import { statusLine } from "../status.js";
import { html, nothing } from "../vendor.js";
import { count, size } from "../words.js";

const NAMED = 12; // files that are listed; the rest is counted

/** Opens the sheet and asks what is kept where. */
export async function showCopies() {
  change({ dialog: "copies", storage: null, drawer: false });
  try {
    change({ storage: await api.storage() });
  } catch {
    change({ storage: null }); // while finn starts or waits nobody can say; the line above says that
  }
}

export function copiesView() {
  const { tone, text, detail } = statusLine(page);
  return html`
    <p class="copies-line ${tone}"><span class="dot" aria-hidden="true"></span><strong>${text}</strong></p>
    ${detail ? html`<p class="copies-detail">${detail}</p>` : nothing}
    ${page.storage ? storageView(page.storage) : nothing}`;
}

function storageView(storage) {
  return html`
    <ul class="tiers" data-testid="tiers">${tierRows(storage, Date.now()).map(tierView)}</ul>
    ${filesView(storage)}`;
}

const tierView = ({ name, tone, words, place, error }) => html`
  <li class="tier ${tone}"><span class="dot" aria-hidden="true"></span>
    <div><h3>${name}</h3><p>${words}</p>${place ? html`<p class="tier-place">${place}</p>` : nothing}
      ${error ? html`<p class="tier-error">${error}</p>` : nothing}</div></li>`;

function filesView({ inventory, left_out }) {
  const only = leftOut({ left_out });
  const bytes = inventory.reduce((sum, file) => sum + file.bytes, 0);
  return html`
    <p class="copies-files">${count(inventory.length, "file", "files")} of the workspace and the notes ${inventory.length === 1 ? "is" : "are"} kept,
      ${size(bytes)}.${only.length ? html` On this machine only:` : nothing}</p>
    ${only.length ? html`<ul class="left-out" data-testid="left-out">${only.slice(0, NAMED).map((each) => html`<li><code>${each.path}</code> ${each.why}</li>`)}
      ${only.length > NAMED ? html`<li>and ${only.length - NAMED} more</li>` : nothing}</ul>` : nothing}`;
}

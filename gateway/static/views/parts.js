// Small pieces that several views share.

import { html, nothing } from "../vendor.js";

/** A sentence in which `backticks` mark what is to be typed. */
export const sentence = (text) => text.split("`").map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));

/** The mark: two strokes, a fin. */
export const mark = () => html`
  <svg class="mark" viewBox="0 0 32 32" aria-hidden="true"><path d="M5 24C13 23 17 15 18 6c5 6 8 12 9 18"/><path d="M4 28h24"/></svg>`;

/** The thin moving line that says something is going on. */
export const movingLine = () => html`<span class="moving" aria-hidden="true"></span>`;

export function iconButton({ icon, label, testid, run, expanded, className = "" }) {
  return html`<button type="button" class="icon-button ${className}" aria-label=${label} title=${label} data-testid=${testid ?? nothing}
    aria-expanded=${expanded ?? nothing} @click=${run}>${icon}</button>`;
}

export const keyCaps = (keys) => html`<span class="keys">${keys.map((key) => html`<kbd>${key}</kbd>`)}</span>`;

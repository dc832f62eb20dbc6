// The page's icons: 16 px, one line weight, the colour of the text around them. Decorative: their control carries the name.

import { svg } from "./vendor.js";

const icon = (shape) => svg`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">${shape}</svg>`;

export const ICONS = {
  plus: icon(svg`<path d="M8 3v10M3 8h10"/>`),
  menu: icon(svg`<path d="M2.5 4.5h11M2.5 8h11M2.5 11.5h7"/>`),
  close: icon(svg`<path d="m4 4 8 8M12 4l-8 8"/>`),
  more: icon(svg`<g class="filled"><circle cx="3.5" cy="8" r="1.1"/><circle cx="8" cy="8" r="1.1"/><circle cx="12.5" cy="8" r="1.1"/></g>`),
  pen: icon(svg`<path d="m10.7 2.9 2.4 2.4-7.6 7.6-3 .6.6-3z"/>`),
  bin: icon(svg`<path d="M2.8 4.5h10.4M6.2 4.3V2.8h3.6v1.5M4.2 4.7l.6 8.5h6.4l.6-8.5"/>`),
  down: icon(svg`<path d="M8 2.8v10M3.8 8.8 8 13l4.2-4.2"/>`),
  up: icon(svg`<path d="M8 13.2v-10M3.8 7.2 8 3l4.2 4.2"/>`),
  stop: icon(svg`<rect class="filled" x="4.2" y="4.2" width="7.6" height="7.6" rx="1.6"/>`),
  chevron: icon(svg`<path d="m6 3.8 4.2 4.2L6 12.2"/>`),
  file: icon(svg`<path d="M4 1.8h5.2L12.4 5v9.2H4zM9 2v3.2h3.2"/>`),
  search: icon(svg`<circle cx="7" cy="7" r="4.2"/><path d="m10.2 10.2 3.3 3.3"/>`),
  terminal: icon(svg`<path d="m3 4.5 3.5 3.5L3 11.5M8 12h5"/>`),
  bookmark: icon(svg`<path d="M4.2 2.2h7.6v11.6L8 10.9l-3.8 2.9z"/>`),
  spark: icon(svg`<path d="M8 2.2 9.5 6.5 13.8 8 9.5 9.5 8 13.8 6.5 9.5 2.2 8l4.3-1.5z"/>`),
  thought: icon(svg`<path d="M8 2.2a4.3 4.3 0 0 0-2.2 8v1.4h4.4v-1.4a4.3 4.3 0 0 0-2.2-8zM6.4 13.9h3.2"/>`),
  chat: icon(svg`<path d="M2.6 3.4h10.8v7.4H7.2l-2.8 2.4v-2.4H2.6z"/>`),
  sun: icon(svg`<circle cx="8" cy="8" r="2.8"/><path d="M8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9"/>`),
  moon: icon(svg`<path d="M13.2 9.6A5.6 5.6 0 0 1 6.4 2.8a5.6 5.6 0 1 0 6.8 6.8z"/>`),
  half: icon(svg`<circle cx="8" cy="8" r="5.6"/><path class="filled" d="M8 2.4a5.6 5.6 0 0 1 0 11.2z"/>`),
  copy: icon(svg`<rect x="5.4" y="5.4" width="8" height="8" rx="1.6"/><path d="M10.6 5.2V4.1a1.5 1.5 0 0 0-1.5-1.5h-5a1.5 1.5 0 0 0-1.5 1.5v5a1.5 1.5 0 0 0 1.5 1.5h1.1"/>`),
  again: icon(svg`<path d="M13 8a5 5 0 1 1-1.6-3.7M13.2 2.4v2.8h-2.8"/>`),
  alert: icon(svg`<circle cx="8" cy="8" r="6"/><path d="M8 4.8v3.8M8 11v.1"/>`),
  pause: icon(svg`<path d="M5.8 4v8M10.2 4v8"/>`),
  clock: icon(svg`<circle cx="8" cy="8" r="5.6"/><path d="M8 4.8V8l2.2 1.6"/>`),
};

// The one place that names the vendored libraries and their versions (scripts/vendor.sh fetches them).

export { guard, html, live, nothing, ref, render, repeat, svg } from "./vendor/lit-html-3.3.3.js";
export { Marked } from "./vendor/marked-18.2.1.js";
export { default as DOMPurify } from "./vendor/dompurify-3.4.18.js";
export { default as hljs } from "./vendor/highlight-11.12.0.js";

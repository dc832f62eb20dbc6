// Markdown to safe nodes. The text is an attacker's until proven otherwise:
//
//   text ─marked─▶ HTML string ─DOMPurify, allow-list─▶ fragment ─dressed─▶ nodes
//
// Raw HTML is shown as the text it is, images become links, links go to http, https and mailto only, and no class or style
// but the highlighter's survives. No HTML string is ever assigned to an element here; DOMPurify alone turns one into nodes.

import { DOMPurify, Marked, hljs } from "./vendor.js";

const TAGS = ["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol",
  "li", "table", "thead", "tbody", "tr", "th", "td", "a"];
const PROSE = { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ["href", "start", "align", "class"], ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true };
const CODE = { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false, RETURN_DOM_FRAGMENT: true };
const CLASS = /^(hljs-[\w-]+|language-[\w+#.-]+|function_|class_|inherited__|invoke__|constant_|language_|escape_)$/;
const SCHEMES = ["http:", "https:", "mailto:"];
const HIGHLIGHT_LIMIT = 60_000; // characters; beyond it colours cost more than they tell
const PLAIN = ["text", "txt", "plain", "plaintext"]; // languages that need no name above the code
const BLOCKS = "p, h1, h2, h3, h4, h5, h6, ul, ol, blockquote, table";

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text) => text.replace(/[&<>"']/g, (character) => escapes[character]);

const LINE_BREAK = /^\s*<br\s*\/?>\s*$/i;
const htmlAsCode = (text) => `<pre><code class="language-html">${escaped(text.trimEnd())}</code></pre>`;

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text, block }) => (LINE_BREAK.test(text) ? "<br>" : block ? htmlAsCode(text) : escaped(text)),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.hasAttribute("class")) keepClasses(node);
  if (node.tagName === "A") tameLink(node);
});

/** A node that shows markdown and can be given more of it: what has been settled is not rendered again. */
export function proseNode() {
  const root = document.createElement("div");
  root.className = "prose";
  let text = "";
  let settled = 0; // characters of text whose nodes are final
  let open = []; // nodes of the block still being written

  function restart() {
    root.replaceChildren();
    [text, settled, open] = ["", 0, []];
  }

  return {
    root,
    /** Shows `next`; `done` says that nothing follows. Text that does not continue what is shown starts anew. */
    show(given, done) {
      const next = given.replace(/\r\n?/g, "\n"); // as marked counts it
      if (next === text && !done) return;
      if (!next.startsWith(text) || done) restart();
      text = next;
      open.forEach((node) => node.remove());
      const tokens = marked.lexer(text.slice(settled));
      const last = done ? tokens.length : tokens.findLastIndex((token) => token.type !== "space");
      root.append(nodesOf(tokens.slice(0, Math.max(last, 0)), tokens.links));
      settled += tokens.slice(0, Math.max(last, 0)).reduce((sum, token) => sum + token.raw.length, 0);
      const tail = nodesOf(tokens.slice(Math.max(last, 0)), tokens.links);
      open = [...tail.childNodes];
      root.append(tail);
    },
  };
}

/** Coloured code as nodes; without a known language, plain text. */
export function codeNodes(code, language) {
  if (!hljs.getLanguage(language ?? "") || code.length > HIGHLIGHT_LIMIT) return document.createTextNode(code);
  return DOMPurify.sanitize(hljs.highlight(code, { language, ignoreIllegals: true }).value, CODE);
}

/** Puts text on the clipboard, also where the page is served without TLS. Gives true when it is there. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function nodesOf(tokens, links) {
  const fragment = DOMPurify.sanitize(marked.parser(Object.assign([...tokens], { links })), PROSE);
  fragment.querySelectorAll("pre").forEach(dressCode);
  fragment.querySelectorAll("table").forEach(dressTable);
  fragment.querySelectorAll(BLOCKS).forEach((node) => node.setAttribute("dir", "auto"));
  return fragment;
}

function keepClasses(node) {
  const kept = [...node.classList].filter((name) => CLASS.test(name));
  if (kept.length) node.className = kept.join(" ");
  else node.removeAttribute("class");
}

function tameLink(link) {
  const href = link.getAttribute("href") ?? "";
  if (!URL.canParse(href) || !SCHEMES.includes(new URL(href).protocol)) {
    link.removeAttribute("href");
    return;
  }
  link.setAttribute("target", "_blank");
  link.setAttribute("rel", "noopener noreferrer nofollow");
}

function dressCode(pre) {
  const code = pre.querySelector("code") ?? pre;
  const language = [...code.classList].find((name) => name.startsWith("language-"))?.slice("language-".length);
  pre.replaceWith(codeBlock(code.textContent.replace(/\n$/, ""), PLAIN.includes(language) ? undefined : language));
}

/** A block of code with its language and a way to copy it. */
export function codeBlock(text, language) {
  const figure = element("figure", language ? "code" : "code bare");
  const bar = element("figcaption", "code-bar");
  bar.append(element("span", "code-language", language ?? ""), copyButton(text));
  const pre = element("pre", "code-text");
  pre.tabIndex = 0;
  pre.dir = "ltr";
  const code = element("code", "");
  code.append(codeNodes(text, language));
  pre.append(code);
  figure.append(bar, pre);
  return figure;
}

function copyButton(text) {
  const button = element("button", "code-copy", "Copy");
  button.type = "button";
  button.onclick = async () => {
    button.textContent = (await copy(text)) ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1_600);
  };
  return button;
}

function dressTable(table) {
  const frame = element("div", "table-frame");
  frame.tabIndex = 0;
  table.replaceWith(frame);
  frame.append(table);
}

function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function copyBySelection(text) {
  const area = element("textarea", "visually-hidden");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

// A new chat, and with it the first visit: who this is, three things to try, where what is said is kept.

import { say } from "../conversation.js";
import { page, toast } from "../page.js";
import { copiesIn } from "../copies.js";
import { hasModel } from "../status.js";
import { html, nothing } from "../vendor.js";
import { ICONS } from "../icons.js";
import { mark } from "./parts.js";

const THINGS = [
  ["How are you?", "what it is and how it runs", "spark"],
  ["List files", "what is in its workspace", "file"],
  ["Remember that my favourite tea is oolong", "it still knows after a restart", "bookmark"],
];

export function welcomeView() {
  const firstVisit = page.sessions.length === 0;
  return html`
    <section class="welcome">
      ${mark()}
      <h1>${firstVisit ? "Hello, I am finn." : "What shall we do?"}</h1>
      ${firstVisit ? html`<p class="lead">I am an agent of your own. I read, write and run things in my workspace, and I do not forget:
        close this page, stop my process, pull the plug, and we carry on where we were.</p>` : nothing}
      <h2>Try</h2>
      <ul class="things">${THINGS.map(thing)}</ul>
      ${page.health && !hasModel(page.health) ? noModel() : nothing}
      <p class="kept">What you say is written to a log on the machine I run on before I answer, in <code>~/.finn</code> unless it was
        started with another folder. ${copiesOf(page.health)} ${whoElse(page.health)}</p>
    </section>`;
}

function thing([words, why, icon]) {
  return html`<li><button type="button" class="thing" @click=${() => say(words).catch((error) => toast(error.message))}>
    ${ICONS[icon]}<span class="thing-words">${words}</span><span class="thing-why">${why}</span></button></li>`;
}

function copiesOf(health) {
  const { store, git } = copiesIn(health?.checks ?? {});
  if (store && git) return "A second later a copy is in the store you gave me, and within the hour in git: lose this machine, and I go on from there.";
  if (store) return "A second later a copy is in the store you gave me: lose this machine, and I go on from there.";
  return git ? "Within the hour a copy is in the git repository you gave me." : "";
}

function whoElse(health) {
  if (!health) return "";
  if (hasModel(health)) return "The model that answers sees the chat.";
  return copiesIn(health.checks ?? {}).any ? "" : "It goes nowhere else.";
}

function noModel() {
  return html`<p class="aside">No language model is set up, so built-in replies answer: plain sentences like <q>read notes.md</q>,
    <q>find todo</q> or <q>run ls -la</q>. To give me a model, set <code>ANTHROPIC_API_KEY</code> or <code>OPENAI_API_KEY</code> and
    start finn again.</p>`;
}

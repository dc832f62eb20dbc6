// What can be done by name: in the palette, after a slash in the composer, and by keys. One table for all three.

import * as api from "./api.js";
import { leave, stop } from "./conversation.js";
import { forget } from "./keep.js";
import { change, page } from "./page.js";
import { openPanel } from "./panel.js";
import { remove } from "./sessions.js";
import { setTheme } from "./theme.js";
import { runningTurn } from "./transcript.js";

const mac = /Mac|iPhone|iPad/.test(navigator.platform);
export const MOD = mac ? "⌘" : "Ctrl";
export const ALT = mac ? "⌥" : "Alt";
const SHIFT = mac ? "⇧" : "Shift";

const always = () => true;
const inSession = () => page.current !== null && !page.gone;

export const COMMANDS = [
  { name: "new", words: "New chat", keys: [MOD, SHIFT, "O"], when: always, run: newChat },
  { name: "stop", words: "Stop the answer", keys: ["Esc"], when: () => runningTurn(page.transcript) !== null, run: stop },
  { name: "rename", words: "Rename this chat", keys: [], when: inSession, run: () => change({ renaming: { id: page.current, where: "head" } }) },
  { name: "export", words: "Export this chat as Markdown", keys: [], when: inSession, run: () => download(api.exportPath(page.current)) },
  { name: "delete", words: "Delete this chat", keys: [], when: inSession, run: () => remove(page.current) },
  { name: "status", words: "How finn is: copies, tasks, what is wrong", keys: [MOD, "."], when: always, run: openPanel },
  { name: "light", words: "Light theme", keys: [], when: always, run: () => chooseTheme("light") },
  { name: "dark", words: "Dark theme", keys: [], when: always, run: () => chooseTheme("dark") },
  { name: "system", words: "Theme of the system", keys: [], when: always, run: () => chooseTheme("system") },
  { name: "keys", words: "Keyboard shortcuts", keys: [MOD, "/"], when: always, run: () => change({ dialog: "keys" }) },
  { name: "logout", words: "Log out", keys: [], when: always, run: logOut },
];

// What the sheet of shortcuts lists beside the commands that have keys.
export const MORE_KEYS = [
  { words: "Send, or queue while an answer runs", keys: ["Enter"] },
  { words: "Steer the running answer", keys: [ALT, "Enter"] },
  { words: "New line", keys: [SHIFT, "Enter"] },
  { words: "Edit the last prompt (in an empty field)", keys: ["↑"] },
  { words: "Commands, chats", keys: [MOD, "K"] },
  { words: "Commands in place", keys: ["/"] },
];

export function newChat() {
  change({ drawer: false });
  location.hash = "#/";
  document.getElementById("composer")?.focus();
}

export function chooseTheme(name) {
  setTheme(name);
  change({});
}

async function logOut() {
  await api.logout();
  leave();
  forget();
  change({ phase: "login", sessions: [], current: null, drawer: false });
}

function download(path) {
  const link = document.createElement("a");
  link.href = path;
  link.download = "";
  link.click();
}

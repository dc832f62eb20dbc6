// The keys that work anywhere on the page; those of the composer are its own.

import { newChat } from "./commands.js";
import { stop } from "./conversation.js";
import { change, page } from "./page.js";
import { openPanel } from "./panel.js";
import { runningTurn } from "./transcript.js";

/** Does what the key stands for, if it stands for anything. */
export function pressed(event) {
  if (page.phase !== "ready" || event.isComposing || event.defaultPrevented) return;
  const key = `${event.ctrlKey || event.metaKey ? "mod+" : ""}${event.shiftKey ? "shift+" : ""}${event.key.toLowerCase()}`;
  if (!KEYS[key]?.()) return;
  event.preventDefault();
}

// Each gives true when the key was used.
const KEYS = {
  "mod+k": () => openDialog("palette"),
  "mod+/": () => openDialog("keys"),
  "mod+shift+/": () => openDialog("keys"), // layouts where the slash needs shift
  "mod+shift+7": () => openDialog("keys"),
  "mod+.": () => { if (page.dialog === "panel") document.querySelector("dialog.panel")?.close(); else openPanel(); return true; },
  "mod+shift+o": () => { newChat(); return true; },
  escape,
};

function openDialog(dialog) {
  change({ dialog: page.dialog === dialog ? null : dialog, drawer: false });
  return true;
}

// Escape closes what lies on top; with nothing there it stops the answer.
function escape() {
  if (page.dialog) return false; // the dialog closes itself
  if (page.drawer) change({ drawer: false });
  else if (runningTurn(page.transcript) !== null) stop();
  else return false;
  return true;
}

// The page's beginning: draws page.js through views/shell.js whenever it changes, and listens to the window.

import { whenUnauthorized } from "./api.js";
import { leave, outboxChanged, wake } from "./conversation.js";
import { pressed } from "./keys.js";
import { change, onChange, page } from "./page.js";
import { look } from "./panel.js";
import { pulse } from "./pulse.js";
import { titleFor } from "./sessions.js";
import { route, start } from "./start.js";
import { render } from "./vendor.js";
import { settleScroll, shellView } from "./views/shell.js";

const root = document.getElementById("app");

onChange(() => {
  render(shellView(), root);
  settleScroll();
  document.title = page.phase === "ready" && titleFor(page.current) ? `${titleFor(page.current)} · finn` : "finn";
});

function lookedAt() {
  if (document.visibilityState !== "visible") return;
  wake();
  pulse();
  look();
}

// Phones lay the keyboard over the page; the composer stays above it. Zooming in changes the same number and is left alone.
function fitToKeyboard() {
  if (visualViewport.scale > 1.01) return;
  document.documentElement.style.setProperty("--visible-height", `${visualViewport.height}px`);
  settleScroll();
}

whenUnauthorized(() => {
  leave();
  change({ phase: "login", trouble: null });
});

addEventListener("hashchange", () => page.phase === "ready" && route());
addEventListener("popstate", () => page.phase === "ready" && route());
addEventListener("keydown", pressed);
addEventListener("online", lookedAt);
addEventListener("storage", outboxChanged);
document.addEventListener("visibilitychange", lookedAt);
visualViewport?.addEventListener("resize", fitToKeyboard);

start();

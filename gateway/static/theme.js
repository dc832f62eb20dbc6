// Light, dark, or as the system has it. The choice is kept in this browser; early.js applies it before the first paint.

export const THEMES = ["system", "light", "dark"];

export function theme() {
  return document.documentElement.dataset.theme ?? "system";
}

export function setTheme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("finn.theme", name);
  } catch {
    // Storage is refused: the choice holds until the page closes.
  }
}

export function nextTheme() {
  return THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
}

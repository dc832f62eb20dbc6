// Runs before the first paint, so that a chosen theme never flashes. The rest of the theme is theme.js.
try {
  const theme = localStorage.getItem("finn.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is refused: the system's theme it is.
}

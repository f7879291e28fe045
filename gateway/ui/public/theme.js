// Sets the theme before the first paint; lib/theme.ts changes it later.
try {
  var theme = localStorage.getItem("pipeline.theme");
  var dark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.classList.toggle("dark", dark);
} catch (_) {
  // Storage is switched off: the light theme stands.
}

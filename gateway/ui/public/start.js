// Before the first paint: sets the theme, which lib/theme.ts changes later.
try {
  var theme = localStorage.getItem("pipeline.theme");
  var dark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.classList.toggle("dark", dark);
} catch (_) {
  // Storage is off: the light theme.
}

// Before the first script: preloads the script files of the page at this address, and sends the page's first request, whose
// response api/client.ts uses. Without an entry here a page only loads later.
(function () {
  var page = { "/datasets": "datasets", "/keys": "keys", "/login": "login", "/training/configure": "configure", "/training/jobs": "jobs", "/training/jobs/compare": "compare", "/webhooks": "webhooks" };
  var name = page[location.pathname] || (location.pathname.startsWith("/training/jobs/") ? "job" : "");
  var files = JSON.parse(document.getElementById("page-files").textContent)[name] || [];
  files.forEach(function (file) {
    var link = document.createElement("link");
    link.rel = "modulepreload";
    link.href = "/" + file;
    document.head.append(link);
  });
  if (name === "configure") {
    window.earlyRequest = { path: "/api/catalogue", response: fetch("/api/catalogue", { signal: AbortSignal.timeout(20000) }) };
    window.earlyRequest.response.catch(function () {});
  }
})();

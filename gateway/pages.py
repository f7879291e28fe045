"""The routes that are not RPCs: health, the API's documentation, the session cookie and the page."""

from __future__ import annotations

import mimetypes
import stat
from collections.abc import Awaitable, Callable, Mapping

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from swagger_ui_bundle import swagger_ui_path

from gateway.api.headers import accepts_encoding, header_values
from gateway.auth import (
    SESSION_SECONDS,
    DevelopmentIssuer,
    authorization,
    own_origin,
    refuse_cross_site,
    refuse_rebound_host,
)
from gateway.endpoint import Endpoint
from gateway.errors import RouteNotFound, UriTooLong
from gateway.settings import GatewaySettings
from rpc.errors import Unauthenticated
from rpc.identity.tokens import Verifier

DOCS = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Pipeline API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<script src="/api/docs/theme.js"></script>
<link rel="stylesheet" href="/api/docs/assets/swagger-ui.css">
<style>
body { margin: 0; }
.back { display: inline-block; padding: 1rem 1.25rem 0; font: 0.875rem system-ui, sans-serif; color: #0b6e4f; }
.dark-mode .back { color: #5ed3a2; }
/* Lines of text with code in them do not overlap where they wrap. */
.swagger-ui .info .renderedMarkdown p { line-height: 2; }
</style></head>
<body><a class="back" href="/">Back to Pipeline</a><main id="swagger-ui"></main>
<script src="/api/docs/assets/swagger-ui-bundle.js"></script><script src="/api/docs/start.js"></script></body></html>
"""
# Separate files: the content security policy allows no inline scripts.
DOCS_SCRIPTS = {
    # Gives Swagger's select elements the accessible names that they lack.
    "start": """const root = document.getElementById("swagger-ui");
new MutationObserver(() => root.querySelectorAll("select:not([aria-label])").forEach((select) => {
  select.setAttribute("aria-label", select.id === "servers" ? "Server" : "Value");
})).observe(root, { childList: true, subtree: true });
SwaggerUIBundle({url: "/api/openapi.json", dom_id: "#swagger-ui", deepLinking: true});
""",
    # Uses the theme that the page has stored, else the system's: before the first paint, and when it changes.
    "theme": """const system = matchMedia("(prefers-color-scheme: dark)");
function setTheme() {
  let theme = null;
  try { theme = localStorage.getItem("pipeline.theme"); } catch { /* Storage is off: the system's theme. */ }
  const isDark = theme === "dark" || (theme !== "light" && system.matches);
  document.documentElement.classList.toggle("dark-mode", isDark);
  document.documentElement.style.colorScheme = isDark ? "dark" : "light";
}
setTheme();
system.addEventListener("change", setTheme);
addEventListener("storage", setTheme);
""",
}
IMMUTABLE = "public, max-age=31536000, immutable"
MAX_PATH_BYTES = 4 * 1024
# Suffixes of the compressed copies of the page's files by encoding, the preferred one first.
COMPRESSED = {"br": ".br", "gzip": ".gz"}

Ready = Callable[[], Awaitable[Mapping[str, bool]]]


def page_routes(settings: GatewaySettings, verifier: Verifier, openapi: bytes, ready: Ready) -> list[BaseRoute]:
    """Returns the routes of health, documentation and sessions."""

    async def healthz(request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(request: Request) -> Response:
        checks = await ready()
        status = 200 if all(checks.values()) else 503
        return _json({"status": "ready" if status == 200 else "not ready", "checks": dict(checks)}, status)

    async def api_document(request: Request) -> Response:
        return Response(openapi, media_type="application/json")

    async def docs(request: Request) -> Response:
        return HTMLResponse(DOCS)

    async def docs_script(request: Request) -> Response:
        script = DOCS_SCRIPTS.get(request.path_params["name"])
        if script is None:
            raise RouteNotFound
        return Response(script, media_type="text/javascript")

    session = Session(settings, verifier)
    return [
        Route("/healthz", Endpoint(GET=healthz)),
        Route("/readyz", Endpoint(GET=readyz)),
        Route("/api/openapi.json", Endpoint(GET=api_document)),
        Route("/api/docs", Endpoint(GET=docs)),
        Route("/api/docs/{name}.js", Endpoint(GET=docs_script)),
        Route("/api/session", Endpoint(GET=session.read, POST=session.sign_in, DELETE=session.sign_out)),
        Mount("/api/docs/assets", StaticFiles(directory=swagger_ui_path)),
    ]


class Session:
    """The session cookie, at `/api/session`. Only the development issuer can set it."""

    def __init__(self, settings: GatewaySettings, verifier: Verifier) -> None:
        self._settings = settings
        self._verifier = verifier
        self._issuer = DevelopmentIssuer(settings) if settings.dev_issuer else None

    async def read(self, request: Request) -> Response:
        """Returns who is signed in, and whether the development issuer is on."""
        user_id = None
        try:
            identity, _ = await self._verifier.identify(authorization(request, self._settings))
            user_id = identity.user_id
        except Unauthenticated:
            pass
        return _data({"user_id": user_id, "dev_issuer": self._issuer is not None})

    async def sign_in(self, request: Request) -> Response:
        """Sets the cookie of the demo user. Raises RouteNotFound without the development issuer, and UntrustedHost."""
        if self._issuer is None:
            raise RouteNotFound
        refuse_cross_site(request, self._settings)
        refuse_rebound_host(request, self._settings)
        token = self._issuer.token()
        identity, _ = await self._verifier.identify(f"Bearer {token}")
        response = _data({"user_id": identity.user_id})
        response.set_cookie(
            self._settings.session_cookie,
            token,
            max_age=SESSION_SECONDS,
            secure=own_origin(request, self._settings).startswith("https:"),
            httponly=True,
            samesite="strict",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """Removes the cookie."""
        refuse_cross_site(request, self._settings)
        response = _data({"user_id": None})
        response.delete_cookie(self._settings.session_cookie)
        return response


class Page:
    """The files of the built page, with its index.html for every other path that a browser navigates to."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._index = settings.ui_dir / "index.html"
        self._files = StaticFiles(directory=settings.ui_dir, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Responds to one request. Raises RouteNotFound and UriTooLong."""
        request = Request(scope, receive)
        if len(scope["path"]) > MAX_PATH_BYTES:
            raise UriTooLong("path", MAX_PATH_BYTES)
        if request.method not in ("GET", "HEAD") or scope["path"].startswith("/api/"):
            raise RouteNotFound
        path = scope["path"].lstrip("/")
        try:
            full_path, file_stat = self._files.lookup_path(path)
        except (OSError, ValueError):
            # The path cannot be the name of a file.
            raise RouteNotFound from None
        if file_stat is not None and stat.S_ISREG(file_stat.st_mode):
            response: Response = self._file(request, path, full_path)
        elif self._is_navigation(request, path):
            response = FileResponse(self._index, headers={"cache-control": "no-cache"})
        else:
            raise RouteNotFound
        await response(scope, receive, send)

    def _file(self, request: Request, path: str, full_path: str) -> FileResponse:
        headers = {"cache-control": IMMUTABLE if path.startswith("assets/") else "no-cache", "vary": "accept-encoding"}
        media_type, _ = mimetypes.guess_type(full_path)
        for encoding, suffix in COMPRESSED.items():
            if accepts_encoding(request.scope, encoding) and self._files.lookup_path(path + suffix)[1] is not None:
                headers["content-encoding"] = encoding
                return FileResponse(full_path + suffix, headers=headers, media_type=media_type)
        return FileResponse(full_path, headers=headers, media_type=media_type)

    def _is_navigation(self, request: Request, path: str) -> bool:
        html = any("text/html" in value for value in header_values(request.scope, b"accept"))
        return html and "." not in path.rpartition("/")[2] and self._index.is_file()


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json", headers={"cache-control": "no-store"})


def _data(value: object) -> Response:
    return _json({"success": True, "data": value})

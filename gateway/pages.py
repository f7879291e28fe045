"""What the gateway serves beside the RPCs: health, the API's documentation, the development sign-in and the page."""

from __future__ import annotations

import mimetypes
import stat
from collections.abc import Awaitable, Callable, Mapping

import orjson
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from swagger_ui_bundle import swagger_ui_path

from gateway.auth import SESSION_SECONDS, DevelopmentIssuer, authorization, refuse_cross_site
from gateway.errors import MethodNotAllowed, RouteNotFound
from gateway.exchange import Exchange
from gateway.settings import GatewaySettings
from rpc.errors import Unauthenticated
from rpc.identity.tokens import Verifier

DOCS = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Pipeline API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/api/docs/assets/swagger-ui.css"></head>
<body><div id="swagger-ui"></div><script src="/api/docs/assets/swagger-ui-bundle.js"></script>
<script src="/api/docs/start.js"></script></body></html>
"""
# The content security policy allows no script inside the page.
DOCS_SCRIPT = 'SwaggerUIBundle({url: "/api/openapi.json", dom_id: "#swagger-ui", deepLinking: true});\n'
FOREVER = "public, max-age=31536000, immutable"
# Files of the page may lie there compressed as well, under these suffixes; the first that the browser takes is sent.
ENCODINGS = {"br": ".br", "gzip": ".gz"}

Ready = Callable[[], Awaitable[Mapping[str, bool]]]


class Pages:
    """An ASGI application whose errors are `ServiceError`s. `paths`: those under `/api/` that are its own."""

    def __init__(self, app: ASGIApp, paths: frozenset[bytes]) -> None:
        self._app = app
        self._paths = paths

    def has(self, raw_path: bytes) -> bool:
        """Whether a path is answered here and not by an RPC."""
        return not raw_path.startswith(b"/api/") or raw_path in self._paths or raw_path.startswith(b"/api/docs/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises ServiceError."""
        try:
            await self._app(scope, receive, send)
        except HTTPException as error:
            raise MethodNotAllowed({"GET", "HEAD", "OPTIONS"}) if error.status_code == 405 else RouteNotFound from error


def pages(settings: GatewaySettings, verifier: Verifier, openapi: bytes, ready: Ready) -> Pages:
    """Everything that is not an RPC."""

    async def healthz(request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(request: Request) -> Response:
        up = await ready()
        status = 200 if all(up.values()) else 503
        return _json({"status": "ready" if status == 200 else "not ready", "checks": dict(up)}, status)

    async def api_document(request: Request) -> Response:
        return Response(openapi, media_type="application/json")

    async def docs(request: Request) -> Response:
        return HTMLResponse(DOCS)

    async def docs_script(request: Request) -> Response:
        return Response(DOCS_SCRIPT, media_type="text/javascript")

    session = Session(settings, verifier)
    routes = [
        _get("/healthz", healthz),
        _get("/readyz", readyz),
        _get("/api/openapi.json", api_document),
        _get("/api/docs", docs),
        _get("/api/docs/start.js", docs_script),
        Mount("/api/docs/assets", StaticFiles(directory=swagger_ui_path)),
        Route("/api/session", session),
        Mount("/", Page(settings)),
    ]
    paths = frozenset({b"/api/openapi.json", b"/api/docs", b"/api/session"})
    return Pages(GZipMiddleware(Router(routes, redirect_slashes=False), minimum_size=1024), paths)


class Session:
    """Signs in and out: `/api/session`. Only the development issuer signs anybody in here."""

    def __init__(self, settings: GatewaySettings, verifier: Verifier) -> None:
        self._settings = settings
        self._verifier = verifier
        self._issuer = DevelopmentIssuer(settings) if settings.dev_issuer else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises ServiceError."""
        exchange: Exchange = scope["exchange"]
        match exchange.method:
            case "GET" | "HEAD":
                response = _data({"user_id": await self._user(exchange), "dev_issuer": self._issuer is not None})
            case "POST":
                response = await self._sign_in(exchange)
            case "DELETE":
                refuse_cross_site(exchange)
                response = _data({"user_id": None})
                response.delete_cookie(self._settings.session_cookie)
            case _:
                raise MethodNotAllowed({"DELETE", "GET", "HEAD", "OPTIONS", "POST"})
        await response(scope, receive, send)

    async def _user(self, exchange: Exchange) -> str | None:
        held = authorization(exchange, cookie=self._settings.session_cookie)
        try:
            identity, _ = await self._verifier.identify(held)
        except Unauthenticated:
            return None
        return identity.user_id

    async def _sign_in(self, exchange: Exchange) -> Response:
        if self._issuer is None:
            raise RouteNotFound
        refuse_cross_site(exchange)
        token = self._issuer.token()
        identity, _ = await self._verifier.identify(f"Bearer {token}")
        response = _data({"user_id": identity.user_id})
        response.set_cookie(
            self._settings.session_cookie,
            token,
            max_age=SESSION_SECONDS,
            secure=exchange.own_origin.startswith("https:"),
            httponly=True,
            samesite="strict",
        )
        return response


class Page:
    """The built page: its files, and its index for every path that a person may open."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._index = settings.ui_dir / "index.html"
        self._files = StaticFiles(directory=settings.ui_dir, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises ServiceError."""
        if scope["method"] not in ("GET", "HEAD"):
            raise RouteNotFound
        path = scope["path"].lstrip("/")
        try:
            full, found = self._files.lookup_path(path)
        except (OSError, ValueError):
            # A name that no file can have.
            raise RouteNotFound from None
        if found is not None and stat.S_ISREG(found.st_mode):
            response: Response = self._file(scope, path, full)
        elif self._is_navigation(scope, path):
            response = FileResponse(self._index, headers={"cache-control": "no-cache"})
        else:
            raise RouteNotFound
        await response(scope, receive, send)

    def _file(self, scope: Scope, path: str, full: str) -> FileResponse:
        headers = {"cache-control": FOREVER if path.startswith("assets/") else "no-cache", "vary": "accept-encoding"}
        media_type, _ = mimetypes.guess_type(full)
        taken = scope["exchange"].headers.encodings()
        for name, suffix in ENCODINGS.items():
            if name in taken and self._files.lookup_path(path + suffix)[1] is not None:
                return FileResponse(full + suffix, headers=headers | {"content-encoding": name}, media_type=media_type)
        return FileResponse(full, headers=headers, media_type=media_type)

    def _is_navigation(self, scope: Scope, path: str) -> bool:
        wants_page = any("text/html" in value for value in scope["exchange"].headers.all(b"accept"))
        return wants_page and "." not in path.rpartition("/")[2] and self._index.is_file()


def _get(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed({"GET", "HEAD", "OPTIONS"})
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)

    return Route(path, _Endpoint(guarded))


class _Endpoint:
    """An ASGI application as Starlette knows one from a function: it is an object."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json", headers={"cache-control": "no-store"})


def _data(value: object) -> Response:
    return _json({"success": True, "data": value})

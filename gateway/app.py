"""The gateway as one ASGI application: the RPCs as JSON, health, documentation, sessions and the page."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import grpc.aio
import orjson
import structlog
from google.protobuf.descriptor_pool import Default
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.headers import accepts_encoding, header_values
from gateway.api.openapi import document
from gateway.api.routes import Api, bindings
from gateway.errors import error_response
from gateway.pages import Page, Ready, page_routes
from gateway.settings import GatewaySettings
from rpc.errors import ServiceError
from rpc.identity.tokens import Verifier
from rpc.metadata import accept_request_id
from rpc.methods import methods
from rpc.telemetry.exporters import Telemetry
from rpc.telemetry.metrics import CALL_BUCKETS
from rpc.telemetry.traces import trace_http

CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
CORS_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-Request-ID",
    "grpc-timeout",
    # Set by tracing libraries in browsers.
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
)
CORS_EXPOSED_HEADERS = ("x-request-id", "retry-after")
GZIP_MINIMUM_BYTES = 1024
GZIP_LEVEL = 5
# Headers with which a client could try to impersonate a user or a service. They are not read; the log line has their number.
UNTRUSTED_HEADERS = re.compile(rb"x-user-id|x-role|x-internal-.*|grpc-status|grpc-metadata-.*|x-.*-bin")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
QUIET_PATHS = frozenset({"/healthz", "/readyz"})
# Label value in metrics of unknown methods and routes.
OTHER = "_OTHER"

log = structlog.get_logger()


class Gateway(Router):
    """The application: the routes of the RPCs, and `pages.py`."""

    def __init__(
        self,
        settings: GatewaySettings,
        channels: Mapping[str, Any],
        verifier: Verifier,
        ready: Ready,
        telemetry: Telemetry | None = None,
    ) -> None:
        """`channels` are by full service name, from grpc.aio or `rpc.in_process`; `ready` returns which servers are serving."""
        services = {name: Default().FindServiceByName(name) for name in channels}
        bound = [each for name, service in services.items() for each in bindings(methods(service), channels[name])]
        self._api = Api(settings, bound, verifier)
        openapi = orjson.dumps(document(bound, cookie=settings.session_cookie))
        middleware = [
            Middleware(RequestContext, telemetry or Telemetry()),
            Middleware(Gzip, GZIP_MINIMUM_BYTES, GZIP_LEVEL),
            Middleware(ErrorResponses),
        ]
        if settings.cors_origins:
            cors = Middleware(
                Cors,
                allow_origins=settings.cors_origins,
                allow_methods=CORS_METHODS,
                allow_headers={*CORS_HEADERS, *settings.cors_headers},
                expose_headers=CORS_EXPOSED_HEADERS,
            )
            middleware.insert(1, cors)
        super().__init__(
            routes=[*self._api.routes, *page_routes(settings, verifier, openapi, ready)],
            redirect_slashes=False,
            # Every other path.
            default=Page(settings),
            middleware=middleware,
        )

    def close(self) -> None:
        """Ends the event streams: a server that stops waits for open responses."""
        self._api.close()


class RequestContext:
    """The outermost middleware: request id, log line, metrics, trace, and the response to unexpected exceptions."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._tracer = telemetry.tracer
        self._requests = telemetry.metrics.histograms(
            "http_server_request_duration_seconds",
            "Duration of requests and event streams.",
            ["http_request_method", "http_route", "http_response_status_code"],
            buckets=CALL_BUCKETS,
        )
        # Bound once: an unbound structlog logger resolves its configuration on every call.
        self._log = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter_ns()
        state: dict[str, Any] = scope["state"]
        raw_path: bytes = scope["raw_path"]
        # Routes match the path as it was sent: nothing in it is decoded before a route is found.
        scope["path"] = raw_path.decode("ascii")
        # A dictionary, since Starlette's `Headers` searches a list, and a request looks up some ten headers.
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value.decode("latin-1"))
        state["headers"] = headers
        request_id = state["request_id"] = accept_request_id(next(iter(header_values(scope, b"x-request-id")), None))
        state["path"] = scope["path"][:200]
        span = trace_http(self._tracer, scope["method"], next(iter(header_values(scope, b"traceparent")), None))
        state["traceparent"], state["trace_id"] = span.traceparent, span.trace_id
        status = None

        async def send_with_request_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self._app(scope, receive, send_with_request_id)
        except (asyncio.CancelledError, ClientDisconnect):
            # The server cancels requests whose client has gone, and those that outlast a shutdown.
            status, state["reason"] = status or 499, "CANCELLED"
        except Exception as error:
            if status is not None:
                # The response has begun: only a closed connection can tell the client that the rest will not come.
                raise
            response = await error_response(Request(scope), error)
            await response(scope, receive, send_with_request_id)
        finally:
            self._write_log(scope, status, started)
            code = str(status or 500)
            method, route = _labels(scope)
            if route != OTHER:
                span.set_route(method, route)
            self._requests(method, route, code).observe(
                (time.perf_counter_ns() - started) / 1e9, {"trace_id": span.recorded_id} if span.recorded_id else None
            )
            span.end("http.response.status_code", code, is_error=code.startswith("5"))

    def _write_log(self, scope: Scope, status: int | None, started: int) -> None:
        state = scope["state"]
        untrusted = sum(len(values) for name, values in state["headers"].items() if _is_untrusted(name))
        write = self._log.debug if state["path"] in QUIET_PATHS else self._log.info
        write(
            "http",
            method=scope["method"],
            # Without the query, in which clients may have put secrets.
            path=state["path"],
            status=status,
            reason=state.get("reason"),
            duration_ms=(time.perf_counter_ns() - started) // 10_000 / 100,
            user=state.get("user"),
            request_id=state["request_id"],
            trace_id=state["trace_id"],
            **({"dropped_headers": untrusted} if untrusted else {}),
        )


class ErrorResponses:
    """The innermost middleware: responds to expected errors, so that CORS adds its headers to them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except (ServiceError, grpc.aio.AioRpcError, TimeoutError, HTTPException) as error:
            response = await error_response(Request(scope), error)
            await response(scope, receive, send)


class Cors(CORSMiddleware):
    """Starlette's CORS with 204 for every preflight request; one that is not allowed gets no permissions."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        allowed = response.status_code == 200
        headers = {
            name: value
            for name, value in response.headers.items()
            if name == "vary" or (allowed and name.startswith("access-control-"))
        }
        return Response(status_code=204, headers=headers)


class Gzip(GZipMiddleware):
    """Starlette's compression, skipped for clients that do not accept it, among them those that send `gzip;q=0`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if accepts_encoding(scope, "gzip"):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _labels(scope: Scope) -> tuple[str, str]:
    """Returns a request's method and route for metrics, which must not have a series for whatever clients send."""
    route = scope.get("route")
    return scope["method"] if scope["method"] in METHODS else OTHER, getattr(route, "path", "") or OTHER


@lru_cache(maxsize=1024)
def _is_untrusted(header: bytes) -> bool:
    return UNTRUSTED_HEADERS.fullmatch(header) is not None

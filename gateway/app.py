"""The gateway as one ASGI application: the shell around every request, and what it serves beside the RPCs."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
import structlog
from google.protobuf.descriptor_pool import Default
from starlette.types import Message, Receive, Scope, Send

from gateway.api.openapi import document
from gateway.api.query import MAX_PATH_BYTES
from gateway.api.routes import Route, Transcoder, routes
from gateway.api.stream import stream
from gateway.auth import authorization
from gateway.errors import MethodNotAllowed, UriTooLong
from gateway.exchange import ClientGone, Exchange
from gateway.pages import Ready, pages
from gateway.settings import GatewaySettings
from rpc.errors import Unauthenticated
from rpc.identity.model import Identity
from rpc.identity.tokens import LEEWAY_SECONDS, Verifier
from rpc.metadata import REQUEST_ID
from rpc.methods import methods
from rpc.rate_limit import Rates
from rpc.status import failure_of, log_failure
from rpc.timers import Timers

CORS_METHODS = b"GET, POST, PUT, PATCH, DELETE"
CORS_HEADERS = b"authorization, content-type, idempotency-key, last-event-id, x-request-id, grpc-timeout"
CORS_EXPOSED = b"x-request-id, retry-after"
# Headers that would name a caller or speak for a service. Nothing reads them; who sends them is worth knowing.
FORGED = re.compile(rb"x-user-id|x-role|x-internal-.*|grpc-status|grpc-metadata-.*|x-.*-bin")
QUIET_PATHS = frozenset({b"/healthz", b"/readyz"})

log = structlog.get_logger()


class Gateway:
    """JSON and pages in front of the services."""

    def __init__(
        self, settings: GatewaySettings, channels: Mapping[str, Any], verifier: Verifier, ready: Ready
    ) -> None:
        """`channels`: by a service's full name, of grpc.aio or `rpc.in_process`; `ready` tells what is up, by its name."""
        services = {name: Default().FindServiceByName(name) for name in channels}
        found = [route for name, service in services.items() for route in routes(methods(service), channels[name])]
        self._transcoder = Transcoder(
            found,
            default_timeout_seconds=settings.default_timeout_ms / 1000,
            max_body_bytes=settings.max_body_bytes,
            silence_seconds=settings.body_timeout_ms / 1000,
        )
        self._verifier = verifier
        self._failed_sign_ins = Rates(settings.failed_sign_ins_per_second, "failed sign-ins")
        self._settings = settings
        self._pages = pages(settings, verifier, orjson.dumps(document(found, cookie=settings.session_cookie)), ready)
        self._closing = asyncio.Event()
        self.timers = Timers()
        # Asked of the module's logger, each line would look for its configuration again.
        self._events = log.bind()

    def close(self) -> None:
        """Ends the event streams: a server that stops waits for its answers, and these have no end of their own."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        started = time.perf_counter_ns()
        answer = self._with_headers(scope, send)
        exchange = Exchange(
            scope,
            receive,
            answer,
            self.timers,
            public_origin=self._settings.public_origin,
            trusted_proxies=self._settings.trusted_proxies,
        )
        scope["exchange"] = exchange
        try:
            await self._answer(exchange, scope)
        except ClientGone:
            exchange.status, exchange.reason = exchange.status or 499, "CANCELLED"
        except Exception as error:
            await self._refuse(exchange, error)
        finally:
            self._log(exchange, started)

    async def _answer(self, exchange: Exchange, scope: Scope) -> None:
        if exchange.method == "OPTIONS":
            await self._preflight(exchange)
            return
        if exchange.method in ("TRACE", "CONNECT"):
            raise MethodNotAllowed({"GET", "HEAD", "OPTIONS", "POST"})
        if self._pages.has(exchange.raw_path):
            if len(exchange.raw_path) > MAX_PATH_BYTES:
                raise UriTooLong("path", MAX_PATH_BYTES)
            await self._pages(scope, exchange.receive, exchange.send)
            return
        route, variables = self._transcoder.find(exchange)
        held = authorization(exchange, cookie=self._settings.session_cookie)
        identity, token = self._verifier.cached_identity(held) or await self._identify(exchange, held, route)
        exchange.user = identity.user_id
        self._verifier.count(identity)
        metadata = [("authorization", f"Bearer {token}"), (REQUEST_ID, exchange.request_id)]
        if route.method.server_streaming:
            ends = identity.expires_at + LEEWAY_SECONDS
            await stream(exchange, self._transcoder, route, variables, metadata, closing=self._closing, expires_at=ends)
            return
        await self._transcoder.answer(exchange, route, variables, metadata)

    async def _identify(self, exchange: Exchange, held: str | None, route: Route) -> tuple[Identity, str]:
        try:
            # To look at a token may take a question to the database or to its issuer.
            with self.timers.limit(self._transcoder.timeout(exchange, route)):
                return await self._verifier.identify(held)
        except Unauthenticated:
            # Counted where it failed, so that nobody who fails keeps others at the same address out.
            self._failed_sign_ins.take(exchange.address)
            raise

    async def _preflight(self, exchange: Exchange) -> None:
        headers = {b"cache-control": b"no-store", b"vary": b"origin"}
        if self._allowed_origin(exchange):
            headers |= {
                b"access-control-allow-methods": CORS_METHODS,
                b"access-control-allow-headers": CORS_HEADERS,
                b"access-control-max-age": b"600",
            }
        await exchange.send({"type": "http.response.start", "status": 204, "headers": list(headers.items())})
        await exchange.send({"type": "http.response.body", "body": b""})

    async def _refuse(self, exchange: Exchange, error: Exception) -> None:
        failure = failure_of(error)
        log_failure(error, failure, path=_shown(exchange.raw_path), request_id=exchange.request_id)
        if exchange.status is not None:
            # Half an answer is out: only a broken connection tells the client that the rest will not come.
            raise error
        headers = {b"allow": error.allow.encode()} if isinstance(error, MethodNotAllowed) else None
        try:
            await exchange.refuse(failure, headers)
        except ClientGone:
            exchange.reason = "CANCELLED"

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange: Exchange = scope["exchange"]
                request_id = exchange.request_id.encode()
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
                origin = self._allowed_origin(exchange)
                if origin:
                    message["headers"] += [
                        (b"access-control-allow-origin", origin),
                        (b"access-control-expose-headers", CORS_EXPOSED),
                        (b"vary", b"origin"),
                    ]
            await send(message)

        return sender

    def _allowed_origin(self, exchange: Exchange) -> bytes | None:
        origin = exchange.headers.all(b"origin")
        return origin[0].encode("latin-1") if origin and origin[0] in self._settings.cors_origins else None

    def _log(self, exchange: Exchange, started: int) -> None:
        forged = sum(map(_is_forged, exchange.headers.names))
        write = self._events.debug if exchange.raw_path in QUIET_PATHS else self._events.info
        write(
            "http",
            method=exchange.method,
            # Without its query, which may hold what somebody should not have put there.
            path=_shown(exchange.raw_path),
            status=exchange.status,
            reason=exchange.reason,
            duration_ms=(time.perf_counter_ns() - started) // 10_000 / 100,
            user=exchange.user,
            request_id=exchange.request_id,
            **({"dropped_headers": forged} if forged else {}),
        )


@lru_cache(maxsize=1024)
def _is_forged(header: bytes) -> bool:
    return FORGED.fullmatch(header) is not None


def _shown(raw_path: bytes) -> str:
    return raw_path[:200].decode("ascii", "backslashreplace")

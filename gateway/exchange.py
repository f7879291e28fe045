"""One HTTP request and its answer, on bare ASGI: what the transcoder and the shell around it share."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Network, ip_address
from types import TracebackType
from typing import Any, Self

import orjson
from starlette.types import Message, Receive, Scope, Send

from gateway.errors import NotAcceptable, RequestTimeout, UnsupportedMediaType
from gateway.headers import Headers
from rpc.errors import MalformedRequest, TooLarge
from rpc.metadata import accept_request_id
from rpc.status import Failure
from rpc.timers import Timer, Timers

JSON = "application/json"
GZIP_FROM_BYTES = 1024
# Fast answers end before anybody could have left; only slower ones are worth a task that watches for it.
WATCH_AFTER_SECONDS = 0.02
GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
# An address as proxies write it that has a port: `1.1.1.1:4711`, `[2001:db8::1]:44`; brackets may be without one.
PORT = re.compile(r"\[([^]]*)\](?::[0-9]+)?|([^:]*):[0-9]+")
UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class ClientGone(Exception):
    """Nobody is there to answer any more."""


class Exchange:
    """A request, and the way to answer it once."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        timers: Timers,
        *,
        public_origin: str | None = None,
        trusted_proxies: int = 0,
    ) -> None:
        self.headers = Headers(scope["headers"])
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self._peer: str = scope["client"][0] if scope.get("client") else ""
        self._trusted_proxies = trusted_proxies
        self._scheme: str = scope["scheme"]
        self._public_origin = public_origin
        self.request_id = accept_request_id(next(iter(self.headers.all(b"x-request-id")), None))
        self.user: str | None = None
        self.status: int | None = None
        self.reason: str | None = None
        self.receive = receive
        self.timers = timers
        self._send = send
        length = self.headers.all(b"content-length")
        self._unread = bool(length and length != ["0"]) or bool(self.headers.all(b"transfer-encoding"))

    @property
    def own_origin(self) -> str:
        """What browsers call us: behind a proxy that ends TLS, only the operator knows."""
        return self._public_origin or f"{self._scheme}://{''.join(self.headers.all(b'host'))}"

    @property
    def address(self) -> str:
        """Where the request comes from: what the outermost proxy that is trusted wrote down, else who is connected to us."""
        said = ",".join(self.headers.all(b"x-forwarded-for")).split(",")
        if 0 < self._trusted_proxies <= len(said):
            with suppress(ValueError):
                return _place(said[-self._trusted_proxies].strip())
        with suppress(ValueError):
            return _place(self._peer)
        return self._peer

    def timeout_seconds(self) -> float | None:
        """The deadline that the client asks for with `grpc-timeout`. Raises MalformedRequest."""
        text = self.headers.one(b"grpc-timeout")
        if text is None:
            return None
        found = GRPC_TIMEOUT.fullmatch(text)
        if found is None:
            raise MalformedRequest("Malformed request", details="grpc-timeout is a number and a unit, such as 500m.")
        return int(found[1]) * UNIT_SECONDS[found[2]]

    def accepts(self, kind: str) -> None:
        """Raises NotAcceptable where the client's Accept has no room for this media type."""
        accept = ",".join(self.headers.all(b"accept"))
        if not accept:
            return
        taken = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
        if not taken & {kind, f"{kind.partition('/')[0]}/*", "*/*"}:
            raise NotAcceptable(kind)

    def has_type(self, *kinds: str) -> None:
        """Raises UnsupportedMediaType unless the body is of one of these media types, in UTF-8 and not encoded."""
        kind, _, parameters = (self.headers.one(b"content-type") or "").partition(";")
        charset = parameters.replace(" ", "").replace('"', "").lower()
        encoded = (self.headers.one(b"content-encoding") or "identity").lower() != "identity"
        if kind.strip().lower() not in kinds or charset not in ("", "charset=utf-8") or encoded:
            raise UnsupportedMediaType(kinds)

    async def body(self, *, limit: int, timeout_seconds: float) -> bytes:
        """The whole body. Raises TooLarge without reading on, RequestTimeout and ClientGone."""
        length = self.headers.one(b"content-length")
        if length is not None and int(length) > limit:
            raise _too_large(limit)
        body, more = bytearray(), True
        try:
            with self.timers.limit(timeout_seconds):
                while more:
                    part, more = await self._part()
                    body += part
                    if len(body) > limit:
                        raise _too_large(limit)
        except TimeoutError:
            raise RequestTimeout(timeout_seconds) from None
        return bytes(body)

    async def chunks(self, *, silence_seconds: float) -> AsyncIterator[bytes]:
        """The body as it comes in. Raises RequestTimeout and ClientGone."""
        more = True
        while more:
            try:
                with self.timers.limit(silence_seconds):
                    part, more = await self._part()
            except TimeoutError:
                raise RequestTimeout(silence_seconds) from None
            if part:
                yield part

    async def _part(self) -> tuple[bytes, bool]:
        """A part of the body, and whether there is more. Raises ClientGone."""
        event = await self.receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        more: bool = event.get("more_body", False)
        self._unread = self._unread and more
        return event.get("body", b""), more

    async def send(self, message: Message) -> None:
        """Sends one ASGI message. To a client that has gone it goes nowhere."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._unread:
                # The rest of the request is still on its way, and nobody will read it.
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        await self._send(message)

    async def answer(
        self,
        status: int,
        body: bytes,
        *,
        kind: bytes = b"application/json",
        headers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Answers with a whole body, compressed where that is worth it; a HEAD request gets the headers of the same."""
        sent = [(b"content-type", kind), (b"cache-control", b"no-store"), *(headers or {}).items()]
        if len(body) >= GZIP_FROM_BYTES and "gzip" in self.headers.encodings():
            body = gzip.compress(body, 5, mtime=0)
            sent += [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
        sent.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": sent})
        await self.send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def refuse(self, failure: Failure, headers: Mapping[bytes, bytes] | None = None) -> None:
        """Answers with an error body."""
        self.reason = failure.reason
        told = {**(headers or {})}
        if failure.retryable:
            told[b"retry-after"] = b"1"
        await self.answer(failure.http_status, orjson.dumps(error_body(failure, self.request_id)), headers=told)


def error_body(failure: Failure, request_id: str) -> dict[str, Any]:
    """An error as every JSON surface tells it."""
    details: Any = failure.details
    if failure.violations:
        details = {}
        for path, message in failure.violations:
            details.setdefault(path, []).append(message)
    return {
        "error": failure.message,
        "details": details,
        "code": failure.code.name,
        "reason": failure.reason,
        "request_id": request_id,
    }


class stop_when_client_leaves:  # noqa: N801 - reads as a sentence: `async with stop_when_client_leaves(exchange):`
    """Cancels its body when the client goes away, which ends the call upstream; raises ClientGone instead.

    `start` begins to watch at once; before it, `receive` belongs to whoever reads the request.
    """

    def __init__(self, exchange: Exchange, *, delay_seconds: float | None = WATCH_AFTER_SECONDS) -> None:
        self._receive = exchange.receive
        self._timers = exchange.timers
        self._delay = delay_seconds
        self._watching: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._gone = False

    async def __aenter__(self) -> Self:
        self._task: asyncio.Task[Any] | None = asyncio.current_task(self._timers.loop)
        if self._delay is not None:
            self._timer = self._timers.call_later(self._delay, self.start)
        return self

    def start(self) -> None:
        """Watches from now on."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="watch-client")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        assert self._task is not None
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._gone and isinstance(error, asyncio.CancelledError):
            assert self._task is not None
            self._task.uncancel()
            raise ClientGone from None


def _place(text: str) -> str:
    """An address without its port. Of IPv6 its /64, which one caller has to themselves. Raises ValueError."""
    found = PORT.fullmatch(text)
    address = ip_address(found[1] or found[2] if found else text)
    if not isinstance(address, IPv4Address):
        return str(address.ipv4_mapped or IPv6Network((int(address), 64), strict=False))
    return str(address)


def _too_large(limit: int) -> TooLarge:
    return TooLarge("Body too large", details=f"The body may have {limit} bytes at most.")

"""HTTP/1.1 framing: uvicorn's own protocol, with the limits and refusals that it leaves out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.api.query import MAX_QUERY_BYTES
from gateway.errors import HeadersTooLarge, UriTooLong
from gateway.exchange import error_body
from gateway.headers import SECURITY_HEADERS
from rpc.errors import MalformedRequest, ServiceError
from rpc.metadata import accept_request_id
from rpc.status import failure_of
from rpc.timers import Timer

MAX_HEADERS = 100
MAX_HEADER_BYTES = 8 * 1024
MAX_HEAD_BYTES = 16 * 1024
# A path above its own limit is refused where routes are known; this is where no route could have it.
MAX_URL_BYTES = MAX_QUERY_BYTES + MAX_HEAD_BYTES
# The parser is fed this much at once, so that it is seen in time when what it takes is no body: a chunk may say a lot about
# itself. A byte may come as a chunk of its own, with a size and two line ends.
SLICE_BYTES = 16 * 1024
MAX_FRAMING_BYTES = 16 * 1024
MAX_FRAMING_PER_BYTE = 8
HEAD_TIMEOUT_SECONDS = 8.0
# Time that a client we have refused gets to read why, while what it still sends is thrown away: closing at once would reset
# the connection, and with it the answer.
LINGER_SECONDS = 1.0
# A client that takes nothing for this long is not waiting any more.
SEND_TIMEOUT_SECONDS = 30.0

log = structlog.get_logger()


class Protocol(HttpToolsProtocol):
    """One connection. A request that is not HTTP as it must be gets an error body like any other, and the end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timer: Timer | None = None
        self._send_timer: Timer | None = None
        self._in_head = True
        self._head_bytes = 0
        self._framing_bytes = 0
        self._refusal: ServiceError | None = None
        self._linger_timer: Timer | None = None
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's: it also writes
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._send_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            if self._linger_timer is not None or self.transport.is_closing():
                return
            self._feed(data[start : start + SLICE_BYTES] if len(data) > SLICE_BYTES else data)

    def _feed(self, data: bytes) -> None:
        in_body = not self._in_head
        self._head_bytes += len(data)
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._linger_timer is not None or self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > MAX_URL_BYTES + MAX_HEAD_BYTES:
            self._refusal = HeadersTooLarge(f"{MAX_HEAD_BYTES} bytes together")
            self.send_400_response("")
        elif in_body and self._framing_bytes > MAX_FRAMING_BYTES:
            self._refusal = _malformed("The chunks of the body are longer than what is in them.")
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._wait_for_head()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._framing_bytes = max(0, self._framing_bytes - len(body) * (1 + MAX_FRAMING_PER_BYTE))

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._framing_bytes = self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(UriTooLong("path and query", MAX_URL_BYTES))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = self._framing_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
        sizes = [len(name) + len(value) for name, value in self.headers]
        if len(sizes) > MAX_HEADERS:
            self._refuse(HeadersTooLarge(f"{MAX_HEADERS} lines"))
        if max(sizes, default=0) > MAX_HEADER_BYTES:
            self._refuse(HeadersTooLarge(f"{MAX_HEADER_BYTES} bytes each"))
        if sum(sizes) > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge(f"{MAX_HEAD_BYTES} bytes together"))
        names, version = [name for name, _ in self.headers], self.parser.get_http_version()
        hosts = names.count(b"host")
        if hosts > 1 or (not hosts and version == "1.1"):
            self._refuse(_malformed("Send one Host header."))
        if version not in ("1.0", "1.1"):
            self._refuse(_malformed("Speak HTTP/1.1."))
        if b"transfer-encoding" in names:
            codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
            if codings != [b"chunked"] or version == "1.0":
                self._refuse(_malformed("Transfer-Encoding may be chunked, alone and in HTTP/1.1."))
        if (not self.url.startswith(b"/") and self.url != b"*") or b"#" in self.url:
            self._refuse(_malformed("The request line names a path, such as /api/jobs."))
        super().on_headers_complete()
        self._answering = _Answering(self.transport, self._end, self.loop)
        self.cycle.transport = self._answering  # type: ignore[assignment]

    def send_400_response(self, msg: str) -> None:
        """Answers what cannot be read, and closes."""
        self._in_head = False
        # Nothing is answered after this, so of the requests before it those that wait are not begun.
        self.pipeline.clear()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        failure = failure_of(self._refusal or _malformed("The request is not HTTP/1.1 as it must be."))
        request_id = accept_request_id(None)
        body = orjson.dumps(error_body(failure, request_id))
        headers = [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        if self.cycle is not None and not self.cycle.response_complete:
            # Whoever was to answer is told that the client has gone: this is the answer.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._answering.forget()
        head = b"HTTP/1.1 %d \r\n" % failure.http_status + lines + SECURITY_HEADERS
        self.transport.write(head + b"\r\n" + body)
        self._linger()
        log.info("http", status=failure.http_status, reason=failure.reason, request_id=request_id)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _end(self) -> None:
        """Closes after an answer; slowly where the rest of the request is still on its way."""
        if self.cycle.more_body and not self.transport.is_closing():
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        self.transport.write_eof()
        self._linger_timer = self.app.timers.call_later(LINGER_SECONDS, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send_timer = self.app.timers.call_later(SEND_TIMEOUT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()

    def _wait_for_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.app.timers.call_later(HEAD_TIMEOUT_SECONDS, self.transport.close)

    def _refuse(self, refusal: ServiceError) -> None:
        """Stops the parser, which then asks for the answer. Raises the refusal."""
        self._refusal = refusal
        raise refusal


class _Answering:
    """The transport as an answer sees it: closing it is ours, and so are the headers that every answer has.

    The head waits for what is written in the same turn of the event loop, so that most answers are one system call.
    """

    def __init__(
        self, transport: asyncio.Transport, close: Callable[[], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._write, self.is_closing = transport.write, transport.is_closing
        self._close, self._call_soon = close, loop.call_soon
        self._head = b""

    def write(self, data: bytes) -> None:
        """Writes; the first thing is the head, unless the client still waits to be told to send its body."""
        if data.startswith(b"HTTP/1.1 100 "):
            self._write(data)
            return
        head, end, rest = data.partition(b"\r\n\r\n")
        self._head = head + b"\r\n" + SECURITY_HEADERS + end[2:] + rest
        self.write = self._write_body  # type: ignore[method-assign]
        self._call_soon(self._flush)

    def forget(self) -> None:
        """Leaves out a head that still waits: something else is answered."""
        self._head = b""

    def close(self) -> None:
        """Closes after what was written."""
        self._flush()
        self._close()

    def _write_body(self, data: bytes) -> None:
        self.write = self._write  # type: ignore[method-assign]
        self._write(self._head + data)
        self._head = b""

    def _flush(self) -> None:
        if self._head:
            self._write_body(b"")


def _malformed(details: str) -> MalformedRequest:
    return MalformedRequest("Malformed request", details=details)

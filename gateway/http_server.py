"""Serves the gateway over HTTP/1.1 with uvicorn, with limits and deadlines for each connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.api.query import MAX_QUERY_BYTES
from gateway.app import Gateway
from gateway.errors import HeadersTooLarge, UriTooLong, error_body
from rpc.errors import MalformedRequest, ServiceError
from rpc.metadata import accept_request_id
from rpc.server.grpc_server import PortInUseError
from rpc.status import failure_of

MAX_HEADERS = 100
MAX_HEADER_BYTES = 8 * 1024
MAX_HEAD_BYTES = 16 * 1024
MAX_URL_BYTES = MAX_QUERY_BYTES + MAX_HEAD_BYTES
HEAD_TIMEOUT_SECONDS = 8.0
# A client that does not read for this long is disconnected.
SEND_TIMEOUT_SECONDS = 30.0
# After a response that refuses a body, the client may go on sending for this long. Closing at once would reset the connection
# before the client has read the response.
LINGER_SECONDS = 1.0
BACKLOG = 2048
KEEP_ALIVE_SECONDS = 20
POLL_SECONDS = 0.01
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; object-src 'none'; form-action 'self'"
)
# Headers of every response, uvicorn's own 400 included.
SECURITY_HEADERS = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
]

log = structlog.get_logger()


class Protocol(HttpToolsProtocol):
    """uvicorn's connection, with limits for the request's head, deadlines, and requests cancelled when their client leaves."""

    _head_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _error: ServiceError | None = None
    _running: tuple[RequestResponseCycle, asyncio.Task[None]] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's signature
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._head_timer, self._send_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._cancel_running()
        # The cycle refers to this object: otherwise both are left to the garbage collector.
        self.cycle = self._running = None  # type: ignore[assignment] # None is uvicorn's default

    def data_received(self, data: bytes) -> None:
        if self._linger_timer is not None:
            return
        # uvicorn makes a scope for each request.
        scope = self.scope
        super().data_received(data)
        if self._linger_timer is not None:
            return
        # Line breaks between requests stop uvicorn's keep-alive timer although no request begins.
        if self._head_timer is None and (self._in_head or self.cycle is None or self.cycle.response_complete):
            self._start_head_timer()
        self._head_bytes = self._head_bytes + len(data) if self._in_head and scope is self.scope else 0
        if self._head_bytes > MAX_URL_BYTES + MAX_HEAD_BYTES:
            self._error = HeadersTooLarge(f"{MAX_HEAD_BYTES} bytes together")
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(UriTooLong("path and query", MAX_URL_BYTES))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        sizes = [len(name) + len(value) for name, value in self.headers]
        if len(sizes) > MAX_HEADERS:
            self._refuse(HeadersTooLarge(f"{MAX_HEADERS} lines"))
        if max(sizes, default=0) > MAX_HEADER_BYTES:
            self._refuse(HeadersTooLarge(f"{MAX_HEADER_BYTES} bytes each"))
        if sum(sizes) > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge(f"{MAX_HEAD_BYTES} bytes together"))
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or self.parser.get_http_version() == "1.0"):
            # Request smuggling: a proxy could see the body end elsewhere, and what follows as another request.
            self._refuse(MalformedRequest(details="Transfer-Encoding may be chunked only, in HTTP/1.1."))
        super().on_headers_complete()
        # The connection closes after a response that is sent before the whole body was read.
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False
        self.cycle.transport = _ResponseTransport(self.transport, self._close)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        self.cycle.keep_alive = self._keep_alive
        super().on_message_complete()

    def shutdown(self) -> None:
        self._keep_alive = False
        super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send_timer = self.loop.call_later(SEND_TIMEOUT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Responds to a request that is not valid HTTP or has too large a head, and closes the connection."""
        self._cancel_running()
        failure = failure_of(self._error or MalformedRequest(details=msg))
        request_id = accept_request_id(None)
        body = orjson.dumps(error_body(failure, request_id))
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
        ]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[failure.http_status], *lines, b"\r\n", body]))
        self._linger()
        log.info("http", status=failure.http_status, reason=failure.reason, request_id=request_id)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._running = cycle, task

    def _cancel_running(self) -> None:
        """Cancels the request in progress, and with it its gRPC call."""
        if self._running is not None:
            cycle, task = self._running
            cycle.disconnected = True
            task.cancel()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.transport.close)

    def _refuse(self, error: ServiceError) -> None:
        """Stops the parser, after which uvicorn calls `send_400_response`. Raises the error."""
        self._error = error
        raise error

    def _close(self) -> None:
        if self.cycle is not None and self.cycle.more_body and not self.transport.is_closing():
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Ignores what the client still sends, and closes after LINGER_SECONDS."""
        self.pipeline.clear()
        self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)


class _ResponseTransport:
    """The transport of a response, which `Protocol._close` closes: later if the client still sends its body."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: `rpc.process` has the process's own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def http_server(
    app: Gateway, *, host: str, port: int, share_port: bool, drain_seconds: float
) -> AsyncIterator[int]:
    """Serves while the context is open, then drains. Yields the port. Raises PortInUseError."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        headers=SECURITY_HEADERS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
    )
    server = _Server(config)
    with _listen(host, port, share_port=share_port) as listener:
        bound_port: int = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve-http")
        try:
            # uvicorn sets a flag when it has started, and has no event to wait for.
            while not server.started and not serving.done():  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
            log.info("serving", address=f"http://{host}:{bound_port}")
            yield bound_port
        finally:
            app.close()
            server.should_exit = True
            await serving
            log.info("stopped", address=f"http://{host}:{bound_port}")


def _listen(host: str, port: int, *, share_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it each body waits 40 ms for the head's ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortInUseError(f"port {port} on {host} cannot be bound: {error.strerror}") from error
    listener.setblocking(False)
    return listener

"""Runs the HTTP server from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import structlog
import uvicorn

from gateway.app import Gateway
from gateway.protocol import Protocol
from rpc.grpc_server import PortInUseError

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 20
POLL_SECONDS = 0.01

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def http_server(
    app: Gateway, *, host: str, port: int, share_port: bool, drain_seconds: float
) -> AsyncIterator[int]:
    """Serves while its body runs, then drains. Yields the port it got. Raises PortInUseError."""
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
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
    )
    server = _Server(config)
    with _listen(host, port, share_port=share_port) as listener:
        bound: int = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve-http")
        try:
            # uvicorn tells that it has started in a flag only.
            while not server.started and not serving.done():  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
            log.info("serving", address=f"http://{host}:{bound}")
            yield bound
        finally:
            app.close()
            server.should_exit = True
            await serving
            log.info("stopped", address=f"http://{host}:{bound}")


def _listen(host: str, port: int, *, share_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortInUseError(f"port {port} on {host} cannot be had: {error.strerror}") from error
    listener.setblocking(False)
    return listener

"""Runs a gRPC server from start to SIGTERM: health, reflection, drain, stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection

from rpc.boundary import Boundary
from rpc.errors import OperatorError
from rpc.grpc_server import SERVER_OPTIONS, Handlers
from rpc.health import HEALTH, Anybody
from rpc.identity import Verifier
from rpc.settings import CommonSettings
from rpc.tls import server_credentials

log = structlog.get_logger()

Services = Mapping[ServiceDescriptor, Any]
Report = Callable[[bool], Awaitable[None]]


class PortInUseError(OperatorError):
    """Somebody else listens where we should."""


def boundary_of(settings: CommonSettings, verifier: Verifier) -> Boundary:
    """A boundary with the limits of the settings."""
    return Boundary(
        verifier,
        max_concurrent_calls=settings.max_concurrent_calls,
        default_timeout_seconds=settings.default_timeout_ms / 1000,
        max_streams=settings.max_watches,
        max_streams_per_user=settings.max_watches_per_user,
    )


@asynccontextmanager
async def grpc_server(
    services: Services, boundary: Boundary, settings: CommonSettings, *, port: int, share_port: bool
) -> AsyncIterator[tuple[int, Report]]:
    """Serves while its body runs, then drains.

    Draining: health says NOT_SERVING, streams are told, calls get their time, the rest is cancelled.
    Yields the port it got and a function that sets the health of all services. Raises PortInUseError.
    """
    # Two processes on one port by mistake must not share it; `--workers` asks for it by name. Of an option given twice
    # gRPC takes the first.
    server = grpc.aio.server(options=[("grpc.so_reuseport", int(share_port)), *SERVER_OPTIONS])
    names = [service.full_name for service in services]
    known = (*names, HEALTH, reflection.SERVICE_NAME)
    anybody = Anybody(names, reflection.aio.ReflectionServicer(known) if settings.reflection else None)

    async def report(healthy: bool) -> None:
        anybody.tell(healthy)

    # Each call asks the handlers in turn: the busiest come first.
    server.add_generic_rpc_handlers((Handlers(services, boundary), anybody))
    credentials, host = server_credentials(settings), settings.host
    try:
        address = f"{host}:{port}"
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortInUseError(f"port {port} on {host} is in use") from error
    await server.start()
    log.info("serving", address=f"{host}:{bound}", services=names, tls=credentials is not None)
    try:
        yield bound, report
    finally:
        boundary.draining.set()
        anybody.tell(False)
        await server.stop(settings.drain_seconds)
        log.info("stopped", address=f"{host}:{bound}")


async def until_stopped(*tasks: asyncio.Task[Any]) -> None:
    """Waits for SIGTERM or SIGINT, or for a task that must not end; its exception is raised here. Cancels the tasks."""
    # What there is by now, modules and contracts, stays: no collection has to look at it again.
    gc.collect()
    gc.freeze()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waiting = asyncio.create_task(stop.wait(), name="wait-for-signal")
    try:
        done, _ = await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (waiting, *tasks):
            task.cancel()
        await asyncio.gather(waiting, *tasks, return_exceptions=True)

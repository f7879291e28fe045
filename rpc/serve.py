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
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from rpc.anybody import HEALTH, Anybody
from rpc.boundary import Boundary
from rpc.remote import SERVER_OPTIONS, Handlers

log = structlog.get_logger()

Services = Mapping[ServiceDescriptor, Any]
Report = Callable[[bool], Awaitable[None]]


class PortInUseError(Exception):
    """Somebody else listens where we should."""


@asynccontextmanager
async def grpc_server(
    services: Services,
    boundary: Boundary,
    *,
    host: str,
    port: int,
    reflect: bool,
    share_port: bool,
    drain_seconds: float,
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[tuple[int, Report]]:
    """Serves while its body runs, then drains.

    Draining: health says NOT_SERVING, streams are told, calls get their time, the rest is cancelled.
    Yields the port it got and a function that sets the health of all services. Raises PortInUseError.
    """
    # Two processes on one port by mistake must not share it; `--workers` asks for it by name. Of an option given twice
    # gRPC takes the first.
    server = grpc.aio.server(options=[("grpc.so_reuseport", int(share_port)), *SERVER_OPTIONS])
    health = health_aio.HealthServicer()
    names = [service.full_name for service in services]

    async def report(healthy: bool) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING
        status = serving if healthy else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *names):
            await health.set(name, status)

    await report(False)
    reflecting = reflection.aio.ReflectionServicer((*names, HEALTH, reflection.SERVICE_NAME)) if reflect else None
    # Each call asks the handlers in turn: the busiest come first.
    server.add_generic_rpc_handlers((Handlers(services, boundary), Anybody(health, reflecting)))
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
        await health.enter_graceful_shutdown()
        await server.stop(drain_seconds)
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

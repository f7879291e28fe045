"""A gRPC server from start to stop: services, health, reflection, drain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection

from rpc.boundary import Boundary
from rpc.channels import MAX_MESSAGE_BYTES
from rpc.errors import OperatorError
from rpc.process.settings import CommonSettings
from rpc.process.tls import server_credentials
from rpc.server.handlers import Handlers
from rpc.server.health import HEALTH, HealthAndReflection

MAX_METADATA_BYTES = 8 * 1024
# A gateway has one connection for the calls of all its clients. The boundary limits concurrent calls.
MAX_STREAMS_PER_CONNECTION = 4096

SERVER_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Both limits are equal: between a lower soft limit and the hard one, gRPC refuses calls at random.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
]

log = structlog.get_logger()

Services = Mapping[ServiceDescriptor, Any]
Report = Callable[[bool], Awaitable[None]]


class PortInUseError(OperatorError):
    """Another process listens on the port."""


@asynccontextmanager
async def grpc_server(
    services: Services, boundary: Boundary, settings: CommonSettings, *, port: int, share_port: bool
) -> AsyncIterator[tuple[int, Report]]:
    """Serves while the context is open, then drains.

    Draining: health becomes NOT_SERVING, streams end, calls have `drain_seconds` to finish and are then cancelled.
    Yields the port and a function that sets the health of all services. Raises PortInUseError.
    """
    # Without `--workers` a second server on the port must fail.
    options = [
        ("grpc.so_reuseport", int(share_port)),
        # Clients resolve names only when they connect, so they find new servers only if connections end.
        ("grpc.max_connection_age_ms", settings.max_connection_age_seconds * 1000),
        *SERVER_OPTIONS,
    ]
    server = grpc.aio.server(options=options)
    names = [service.full_name for service in services]
    reflected = (*names, HEALTH, reflection.SERVICE_NAME)
    health = HealthAndReflection(names, reflection.aio.ReflectionServicer(reflected) if settings.reflection else None)

    async def report(healthy: bool) -> None:
        health.set_status(healthy)
        boundary.telemetry.is_ready = healthy

    await report(False)

    # gRPC looks a call's handler up in this order.
    server.add_generic_rpc_handlers((Handlers(services, boundary), health))
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
        await report(False)
        await server.stop(settings.drain_seconds)
        log.info("stopped", address=f"{host}:{bound}")

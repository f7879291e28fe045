"""`pipeline serve`: the gateway and both services in one process, the gRPC ports open all the same.

Between them stands the same boundary as on the wire, and no wire.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

import uvloop

from deploy.settings import ServeSettings
from estimator_service.__main__ import services as estimator_services
from estimator_service.catalogue import CatalogueError
from gateway.app import Gateway
from gateway.serve import http_server
from jobs_service.__main__ import open_services
from jobs_service.storage import StorageError
from rpc.boundary import Boundary
from rpc.database import Database, GuardError
from rpc.jwks import open_verifier
from rpc.local import LocalChannel
from rpc.logs import setup_logs
from rpc.serve import PortInUseError, Services, grpc_server, until_stopped
from rpc.settings import load
from rpc.tls import server_credentials
from rpc.workers import run_workers


async def run(settings: ServeSettings, *, share_port: bool) -> None:
    """Serves until SIGTERM."""
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(Database.open(url, size=settings.database_pool_size))
        verifier = await stack.enter_async_context(open_verifier(settings, database.is_disabled))

        def new_boundary() -> Boundary:
            return Boundary(
                verifier,
                max_concurrent_calls=settings.max_concurrent_calls,
                default_timeout_seconds=settings.default_timeout_ms / 1000,
                max_streams=settings.max_watches,
                max_streams_per_user=settings.max_watches_per_user,
            )

        # Each service has limits of its own, as apart: a job's question for its price must find a place.
        pricing, queueing = new_boundary(), new_boundary()
        estimator = estimator_services(settings, database)
        prices = _local(pricing, estimator)
        jobs = await stack.enter_async_context(open_services(settings, database, prices))
        channels = dict.fromkeys((service.full_name for service in estimator), prices)
        channels |= dict.fromkeys((service.full_name for service in jobs), _local(queueing, jobs))
        reports = []
        for services, guard, port in (
            (estimator, pricing, settings.estimator_port),
            (jobs, queueing, settings.jobs_port),
        ):
            server = grpc_server(
                services,
                guard,
                host=settings.host,
                port=port,
                reflect=settings.reflection,
                share_port=share_port,
                drain_seconds=settings.drain_seconds,
                credentials=server_credentials(settings),
            )
            reports.append((await stack.enter_async_context(server))[1])

        async def report(healthy: bool) -> None:
            await asyncio.gather(*(each(healthy) for each in reports))

        async def ready() -> Mapping[str, bool]:
            return {"estimator": database.healthy, "jobs": database.healthy}

        gateway = http_server(
            Gateway(settings, channels, verifier, ready),
            host=settings.host,
            port=settings.gateway_port,
            share_port=share_port,
            drain_seconds=settings.drain_seconds,
        )
        await stack.enter_async_context(gateway)
        await until_stopped(asyncio.create_task(database.watch(report), name="watch-database"))


def _local(boundary: Boundary, services: Services) -> LocalChannel:
    channel = LocalChannel(boundary)
    for service, servicer in services.items():
        channel.add_service(service, servicer)
    return channel


def serve(workers: int) -> int:
    """Returns the exit code: 2 for what only its operator can mend."""
    settings = load(ServeSettings)
    setup_logs(settings.log_level, settings.log_format)
    return run_workers(workers, partial(_serve, settings, share_port=workers > 1))


def _serve(settings: ServeSettings, *, share_port: bool) -> int:
    try:
        uvloop.run(run(settings, share_port=share_port))
    except (CatalogueError, GuardError, PortInUseError, StorageError) as error:
        print(f"pipeline serve: {error}", file=sys.stderr)
        return 2
    return 0

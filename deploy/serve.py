"""`pipeline serve`: gateway and services in one process, which also listens on their gRPC ports.

Calls between them pass the same boundary as calls over gRPC, without serialization.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

from deploy.settings import ServeSettings
from estimator_service.__main__ import services as estimator_services
from gateway.app import Gateway
from gateway.http_server import http_server
from jobs_service.__main__ import open_delivery_worker, open_services
from rpc.boundary import Boundary
from rpc.database.pool import Database
from rpc.identity.tokens import open_verifier
from rpc.in_process import LocalChannel
from rpc.process.lifetime import until_stopped
from rpc.process.settings import load
from rpc.process.workers import run_server
from rpc.server.grpc_server import Services, grpc_server
from rpc.telemetry.exporters import open_telemetry


async def run(settings: ServeSettings, *, share_port: bool) -> None:
    """Serves until SIGTERM."""
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(open_telemetry(settings, "pipeline"))
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(Database.open(url, size=settings.database_pool_size))
        verifier = await stack.enter_async_context(open_verifier(settings, database.is_disabled, database.find_api_key))

        # Each service has its own limits: an estimate for CreateJob must not wait for a slot that CreateJob uses.
        pricing = Boundary(settings, verifier, telemetry)
        queueing = Boundary(settings, verifier, telemetry)
        database.watch_pool(telemetry.metrics)
        verifier.watch_caches(telemetry.metrics)
        pricing.watch_limits("estimator")
        queueing.watch_limits("jobs")
        estimator = estimator_services(settings, database, telemetry.metrics)
        prices = _local(pricing, estimator)
        jobs = await stack.enter_async_context(open_services(settings, database, prices, telemetry.metrics))
        # Webhooks are sent from this process too, where `make up` starts `python -m jobs_service webhooks`.
        worker = await stack.enter_async_context(open_delivery_worker(settings, database, telemetry.metrics))
        channels = dict.fromkeys((service.full_name for service in estimator), prices)
        channels |= dict.fromkeys((service.full_name for service in jobs), _local(queueing, jobs))
        reports = []
        for services, guard, port in (
            (estimator, pricing, settings.estimator_port),
            (jobs, queueing, settings.jobs_port),
        ):
            server = grpc_server(services, guard, settings, port=port, share_port=share_port)
            reports.append((await stack.enter_async_context(server))[1])

        async def report(healthy: bool) -> None:
            await asyncio.gather(*(each(healthy) for each in reports))

        async def ready() -> Mapping[str, bool]:
            return {"estimator": database.healthy, "jobs": database.healthy}

        gateway = http_server(
            Gateway(settings, channels, verifier, ready, telemetry),
            host=settings.host,
            port=settings.gateway_port,
            share_port=share_port,
            drain_seconds=settings.drain_seconds,
        )
        await stack.enter_async_context(gateway)
        await until_stopped(
            asyncio.create_task(database.watch(report), name="watch-database"),
            asyncio.create_task(worker.run(), name="webhooks"),
        )


def _local(boundary: Boundary, services: Services) -> LocalChannel:
    channel = LocalChannel(boundary)
    for service, servicer in services.items():
        channel.add_service(service, servicer)
    return channel


def serve(workers: int) -> int:
    """Returns the exit code: 2 for an error that the operator has to fix."""
    return run_server("pipeline serve", run, load(ServeSettings), workers)

"""Runs the Jobs server: `python -m jobs_service [--workers N]`.

`python -m jobs_service webhooks` sends webhooks, `python -m jobs_service migrate` prepares the database.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import structlog
from pipeline.api_keys.v1 import api_keys_pb2
from pipeline.audit.v1 import audit_pb2
from pipeline.datasets.v1 import datasets_pb2
from pipeline.estimator.v1 import estimator_pb2
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2
from pipeline.webhooks.v1 import webhooks_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.api_keys.service import ApiKeyService
from jobs_service.api_keys.store import ApiKeyStore
from jobs_service.artifacts.files import ArtifactFiles
from jobs_service.artifacts.store import ArtifactStore
from jobs_service.audit.service import AuditService
from jobs_service.audit.store import AuditStore
from jobs_service.database.migrate import migrate
from jobs_service.datasets.imports.importer import Importer
from jobs_service.datasets.preview import Previews
from jobs_service.datasets.service import DatasetService
from jobs_service.datasets.storage import Storage
from jobs_service.datasets.store import DatasetStore
from jobs_service.datasets.sweeper import FileSweeper
from jobs_service.events.store import EventStore
from jobs_service.events.watch import Tailer, Watches
from jobs_service.jobs.store import JobStore
from jobs_service.monitoring.gauges import Gauges
from jobs_service.notifications.service import NotificationService
from jobs_service.notifications.store import NotificationStore
from jobs_service.queue.claims import Claims
from jobs_service.queue.metrics import QueueMetrics
from jobs_service.queue.positions import QueuePositions
from jobs_service.queue.service import WorkerService
from jobs_service.queue.store import QueueStore
from jobs_service.queue.sweeper import Sweeper
from jobs_service.service import JobsService
from jobs_service.settings import JobsSettings, MigrateSettings, WebhookAddressSettings, WebhookSenderSettings
from jobs_service.webhooks.addresses import AddressGuard, open_resolver
from jobs_service.webhooks.client import WebhookClient
from jobs_service.webhooks.delivery_worker import DeliveryWorker
from jobs_service.webhooks.outbox import ConcurrencyLimits, Outbox
from jobs_service.webhooks.service import WebhookService
from jobs_service.webhooks.store import WebhookStore
from rpc.boundary import Boundary
from rpc.channels import open_channel
from rpc.database.pool import Database
from rpc.errors import OperatorError
from rpc.identity.tokens import open_verifier
from rpc.process.background import background, repeat
from rpc.process.lifetime import until_stopped
from rpc.process.logs import setup_logs
from rpc.process.settings import load
from rpc.process.tls import channel_credentials
from rpc.process.workers import run_server
from rpc.server.grpc_server import Services, grpc_server
from rpc.telemetry.exporters import open_telemetry
from rpc.telemetry.metrics import Metrics

# Webhook hosts that are looked up at once while their owners wait.
CHECK_THREADS = 8
# How often old notifications and expired API keys are deleted, a batch each time.
PRUNE_SECONDS, PRUNE_TIMEOUT_SECONDS = 60.0, 15.0
log = structlog.get_logger()

ESTIMATOR = estimator_pb2.DESCRIPTOR.services_by_name["EstimatorService"]


async def serve(settings: JobsSettings, *, share_port: bool) -> None:
    """Serves until SIGTERM."""
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(open_telemetry(settings, "jobs"))
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(Database.open(url, size=settings.database_pool_size))
        verifier = await stack.enter_async_context(open_verifier(settings, database.is_disabled, database.find_api_key))
        channel = await stack.enter_async_context(
            open_channel(settings.estimator_address, [ESTIMATOR], channel_credentials(settings))
        )
        opened = await stack.enter_async_context(open_services(settings, database, channel, telemetry.metrics))
        boundary = Boundary(settings, verifier, telemetry)
        _, report = await stack.enter_async_context(
            grpc_server(opened, boundary, settings, port=settings.jobs_port, share_port=share_port)
        )
        database.watch_pool(telemetry.metrics)
        verifier.watch_caches(telemetry.metrics)
        boundary.watch_limits("jobs")
        await until_stopped(asyncio.create_task(database.watch(report), name="watch-database"))


@asynccontextmanager
async def open_services(
    settings: JobsSettings, database: Database, estimator: Any, metrics: Metrics
) -> AsyncIterator[Services]:
    """Opens the services of this process, and runs their background tasks while the body runs.

    `estimator` is a channel to the Estimator: over gRPC or in process.
    """
    jobs = JobStore(database, max_open_jobs=settings.max_open_jobs, max_attempts=settings.max_attempts)
    lease_time, queue_metrics = timedelta(milliseconds=settings.lease_ms), QueueMetrics(metrics)
    claims = Claims(database, lease_time=lease_time, metrics=queue_metrics)
    queue = QueueStore(database, lease_time=lease_time, metrics=queue_metrics)
    events, retention = EventStore(database), timedelta(hours=settings.event_retention_hours)
    tailer = Tailer(events, poll_seconds=settings.watch_poll_ms / 1000)
    tailer.watch_lag(metrics)
    storage = Storage(settings.storage_url, signed_url_seconds=settings.signed_url_seconds)
    datasets = DatasetStore(
        database,
        bucket=storage.bucket,
        max_per_user=settings.max_datasets_per_user,
        max_bytes_per_user=settings.max_storage_bytes_per_user,
    )
    sweeper = Sweeper(database, events, queue_metrics, every_seconds=settings.sweep_ms / 1000, retention=retention)
    watches = Watches(events, tailer, ping_seconds=settings.watch_ping_ms / 1000, retention=retention)
    artifacts = ArtifactStore(database, max_bytes=settings.max_artifact_bytes)
    days = settings.artifact_retention_days
    artifact_retention = None if days is None else timedelta(days=days)
    notifications = NotificationStore(database)
    audit = AuditStore(database)
    api_keys = ApiKeyStore(database, max_per_user=settings.max_api_keys_per_user)
    webhooks = WebhookStore(
        database,
        max_per_user=settings.webhook_max_per_user,
        max_uses_per_hour=settings.webhook_uses_per_hour,
    )
    async with (
        Importer.open(storage, max_bytes=settings.max_dataset_bytes, metrics=metrics) as importer,
        ArtifactFiles.open(artifacts, storage) as files,
        open_address_guard(settings, CHECK_THREADS) as guard,
    ):
        service = JobsService(
            jobs,
            EstimatorServiceStub(estimator),
            queue,
            QueuePositions(database),
            events,
            watches,
            artifacts,
            files,
            audit.record_download,
            metrics,
        )

        async def prune() -> None:
            await notifications.prune(timedelta(days=settings.notification_retention_days))
            await api_keys.prune()

        running = {
            "tail": tailer.run(),
            "sweep": sweeper.run(),
            "sweep-files": FileSweeper(database, storage).run(),
            "sweep-artifacts": artifacts.run(artifact_retention),
            "gauges": Gauges(database, metrics, every_seconds=settings.gauges_ms / 1000).run(),
            "prune": repeat(
                "prune",
                prune,
                every_seconds=PRUNE_SECONDS,
                timeout_seconds=PRUNE_TIMEOUT_SECONDS,
                is_urgent=False,
            ),
        }
        served: Services = {
            jobs_pb2.DESCRIPTOR.services_by_name["JobsService"]: service,
            workers_pb2.DESCRIPTOR.services_by_name["WorkerService"]: WorkerService(claims, queue, files, settings),
            datasets_pb2.DESCRIPTOR.services_by_name["DatasetService"]: DatasetService(
                datasets,
                importer,
                Previews(storage),
                max_uploads=settings.max_uploads,
                max_uploads_per_user=settings.max_uploads_per_user,
                silence_seconds=settings.upload_silence_ms / 1000,
            ),
            notifications_pb2.DESCRIPTOR.services_by_name["NotificationService"]: NotificationService(notifications),
            webhooks_pb2.DESCRIPTOR.services_by_name["WebhookService"]: WebhookService(webhooks, guard),
            api_keys_pb2.DESCRIPTOR.services_by_name["ApiKeyService"]: ApiKeyService(api_keys),
            audit_pb2.DESCRIPTOR.services_by_name["AuditService"]: AuditService(audit),
        }
        async with background(running):
            yield served


@asynccontextmanager
async def open_address_guard(settings: WebhookAddressSettings, threads: int) -> AsyncIterator[AddressGuard]:
    """Opens the check of webhook addresses. `threads`: look-ups at once."""
    async with open_resolver(threads) as resolver:
        yield AddressGuard(
            resolver,
            ports=settings.webhook_ports,
            refused=settings.webhook_refused_networks,
            allow_private=settings.webhook_allow_private,
        )


async def send_webhooks(settings: WebhookSenderSettings, *, share_port: bool) -> None:
    """Sends webhooks until SIGTERM. Listens on no port, so `share_port` has no effect."""
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(open_telemetry(settings, "webhooks"))
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(Database.open(url, size=settings.database_pool_size))
        worker = await stack.enter_async_context(open_delivery_worker(settings, database, telemetry.metrics))
        database.watch_pool(telemetry.metrics)

        async def report(healthy: bool) -> None:
            telemetry.is_ready = healthy

        await report(False)

        log.info("sending_webhooks")
        await until_stopped(
            asyncio.create_task(database.watch(report), name="watch-database"),
            asyncio.create_task(worker.run(), name="webhooks"),
        )


@asynccontextmanager
async def open_delivery_worker(
    settings: WebhookSenderSettings, database: Database, metrics: Metrics
) -> AsyncIterator[DeliveryWorker]:
    """Opens the worker that sends webhooks; its caller runs it."""
    timeout_seconds, concurrency = settings.webhook_timeout_ms / 1000, settings.webhook_concurrency
    outbox = Outbox(
        database,
        limits=ConcurrencyLimits(concurrency),
        # A worker that has recorded nothing long after its request must have ended counts as dead.
        lease_time=timedelta(seconds=3 * timeout_seconds),
        disable_after=timedelta(hours=settings.webhook_disable_after_hours),
        retention=timedelta(hours=settings.webhook_retention_hours),
    )
    async with (
        open_address_guard(settings, concurrency) as guard,
        WebhookClient.open(guard, timeout_seconds=timeout_seconds, connections=concurrency) as client,
    ):
        yield DeliveryWorker(
            outbox,
            client,
            poll_seconds=settings.webhook_poll_ms / 1000,
            back_off_seconds=settings.webhook_back_off_seconds,
            metrics=metrics,
        )


def main() -> int:
    """Returns the exit code: 2 for an error that the operator has to fix."""
    parser = argparse.ArgumentParser(prog="python -m jobs_service", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve", "webhooks", "migrate"], default="serve")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the port")
    arguments = parser.parse_args()
    if arguments.command == "migrate":
        return _migrate(load(MigrateSettings))
    if arguments.command == "webhooks":
        return run_server("jobs_service webhooks", send_webhooks, load(WebhookSenderSettings), arguments.workers)
    return run_server("jobs_service", serve, load(JobsSettings), arguments.workers)


def _migrate(settings: MigrateSettings) -> int:
    setup_logs()
    try:
        asyncio.run(migrate(settings.database_url.get_secret_value(), passwords=settings.passwords))
    except (OSError, TimeoutError, OperatorError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error) or type(error).__name__
        print(f"migrate: PIPELINE_DATABASE_URL: {reason}", file=sys.stderr)  # noqa: T201 - one line for the operator
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

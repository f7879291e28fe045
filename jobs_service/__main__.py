"""Runs the Jobs server: `python -m jobs_service [--workers N]`, and `python -m jobs_service migrate`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
from pipeline.datasets.v1 import datasets_pb2
from pipeline.estimator.v1 import estimator_pb2
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2
from pipeline.webhooks.v1 import webhooks_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.database.migrate import SchemaTooOld, migrate
from jobs_service.datasets.importer import Importer
from jobs_service.datasets.service import DatasetService
from jobs_service.datasets.storage import Storage
from jobs_service.datasets.store import DatasetStore
from jobs_service.events.store import History
from jobs_service.events.watch import Tailer, Watches
from jobs_service.jobs.service import JobsService
from jobs_service.jobs.store import Store
from jobs_service.notifications.service import NotificationService
from jobs_service.notifications.store import NotificationStore
from jobs_service.queue.positions import Census
from jobs_service.queue.service import WorkerService
from jobs_service.queue.store import Life
from jobs_service.queue.sweeper import Sweeper
from jobs_service.settings import JobsSettings, MigrateSettings
from jobs_service.webhooks.addresses import Guard
from jobs_service.webhooks.dispatcher import Dispatcher
from jobs_service.webhooks.sender import Sender, open_resolver
from jobs_service.webhooks.service import WebhookService
from jobs_service.webhooks.store import Outbox, WebhookStore
from rpc.boundary import Boundary
from rpc.channels import open_channel
from rpc.database.pool import Database
from rpc.grpc_server import Services, grpc_server
from rpc.identity.jwks import open_verifier
from rpc.process.lifetime import until_stopped
from rpc.process.logs import setup_logs
from rpc.process.settings import load
from rpc.process.tls import channel_credentials
from rpc.process.workers import run_server

# Names of webhooks that are looked up at once while their owners wait.
CHECK_THREADS = 8
ESTIMATOR = estimator_pb2.DESCRIPTOR.services_by_name["EstimatorService"]


@asynccontextmanager
async def open_services(settings: JobsSettings, database: Database, estimator: Any) -> AsyncIterator[Services]:
    """The services of this process, and their background tasks as long as its body runs.

    `estimator` is a channel to the Estimator, of either kind.
    """
    store = Store(database, max_open_jobs=settings.max_open_jobs, max_attempts=settings.max_attempts)
    retention = timedelta(hours=settings.event_retention_hours)
    life, history = Life(database, lease_time=timedelta(milliseconds=settings.lease_ms)), History(database)
    tailer = Tailer(history, poll_seconds=settings.watch_poll_ms / 1000)
    storage = Storage(settings.storage_url)
    datasets = DatasetStore(
        database,
        storage,
        max_per_user=settings.max_datasets_per_user,
        max_bytes_per_user=settings.max_storage_bytes_per_user,
    )
    sweeper = Sweeper(life, history, every_seconds=settings.sweep_ms / 1000, retention=retention)
    watches = Watches(store, history, tailer, ping_seconds=settings.watch_ping_ms / 1000, retention=retention)
    jobs = JobsService(store, EstimatorServiceStub(estimator), life, history, Census(history), watches)
    notifications = NotificationService(NotificationStore(database))
    async with (
        Importer.open(storage, max_bytes=settings.max_dataset_bytes) as importer,
        open_webhooks(settings, database) as webhooks,
    ):
        running = {"tail": tailer.run(), "sweep": sweeper.run(), "sweep-files": datasets.run()}
        tasks = [asyncio.create_task(each, name=name) for name, each in running.items()]
        served: Services = {
            jobs_pb2.DESCRIPTOR.services_by_name["JobsService"]: jobs,
            workers_pb2.DESCRIPTOR.services_by_name["WorkerService"]: WorkerService(life, settings),
            datasets_pb2.DESCRIPTOR.services_by_name["DatasetService"]: DatasetService(datasets, importer),
            notifications_pb2.DESCRIPTOR.services_by_name["NotificationService"]: notifications,
            webhooks_pb2.DESCRIPTOR.services_by_name["WebhookService"]: webhooks,
        }
        try:
            yield served
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_webhooks(settings: JobsSettings, database: Database) -> AsyncIterator[WebhookService]:
    """The service of webhooks, and the task that sends them as long as its body runs."""
    timeout_seconds = settings.webhook_timeout_ms / 1000
    async with AsyncExitStack() as stack:

        async def guard(threads: int) -> Guard:
            return Guard(
                await stack.enter_async_context(open_resolver(threads)),
                ports=settings.webhook_ports,
                refused=settings.webhook_refused_networks,
                allow_private=settings.webhook_allow_private,
            )

        sender = await stack.enter_async_context(
            Sender.open(
                await guard(settings.webhook_concurrency),
                timeout_seconds=timeout_seconds,
                connections=settings.webhook_concurrency,
            )
        )
        store = WebhookStore(
            database,
            max_per_user=settings.webhook_max_per_user,
            max_uses_per_hour=settings.webhook_uses_per_hour,
        )
        outbox = Outbox(
            database,
            # A sender that has written nothing down when its request must be long over is dead.
            lease_time=timedelta(seconds=3 * timeout_seconds),
            disable_after=timedelta(hours=settings.webhook_disable_after_hours),
        )
        dispatcher = Dispatcher(
            outbox,
            sender,
            concurrency=settings.webhook_concurrency,
            poll_seconds=settings.webhook_poll_ms / 1000,
            back_off_seconds=settings.webhook_back_off_seconds,
            retention=timedelta(hours=settings.webhook_retention_hours),
        )
        task = asyncio.create_task(dispatcher.run(), name="webhooks")
        try:
            # Names that callers ask about wait for one another, and hold up nothing that is on its way.
            yield WebhookService(store, await guard(CHECK_THREADS))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def serve(settings: JobsSettings, *, share_port: bool) -> None:
    """Serves until SIGTERM."""
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(Database.open(url, size=settings.database_pool_size))
        verifier = await stack.enter_async_context(open_verifier(settings, database.is_disabled))
        channel = await stack.enter_async_context(
            open_channel(settings.estimator_address, [ESTIMATOR], channel_credentials(settings))
        )
        opened = await stack.enter_async_context(open_services(settings, database, channel))
        boundary = Boundary.from_settings(settings, verifier)
        _, report = await stack.enter_async_context(
            grpc_server(opened, boundary, settings, port=settings.jobs_port, share_port=share_port)
        )
        await until_stopped(asyncio.create_task(database.watch(report), name="watch-database"))


def main() -> int:
    """Returns the exit code: 2 for what only its operator can mend."""
    arguments = argparse.ArgumentParser(prog="python -m jobs_service", description=__doc__)
    arguments.add_argument("command", nargs="?", choices=["serve", "migrate"], default="serve")
    arguments.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the port")
    chosen = arguments.parse_args()
    if chosen.command == "migrate":
        return _migrate(load(MigrateSettings))
    return run_server("jobs_service", serve, load(JobsSettings), chosen.workers)


def _migrate(settings: MigrateSettings) -> int:
    setup_logs()
    try:
        asyncio.run(
            migrate(
                settings.database_url.get_secret_value(), service_password=settings.service_password.get_secret_value()
            )
        )
    except (OSError, TimeoutError, SchemaTooOld, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        what = str(error) or type(error).__name__
        print(f"migrate: PIPELINE_DATABASE_URL: {what}", file=sys.stderr)  # noqa: T201 - one line for the operator
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

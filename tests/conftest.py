"""Shared fixtures: one PostgreSQL, a database for each test, and the real services."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import jwt
import pytest
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from pipeline.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceStub
from pipeline.audit.v1.audit_pb2_grpc import AuditServiceStub
from pipeline.datasets.v1.datasets_pb2_grpc import DatasetServiceStub
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub
from pipeline.jobs.v1.jobs_pb2_grpc import JobsServiceStub
from pipeline.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from pipeline.webhooks.v1.webhooks_pb2_grpc import WebhookServiceStub
from pipeline.workers.v1.workers_pb2_grpc import WorkerServiceStub
from pydantic_settings import BaseSettings

from estimator_service.__main__ import services as estimator_services
from estimator_service.settings import EstimatorSettings
from jobs_service.__main__ import open_delivery_worker
from jobs_service.__main__ import open_services as open_jobs_services
from jobs_service.settings import JobsSettings, WebhookSenderSettings
from rpc.boundary import Boundary
from rpc.channels import open_channel
from rpc.database.pool import Database
from rpc.identity.tokens import SharedSecret, Verifier
from rpc.in_process import LocalChannel
from rpc.limits import RateLimiter
from rpc.process.background import background
from rpc.telemetry.exporters import Telemetry
from rpc.telemetry.metrics import Metrics
from tests.databases import Databases, TestDatabase, postgres
from tests.serving import serving

# Services here log as structlog does by itself, but for this: a picture of each frame of a failure takes half a second.
*before, _ = structlog.get_config()["processors"]
structlog.configure(
    processors=[*before, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
)

# Time tells nothing on a loaded machine.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

SECRET = "a-secret-of-the-tests-that-is-32-bytes-long"
ISSUER, AUDIENCE = "pipeline-tests", "authenticated"


def token(user_id: str | None = None, **claims: Any) -> str:
    """Returns a token of the tests' issuer. Some are made at import, and must last for a slow run."""
    now = int(time.time())
    value = {"iss": ISSUER, "aud": AUDIENCE, "sub": user_id or str(uuid.uuid4()), "iat": now, "exp": now + 7200}
    return jwt.encode({**value, **claims}, SECRET, algorithm="HS256")


def metadata(user_id: str | None = None, **claims: Any) -> list[tuple[str, str]]:
    """Metadata of a signed-in caller."""
    return [("authorization", f"Bearer {token(user_id, **claims)}")]


@pytest.fixture(scope="session")
def databases(worker_id: str) -> Iterator[Databases]:
    """The databases of this process's tests."""
    # Under /tmp itself: pytest's folders are private, and PostgreSQL is another user where we are root.
    folder = Path("/tmp") / f"pipeline-tests-{os.getpid()}-{worker_id}"
    with postgres(folder / "data") as url:
        made = Databases(url)
        asyncio.run(made.prepare())
        yield made
    shutil.rmtree(folder)


@pytest.fixture
async def database(databases: Databases) -> AsyncIterator[TestDatabase]:
    """A database for the test, with all tables and no rows."""
    async with databases.one() as made:
        yield made


@pytest.fixture
async def admin(database: TestDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection that sees every row."""
    connection = await asyncpg.connect(database.admin_url)
    yield connection
    await connection.close()


@dataclass(frozen=True)
class Stack:
    """The services with a stub for each, as a client has them. `services`: the channel and the servicer of each."""

    estimator: EstimatorServiceStub
    jobs: JobsServiceStub
    datasets: DatasetServiceStub
    notifications: NotificationServiceStub
    workers: WorkerServiceStub
    webhooks: WebhookServiceStub
    api_keys: ApiKeyServiceStub
    audit: AuditServiceStub
    estimator_channel: Any
    jobs_channel: Any
    services: Mapping[ServiceDescriptor, tuple[Any, Any]]
    # Where the Jobs services listen; empty where nothing does.
    jobs_address: str
    # Told to the streams of the Jobs services when they stop.
    draining: asyncio.Event
    metrics: Metrics


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Settings of the Jobs service; modules override this fixture."""
    return {}


@pytest.fixture(params=["grpc", pytest.param("local", marks=pytest.mark.slow)])
async def stack(
    request: pytest.FixtureRequest, database: TestDatabase, tmp_path: Path, jobs_overrides: dict[str, Any]
) -> AsyncIterator[Stack]:
    """Both services, once over gRPC and once in process."""
    async with open_stack(request.param, database.url, tmp_path, **jobs_overrides) as opened:
        yield opened


@asynccontextmanager
async def open_stack(
    way: str, database_url: str, folder: Path, *, sends_webhooks: bool = False, **jobs_overrides: Any
) -> AsyncIterator[Stack]:
    """Both services, `grpc` or `local`, and with `sends_webhooks` what sends them. `jobs_overrides`: settings of these."""
    common = {"database_url": database_url, "jwt_secret": SECRET, "jwt_issuer": ISSUER, "drain_seconds": 1}
    estimator_settings = EstimatorSettings(**common)
    usual = {"storage_url": f"file://{folder}/storage", "max_concurrent_calls": 256}
    jobs_settings = JobsSettings(**common, **{**usual, **_fields(JobsSettings, jobs_overrides)})
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(Database.open(database_url, size=4))
        # The database is a copy of one that was checked: the check costs as much as most tests.
        pool._is_guarded = True
        verifier = Verifier(
            SharedSecret(SECRET),
            issuer=ISSUER,
            audience=AUDIENCE,
            is_disabled=pool.is_disabled,
            find_api_key=pool.find_api_key,
            rates=RateLimiter(jobs_settings.user_calls_per_second),
        )

        async def serve(services: Any) -> tuple[Any, str, asyncio.Event]:
            boundary = Boundary(jobs_settings, verifier, Telemetry(metrics))
            if way == "local":
                channel = LocalChannel(boundary)
                for descriptor, servicer in services.items():
                    channel.add_service(descriptor, servicer)
                return channel, "", boundary.draining
            address = await opened.enter_async_context(serving(services, boundary, jobs_settings))
            return await opened.enter_async_context(open_channel(address, services)), address, boundary.draining

        metrics = Metrics()
        pricing = estimator_services(estimator_settings, pool, metrics)
        estimator, _, _ = await serve(pricing)
        queueing = await opened.enter_async_context(open_jobs_services(jobs_settings, pool, estimator, metrics))
        sender_settings = WebhookSenderSettings(
            database_url=database_url, **_fields(WebhookSenderSettings, jobs_overrides)
        )
        if sends_webhooks:
            await opened.enter_async_context(sending(sender_settings, pool, metrics))
        jobs, address, draining = await serve(queueing)
        yield Stack(
            EstimatorServiceStub(estimator),
            JobsServiceStub(jobs),
            DatasetServiceStub(jobs),
            NotificationServiceStub(jobs),
            WorkerServiceStub(jobs),
            WebhookServiceStub(jobs),
            ApiKeyServiceStub(jobs),
            AuditServiceStub(jobs),
            estimator,
            jobs,
            {
                **{service: (estimator, servicer) for service, servicer in pricing.items()},
                **{service: (jobs, servicer) for service, servicer in queueing.items()},
            },
            address,
            draining,
            metrics,
        )


def _fields(settings: type[BaseSettings], overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in overrides.items() if name in settings.model_fields}


@asynccontextmanager
async def sending(
    settings: WebhookSenderSettings, pool: Database, metrics: Metrics | None = None
) -> AsyncIterator[None]:
    """Sends webhooks while its body runs."""
    async with (
        open_delivery_worker(settings, pool, metrics or Metrics()) as worker,
        background({"webhooks": worker.run()}),
    ):
        yield


NewDataset = Callable[..., Any]


@pytest.fixture
def new_dataset(admin: asyncpg.Connection) -> NewDataset:
    """Creates a dataset of a user and returns its id."""

    async def make(user_id: str, **columns: Any) -> str:
        return await insert_dataset(admin, user_id, **columns)

    return make


async def insert_dataset(connection: asyncpg.Connection, user_id: str, **columns: Any) -> str:
    """Inserts a ready dataset, with `columns` overridden; returns its id."""
    row = {
        "user_id": user_id,
        "name": "Questions",
        "status": "ready",
        "training_ready": True,
        "total_training_pairs": 5000,
        "total_tokens": 1_250_000,
        "format": "messages",
        **columns,
    }
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    statement = f"insert into lora_datasets ({', '.join(row)}) values ({places}) returning id"
    return str(await connection.fetchval(statement, *row.values()))

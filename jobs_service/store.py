"""Jobs, datasets and notifications in Postgres: row ↔ model. With `migrate`, the only file that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar
from uuid import UUID

import asyncpg
import orjson

from jobs_service.dataset import Dataset, DatasetStatus
from jobs_service.importer import Imported
from jobs_service.job import Configuration, Job, JobState, Price
from jobs_service.notification import Notification
from rpc.database import Database, Transaction, load_queries
from rpc.errors import (
    DatasetNotFound,
    DatasetNotReady,
    IdempotencyKeyReused,
    JobNotFound,
    NotificationNotFound,
    ServiceError,
)
from rpc.identity import Identity

SQL = load_queries("jobs_service", "queries.sql")
# What breaking a constraint means to the caller. Any other one broken is a bug of ours, and answered as such.
CONSTRAINTS: dict[str, Callable[[], ServiceError]] = {"lora_training_jobs_dataset_fkey": DatasetNotFound}
JSON_COLUMNS = frozenset({"hyperparameters", "gpu_config", "current_metrics", "metadata", "validation_errors"})

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A page of a list, and how many there are in all."""

    items: Sequence[Item]
    total: int


class Store:
    """What the Jobs service keeps. Every method acts as its caller, under row-level security."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_request(self, caller: Identity, request_id: UUID, wanted: Configuration) -> Job | None:
        """The job that an idempotency key made before, if any. Raises IdempotencyKeyReused."""
        async with self._as_caller(caller) as connection:
            row = await connection.fetchrow(SQL["find_request"], request_id)
        return row and _same_request(row, wanted)

    async def create_job(self, caller: Identity, wanted: Configuration, price: Price, request_id: UUID | None) -> Job:
        """Creates a job and its notification, or finds the job that the same request made before.

        Raises DatasetNotFound, DatasetNotReady, IdempotencyKeyReused.
        """
        async with self._as_caller(caller) as connection:
            row = await connection.fetchrow(
                SQL["create_job"],
                wanted.dataset_id,
                wanted.preset_id,
                orjson.dumps(wanted.hyperparameters).decode(),
                orjson.dumps(wanted.gpu_config).decode(),
                wanted.hyperparameters["epochs"],
                price.total_steps,
                price.estimated_total_cost,
                wanted.client_estimated_cost,
                price.hourly_rate,
                request_id,
                wanted.digest() if request_id else None,
            )
            if row is None:
                # The Estimator found it ready a moment ago: it changed in between.
                dataset = await self._get_dataset(connection, wanted.dataset_id)
                raise DatasetNotReady(status=dataset.status, training_ready=dataset.training_ready)
        return _job(row) if row["created"] else _same_request(row, wanted)

    async def get_job(self, caller: Identity, job_id: UUID) -> Job:
        """Raises JobNotFound."""
        async with self._as_caller(caller) as connection:
            row = await connection.fetchrow(SQL["get_job"], job_id)
        if row is None:
            raise JobNotFound
        return _job(row)

    async def list_jobs(self, caller: Identity, *, page: int, limit: int, status: str | None) -> Page[Job]:
        """The caller's jobs, newest first."""
        statuses = [status] if status else [*JobState]
        async with self._as_caller(caller) as connection:
            rows = await connection.fetch(SQL["list_jobs"], statuses, limit, (page - 1) * limit)
        return _page(rows, _job)

    async def create_dataset(
        self,
        caller: Identity,
        dataset_id: UUID,
        name: str,
        description: str | None,
        file_name: str | None,
        file: Imported,
    ) -> Dataset:
        """Records an imported file: `ready`, or `error` where it has bad lines."""
        status = DatasetStatus.ERROR if file.error_count else DatasetStatus.READY
        errors = [{"line": error.line, "reason": error.reason} for error in file.errors]
        async with self._as_caller(caller) as connection:
            row = await connection.fetchrow(
                SQL["create_dataset"],
                dataset_id,
                name,
                description,
                file.format,
                status,
                file.training_pairs,
                file.validation_pairs,
                file.tokens,
                file.p50_tokens,
                file.p95_tokens,
                file.longest_tokens,
                file.storage_bucket,
                file.storage_path,
                file_name,
                file.file_size,
                orjson.dumps(errors).decode(),
                file.error_count,
            )
        return _dataset(row)

    async def get_dataset(self, caller: Identity, dataset_id: UUID) -> Dataset:
        """Raises DatasetNotFound."""
        async with self._as_caller(caller) as connection:
            return await self._get_dataset(connection, dataset_id)

    async def list_datasets(
        self, caller: Identity, *, page: int, limit: int, status: str | None, search: str
    ) -> Page[Dataset]:
        """The caller's datasets, newest first; `search` is part of a name in any case."""
        statuses = [status] if status else [*DatasetStatus]
        async with self._as_caller(caller) as connection:
            rows = await connection.fetch(SQL["list_datasets"], statuses, limit, (page - 1) * limit, search)
        return _page(rows, _dataset)

    async def list_notifications(
        self, caller: Identity, *, page: int, limit: int, unread: bool
    ) -> tuple[Page[Notification], int]:
        """The caller's notifications, newest first, and how many they have not read."""
        async with self._as_caller(caller) as connection:
            rows = await connection.fetch(SQL["list_notifications"], unread, limit, (page - 1) * limit)
        return _page(rows, _notification), rows[0]["unread"]

    async def mark_notification_read(self, caller: Identity, notification_id: UUID) -> Notification:
        """Raises NotificationNotFound."""
        async with self._as_caller(caller) as connection:
            row = await connection.fetchrow(SQL["mark_notification_read"], notification_id)
        if row is None:
            raise NotificationNotFound
        return _notification(row)

    @asynccontextmanager
    async def _as_caller(self, caller: Identity) -> AsyncIterator[Transaction]:
        try:
            async with self._database.as_caller(caller) as connection:
                yield connection
        except asyncpg.IntegrityConstraintViolationError as error:
            if error.constraint_name in CONSTRAINTS:
                raise CONSTRAINTS[error.constraint_name]() from error
            raise

    async def _get_dataset(self, connection: Transaction, dataset_id: UUID) -> Dataset:
        row = await connection.fetchrow(SQL["get_dataset"], dataset_id)
        if row is None:
            raise DatasetNotFound
        return _dataset(row)


def _same_request(row: asyncpg.Record, wanted: Configuration) -> Job:
    if row["request_digest"] != wanted.digest():
        raise IdempotencyKeyReused(job_id=str(row["id"]))
    return _job(row)


def _page(rows: Sequence[asyncpg.Record], model: Callable[[asyncpg.Record], Item]) -> Page[Item]:
    return Page([model(row) for row in rows if row["id"] is not None], rows[0]["total"])


def _model(cls: Any) -> Callable[[asyncpg.Record], Any]:
    names = [(field.name, field.name in JSON_COLUMNS) for field in fields(cls)]

    def build(row: asyncpg.Record) -> Any:
        return cls(*[orjson.loads(row[name] or "[]") if is_json else row[name] for name, is_json in names])

    return build


_job: Callable[[asyncpg.Record], Job] = _model(Job)
_dataset: Callable[[asyncpg.Record], Dataset] = _model(Dataset)
_notification: Callable[[asyncpg.Record], Notification] = _model(Notification)

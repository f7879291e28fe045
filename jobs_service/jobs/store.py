"""Jobs as their owners see them, and notifications, in Postgres: row ↔ model.

With `life` (how jobs move), `history` (what happened), `dataset_store`, `outbox` (webhooks) and `migrate`, the only files that
talk to Postgres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import asyncpg

from jobs_service.database.rows import Page, as_caller, as_json, call_as, columns, page_of, reader
from jobs_service.datasets.model import DatasetStatus
from jobs_service.errors import DatasetNotFound, DatasetNotReady, IdempotencyKeyReused, JobNotFound, OpenJobsLimit
from jobs_service.events.model import NOTHING, Seen, parse_seen
from jobs_service.jobs.model import Configuration, Job, JobState, Price
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import Identity

SQL = load_queries("jobs_service.jobs", "queries.sql")
ALL_STATES = [*JobState]


class Store:
    """What the Jobs service keeps. Every method acts as its caller, under row-level security."""

    def __init__(self, database: Database, *, max_open_jobs: int, max_attempts: int) -> None:
        self._database = database
        self._max_open_jobs = max_open_jobs
        self._max_attempts = max_attempts

    async def find_request(self, caller: Identity, request_id: UUID, wanted: Configuration) -> Job | None:
        """The job that an idempotency key made before, if any. Raises IdempotencyKeyReused."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["find_request"], request_id)
        return row and _same_request(row, wanted)

    async def create_job(self, caller: Identity, wanted: Configuration, price: Price, request_id: UUID | None) -> Job:
        """Creates a job and its notification, or finds the job that the same request made before.

        Raises DatasetNotFound, DatasetNotReady, IdempotencyKeyReused, OpenJobsLimit.
        """
        row = {
            **columns(wanted),
            **columns(price.forecast),
            "estimated_total_cost": price.estimated_total_cost,
            "hourly_rate": price.hourly_rate,
            "total_steps": price.total_steps,
            "estimate": price.estimate,
            "request_id": request_id,
            "request_digest": wanted.digest() if request_id else None,
            "total_epochs": wanted.hyperparameters["epochs"],
            "max_attempts": self._max_attempts,
        }
        rows = await call_as(self._database, caller, SQL["create_job"], as_json(row), self._max_open_jobs)
        if rows:
            return _same_request(rows[0], wanted)
        async with as_caller(self._database, caller) as connection:
            earlier = request_id and await connection.fetchrow(SQL["find_request"], request_id)
            if earlier:
                return _same_request(earlier, wanted)
            # The Estimator found it ready a moment ago: it changed in between, or this is a job too many.
            dataset = await connection.fetchrow(SQL["readiness"], wanted.dataset_id)
        if dataset is None:
            raise DatasetNotFound
        if dataset["status"] == DatasetStatus.READY and dataset["training_ready"]:
            raise OpenJobsLimit(limit=self._max_open_jobs)
        raise DatasetNotReady(**dataset)

    async def get_job(self, caller: Identity, job_id: UUID) -> Job:
        """Raises JobNotFound."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["get_job"], job_id)
        return _found(row, _job, JobNotFound)

    async def get_job_by_request(self, caller: Identity, request_id: UUID) -> Job:
        """Raises JobNotFound."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["find_request"], request_id)
        return _found(row, _job, JobNotFound)

    async def list_jobs(self, caller: Identity, *, page: int, limit: int, status: str | None) -> Page[Job]:
        """The caller's jobs, newest first."""
        statuses = [status] if status else ALL_STATES
        rows = await call_as(self._database, caller, SQL["list_jobs"], statuses, limit, (page - 1) * limit)
        return page_of(rows, _job)

    async def snapshot(self, caller: Identity, job_id: UUID | None, *, limit: int) -> tuple[Sequence[Job], Seen]:
        """One of the caller's jobs, or the newest of all, and what is in that picture. Raises JobNotFound."""
        async with as_caller(self._database, caller) as connection:
            if job_id is not None:
                row = await connection.fetchrow(SQL["get_job"], job_id)
                return [_found(row, _job, JobNotFound)], _seen(row) if row else NOTHING
            rows = await connection.fetch(SQL["newest_jobs"], limit)
        return [_job(row) for row in rows if row["id"] is not None], _seen(rows[0])


Model = TypeVar("Model")


def _found(row: asyncpg.Record | None, read: Callable[[asyncpg.Record], Model], absent: type[Exception]) -> Model:
    if row is None:
        raise absent
    return read(row)


def _same_request(row: asyncpg.Record, wanted: Configuration) -> Job:
    if row["request_id"] and row["request_digest"] != wanted.digest():
        raise IdempotencyKeyReused("job", str(row["id"]))
    return _job(row)


_job: Callable[[asyncpg.Record], Job] = reader(Job)


def _seen(row: asyncpg.Record) -> Seen:
    return parse_seen(row["seen"], row["latest"])

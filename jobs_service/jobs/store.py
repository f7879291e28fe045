"""Jobs in Postgres, as their owners see them: row ↔ model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn
from uuid import UUID

import asyncpg
import orjson

from jobs_service.database.rows import Page, as_caller, as_json, call_as, columns, reader
from jobs_service.datasets.model import DatasetStatus
from jobs_service.errors import (
    DatasetNotFound,
    DatasetNotReady,
    IdempotencyKeyReused,
    InvalidTransition,
    JobNotFound,
    OpenJobsLimit,
)
from jobs_service.jobs.model import Configuration, Job, JobFilter, JobState, Price
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import Identity
from rpc.identity.origin import origin_claims

SQL = load_queries("jobs_service.jobs", "queries.sql")
ALL_STATES = [*JobState]


@dataclass(frozen=True, slots=True)
class JobPage(Page[Job]):
    """A page of jobs. `status_counts`: jobs of each status that match all filters but the status."""

    status_counts: Mapping[str, int]


class JobStore:
    """Creates and reads jobs. Every method acts as its caller, under row-level security."""

    def __init__(self, database: Database, *, max_open_jobs: int, max_attempts: int) -> None:
        self._database = database
        self._max_open_jobs = max_open_jobs
        self._max_attempts = max_attempts

    async def create(
        self, caller: Identity, configuration: Configuration, price: Price, idempotency_key: UUID | None
    ) -> Job:
        """Creates a job, its event and its notification, or returns the job that the same request created before.

        Raises DatasetNotFound, DatasetNotReady, IdempotencyKeyReused, OpenJobsLimit.
        """
        row = {
            **columns(configuration),
            **columns(price.forecast),
            "base_model": price.base_model,
            "estimated_total_cost": price.estimated_total_cost,
            "hourly_rate": price.hourly_rate,
            "storage_usd": price.storage_usd,
            "total_steps": price.total_steps,
            "estimate": price.estimate,
            "idempotency_key": idempotency_key,
            "request_digest": configuration.digest() if idempotency_key else None,
            "total_epochs": configuration.hyperparameters["epochs"],
            "max_attempts": self._max_attempts,
        }
        rows = await call_as(
            self._database, caller, SQL["create_job"], as_json(row), self._max_open_jobs, origin_claims(caller)
        )
        if not rows:
            await self._explain_refusal(caller, configuration)
        return _same_request(rows[0], configuration)

    async def _explain_refusal(self, caller: Identity, configuration: Configuration) -> NoReturn:
        # A dataset has changed since the Estimator read it, or the user has too many open jobs.
        async with as_caller(self._database, caller) as connection:
            datasets = await connection.fetch(SQL["dataset_status"], configuration.dataset_ids)
        if len(datasets) < len(configuration.dataset_ids):
            raise DatasetNotFound
        for dataset in datasets:
            if dataset["status"] != DatasetStatus.READY or not dataset["training_ready"]:
                raise DatasetNotReady(**dataset)
        raise OpenJobsLimit(limit=self._max_open_jobs)

    async def find_request(self, caller: Identity, idempotency_key: UUID, configuration: Configuration) -> Job | None:
        """Returns the job that an idempotency key created, if any. Raises IdempotencyKeyReused."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["find_request"], idempotency_key)
        return row and _same_request(row, configuration)

    async def get(self, caller: Identity, job_id: UUID) -> Job:
        """Raises JobNotFound."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["get_job"], job_id)
        return _existing(row)

    async def get_by_request(self, caller: Identity, idempotency_key: UUID) -> Job:
        """Raises JobNotFound."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["find_request"], idempotency_key)
        return _existing(row)

    async def list(self, caller: Identity, query: JobFilter, *, page: int, limit: int) -> JobPage:
        """Returns a page of the caller's jobs."""
        statuses = [query.status] if query.status else ALL_STATES
        rows = await call_as(
            self._database,
            caller,
            SQL["list_jobs"],
            statuses,
            query.labels,
            query.base_model,
            query.search,
            query.sort,
            query.is_ascending,
            limit,
            (page - 1) * limit,
        )
        counts = orjson.loads(rows[0]["status_counts"] or "{}")
        total = sum(counts.get(status, 0) for status in statuses)
        return JobPage([read_job(row) for row in rows if row["id"] is not None], total, counts)

    async def update(self, caller: Identity, job_id: UUID, *, name: str | None, labels: Sequence[str]) -> Job:
        """Replaces a job's name and labels. Raises JobNotFound."""
        async with as_caller(self._database, caller) as connection:
            await connection.execute(SQL["update_job"], job_id, name, labels)
            row = await connection.fetchrow(SQL["get_job"], job_id)
        return _existing(row)

    async def delete(self, caller: Identity, job_id: UUID) -> None:
        """Hides a final job. Raises JobNotFound, InvalidTransition."""
        async with as_caller(self._database, caller) as connection:
            if await connection.fetchval(SQL["delete_job"], job_id):
                return
            job = _existing(await connection.fetchrow(SQL["get_job"], job_id))
        raise InvalidTransition(
            f"Only a job in a final state can be deleted; this one is {job.status}. Cancel it first.", status=job.status
        )


def _existing(row: asyncpg.Record | None) -> Job:
    if row is None:
        raise JobNotFound
    return read_job(row)


def _same_request(row: asyncpg.Record, configuration: Configuration) -> Job:
    if row["idempotency_key"] and row["request_digest"] != configuration.digest():
        raise IdempotencyKeyReused("job", str(row["id"]))
    return read_job(row)


read_job = reader(Job)

"""Events, metrics and snapshots of jobs in Postgres: row ↔ model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import asyncpg
import orjson

from jobs_service.database.rows import Page, as_caller, read_page, reader
from jobs_service.errors import JobNotFound
from jobs_service.events.model import Cursor, EventType, JobEvent, MetricPoint, SnapshotVersion, parse_version
from jobs_service.jobs.model import Job, JobState
from jobs_service.jobs.store import read_job
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import SYSTEM, Identity

SQL = load_queries("jobs_service.events", "queries.sql")
# Most events, and most bytes of log lines, in one read or page. They keep a message below its size limit.
BATCH, LOG_BYTES = 500, 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Position:
    """The end of the events at a time `at`: no event will appear before `safe`, and no event is at or beyond `next`.

    `safe` is the cursor of an event, since a committed event keeps its number through a crash.
    """

    safe: Cursor
    next: int
    at: datetime


class Tail(NamedTuple):
    """Events, the cursor up to which they are complete, and whether there are more.

    `behind_seconds`: age of the oldest event that waits for an open transaction to end; 0 if there is none.
    """

    events: Sequence[JobEvent]
    position: Cursor
    more: bool
    behind_seconds: float


class EventStore:
    """Reads events, metrics and snapshots, and deletes old events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def position(self) -> Position:
        """Returns the end of all users' events."""
        async with as_caller(self._database, SYSTEM) as connection:
            (row,) = await connection.fetch(SQL["position"])
        return Position(Cursor(row["xid"], row["seq"], _ms(row["at"])), row["next"], row["at"])

    async def tail(self, after: Cursor) -> Tail:
        """Returns all users' next events."""
        async with as_caller(self._database, SYSTEM) as connection:
            rows = await connection.fetch(SQL["tail_events"], str(after.xid), after.seq, BATCH, LOG_BYTES)
        events = [_event(row) for row in rows if row["xid"] is not None]
        more = bool(rows[-1]["full"])
        last = events[-1].cursor if events else after
        position = last if more else Cursor(last.xid, last.seq, _ms(rows[0]["read_at"]))
        return Tail(events, position, more, max(0.0, rows[0]["behind_seconds"] or 0.0))

    async def between(
        self, caller: Identity, after: Cursor, until: Cursor, job_id: UUID | None
    ) -> AsyncGenerator[JobEvent, None]:
        """Yields the caller's events after one cursor and up to another, of one job or of all."""
        while True:
            async with as_caller(self._database, caller) as connection:
                cursors = str(after.xid), after.seq, str(until.xid), until.seq
                rows = await connection.fetch(SQL["events_between"], *cursors, job_id, BATCH, LOG_BYTES)
            for row in rows:
                yield _event(row)
            if not rows or not rows[-1]["full"]:
                return
            after = _cursor(rows[-1])

    async def has_more(self, caller: Identity, job_id: UUID, after: Cursor) -> bool:
        """Whether one of the caller's jobs has an event after a cursor."""
        async with as_caller(self._database, caller) as connection:
            return bool(await connection.fetchval(SQL["has_events_after"], job_id, str(after.xid), after.seq))

    async def list_events(self, caller: Identity, job_id: UUID, *, page: int, limit: int) -> Page[JobEvent]:
        """Returns a page of a job's events, newest first; an empty one if the job is not the caller's."""
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(SQL["list_events"], job_id, limit, (page - 1) * limit, LOG_BYTES)
        return read_page(rows, _event, key="xid")

    async def list_metrics(
        self, caller: Identity, job_id: UUID, *, max_points: int
    ) -> tuple[Sequence[MetricPoint], int]:
        """Returns a job's metrics by step and their number in all; none if the job is not the caller's."""
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(SQL["list_metrics"], job_id, max_points)
        return [_metric(row) for row in rows], rows[0]["total"] if rows else 0

    async def snapshot(
        self, caller: Identity, job_id: UUID | None, *, limit: int
    ) -> tuple[Sequence[Job], SnapshotVersion]:
        """Returns one of the caller's jobs, or the newest `limit`, and the snapshot's version. Raises JobNotFound."""
        async with as_caller(self._database, caller) as connection:
            if job_id is not None:
                rows = await connection.fetch(SQL["job_snapshot"], job_id)
            else:
                rows = await connection.fetch(SQL["jobs_snapshot"], limit)
        if not rows:
            raise JobNotFound
        version = parse_version(rows[0]["visible"], rows[0]["latest"])
        return [read_job(row) for row in rows if row["id"] is not None], version

    async def prune(self, age: timedelta) -> int:
        """Deletes reports of progress older than `age`, up to a few thousand. Returns how many."""
        async with as_caller(self._database, SYSTEM) as connection:
            tag: str = await connection.execute(SQL["prune_events"], age, 5_000)
        return int(tag.split()[-1])


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _cursor(row: asyncpg.Record) -> Cursor:
    return Cursor(row["xid"], row["seq"], _ms(row["created_at"]))


def _event(row: asyncpg.Record) -> JobEvent:
    return JobEvent(
        cursor=_cursor(row),
        job_id=row["job_id"],
        user_id=row["user_id"],
        revision=row["revision"],
        type=EventType(row["type"]),
        status=JobState(row["status"]),
        data=orjson.loads(row["data"]),
        created_at=row["created_at"],
    )


_metric = reader(MetricPoint)

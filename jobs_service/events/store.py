"""What happened to jobs, as Postgres has it: events, metrics, places in the queue."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import orjson

from jobs_service.database.rows import Page, as_caller, page_of, reader
from jobs_service.events.model import Cursor, EventType, JobEvent, MetricPoint
from jobs_service.jobs.model import JobState
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import SYSTEM, Identity

SQL = load_queries("jobs_service.events", "queries.sql")
# Events read at once, and log lines with them, bytes. So many a page of events has room for as well: with all else of a
# hundred events a message stays below its limit.
BATCH, LOG_BYTES = 500, 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Position:
    """Where the events stand: `safe` is a place that no event will appear before; numbers from `next` on are not given yet.

    Places are those of events: what has an event is on disk, and no crash takes it or its number back.
    """

    safe: Cursor
    next: int
    at: datetime


class History:
    """Reads what happened."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def position(self) -> Position:
        """Where the events of all stand now."""
        async with as_caller(self._database, SYSTEM) as connection:
            (row,) = await connection.fetch(SQL["position"])
        return Position(Cursor(row["xid"], row["seq"], _ms(row["at"])), row["next"], row["at"])

    async def tail(self, after: Cursor) -> tuple[list[JobEvent], Cursor, bool]:
        """All users' next events, the place up to which that is all, and whether there are more at once."""
        async with as_caller(self._database, SYSTEM) as connection:
            rows = await connection.fetch(SQL["tail_events"], str(after.xid), after.seq, BATCH, LOG_BYTES)
        events = [_event(row) for row in rows if row["xid"] is not None]
        more = bool(rows[-1]["full"])
        last = events[-1].cursor if events else after
        return events, last if more else Cursor(last.xid, last.seq, _ms(rows[0]["read_at"])), more

    async def between(
        self, caller: Identity, after: Cursor, until: Cursor, job_id: UUID | None
    ) -> AsyncGenerator[JobEvent, None]:
        """The caller's events after one place and up to another; of one job, or of all."""
        while True:
            async with as_caller(self._database, caller) as connection:
                places = str(after.xid), after.seq, str(until.xid), until.seq
                rows = await connection.fetch(SQL["events_between"], *places, job_id, BATCH, LOG_BYTES)
            for row in rows:
                yield _event(row)
            if not rows or not rows[-1]["full"]:
                return
            after = _cursor(rows[-1])

    async def has_more(self, caller: Identity, job_id: UUID, after: Cursor) -> bool:
        """Whether a job of the caller's has an event after a place."""
        async with as_caller(self._database, caller) as connection:
            return bool(await connection.fetchval(SQL["has_events_after"], job_id, str(after.xid), after.seq))

    async def list_events(self, caller: Identity, job_id: UUID, *, page: int, limit: int) -> Page[JobEvent]:
        """A job's events, newest first; none where it is not the caller's."""
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(SQL["list_events"], job_id, limit, (page - 1) * limit, LOG_BYTES)
        return page_of(rows, _event, key="xid")

    async def list_metrics(
        self, caller: Identity, job_id: UUID, *, max_points: int
    ) -> tuple[Sequence[MetricPoint], int]:
        """A job's metrics by step, and how many there are; none where it is not the caller's."""
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(SQL["list_metrics"], job_id, max_points)
        return [_metric(row) for row in rows], rows[0]["total"] if rows else 0

    async def prune(self, age: timedelta) -> int:
        """Forgets reports of progress older than that, up to a few thousand. Returns how many."""
        async with as_caller(self._database, SYSTEM) as connection:
            done: str = await connection.execute(SQL["prune_events"], age, 5_000)
        return int(done.split()[-1])

    async def census(self) -> tuple[list[tuple[str, UUID, int]], Mapping[str, int]]:
        """How many jobs of each GPU type and user wait, and how many GPUs of each type a trainer offered of late."""
        async with as_caller(self._database, SYSTEM) as connection:
            waiting = await connection.fetch(SQL["queue_census"])
            offers = await connection.fetch(SQL["offers_of_late"])
        return [tuple(row) for row in waiting], {row["gpu_type"]: row["gpus"] for row in offers}


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

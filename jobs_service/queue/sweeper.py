"""The background task that ends leases which ran out, stops jobs at their limits, and deletes old events and offers."""

from __future__ import annotations

import time
from datetime import timedelta

import structlog

from jobs_service.database.rows import as_caller
from jobs_service.events.model import EventType
from jobs_service.events.store import EventStore
from jobs_service.jobs.model import JobState
from jobs_service.notifications.templates import FAILED, LEASE_LOST
from jobs_service.queue import changes
from jobs_service.queue.changes import BATCH, write_transition
from jobs_service.queue.metrics import QueueMetrics
from jobs_service.queue.model import Outcome
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import SYSTEM
from rpc.process.background import repeat

SQL = load_queries("jobs_service.queue", "queries.sql")
PRUNE_SECONDS = 60.0
PASS_TIMEOUT_SECONDS = 15.0

log = structlog.get_logger()


class Sweeper:
    """Changes jobs as the system. Several Jobs processes may run one each: each skips rows that another has locked."""

    def __init__(
        self,
        database: Database,
        events: EventStore,
        metrics: QueueMetrics,
        *,
        every_seconds: float,
        retention: timedelta,
    ) -> None:
        """`retention`: age at which reports of progress are deleted."""
        self._database = database
        self._events = events
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._retention = retention
        self._pruned_at = time.monotonic()

    async def run(self) -> None:
        """Sweeps until cancelled."""
        await repeat("sweep", self._sweep, every_seconds=self._every_seconds, timeout_seconds=PASS_TIMEOUT_SECONDS)

    async def expire(self) -> int:
        """Ends leases that ran out: → queued or failed. Returns how many, up to `BATCH`."""
        async with as_caller(self._database, SYSTEM) as connection:
            rows = await connection.fetch(SQL["expire_leases"], BATCH)
            for state, outcome, type_, notifications in (
                (JobState.QUEUED, Outcome.RELEASED, EventType.RELEASED, []),
                (JobState.QUEUED, Outcome.LEASE_EXPIRED, EventType.LEASE_LOST, [LEASE_LOST]),
                (JobState.FAILED, Outcome.LEASE_EXPIRED, EventType.FAILED, [FAILED]),
            ):
                ids = [row["id"] for row in rows if (row["status"], row["status_reason"]) == (state, outcome)]
                await write_transition(connection, ids, type_, notifications=notifications, outcome=outcome)
        for row in rows:
            self._metrics.ended(Outcome(row["status_reason"]), JobState(row["status"]), row)
        return len(rows)

    async def prune_offers(self) -> None:
        """Deletes offers that are an hour old."""
        async with as_caller(self._database, SYSTEM) as connection:
            await connection.execute(SQL["prune_offers"])

    async def _sweep(self) -> None:
        await self._follow_clock()
        while await self.expire() == BATCH:
            pass
        while await self._stop_at_limits() == BATCH:
            pass
        now = time.monotonic()
        if now - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = now
            await self.prune_offers()
            await self._events.prune(self._retention)

    async def _stop_at_limits(self) -> int:
        """Warns of jobs near their cost limit and stops those at a limit. Returns how many it stopped, up to `BATCH`."""
        async with as_caller(self._database, SYSTEM) as connection:
            await changes.warn_of_cost(connection)
            stopped = await changes.stop_at_limits(connection)
        for row in stopped:
            self._metrics.ended(Outcome(row["status_reason"]), JobState.FAILED, row)
        return len(stopped)

    async def _follow_clock(self) -> None:
        """Moves the times of leases that are in the future since the database's clock was set back."""
        async with as_caller(self._database, SYSTEM) as connection:
            rows = await connection.fetch(SQL["follow_clock"], BATCH)
        if rows:
            step = max(row["step"] for row in rows)
            log.warning("clock_set_back", seconds=round(step.total_seconds(), 1), leases=len(rows))

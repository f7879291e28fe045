"""Finished jobs as they correct forecasts, and how good forecasts were.

A person's own jobs count at once. Where five people or more have finished jobs of a kind, everybody's count instead, and
below that nobody else's: no run can be read from another's price.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Generic, TypeVar

import asyncpg

from estimator_service.learning.corrections import Accuracy, Correction, Corrections, FinishedJob, Kind, correct_for
from estimator_service.physics.parameters import fitted
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import Identity

T = TypeVar("T")
SQL = load_queries("estimator_service.learning", "queries.sql")
MIN_USERS = 5
MOST_JOBS = 50  # of a kind, the latest
FRESH_SECONDS = 0.9  # of the caller's own: a job that just finished shows in the next second
SHARED_FRESH_SECONDS = 30.0  # of what is read over all users
CACHE_SIZE = 10_000


class FinishedJobs:
    """Reads finished jobs; keeps what they taught for a moment, each person's own apart from everybody's."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._own: OrderedDict[str, tuple[float, Corrections]] = OrderedDict()
        self._shared = Kept(self._read_shared)
        self._accuracy = Kept(self._read_accuracy)

    async def corrections(self, caller: Identity) -> Corrections:
        """What counts for a caller. Raises DatabaseUnavailable."""
        now = time.monotonic()
        found = self._own.get(caller.user_id)
        if found is not None and now < found[0]:
            return found[1]
        shared = await self._shared.get()
        async with self._database.as_caller(caller) as connection:
            own = await connection.fetch(SQL["own_finished_jobs"], fitted().version)
        corrections = {**_corrections(own), **shared}
        self._own[caller.user_id] = now + FRESH_SECONDS, corrections
        self._own.move_to_end(caller.user_id)
        if len(self._own) > CACHE_SIZE:
            self._own.popitem(last=False)
        return corrections

    async def accuracy(self) -> list[Accuracy]:
        """In all, then by month, the latest first; nothing that comes from fewer than five users."""
        return await self._accuracy.get()

    async def _read_accuracy(self) -> list[Accuracy]:
        rows = await self._database.fetch_as_service(SQL["accuracy"], MIN_USERS)
        return [Accuracy(row["month"], row["jobs"], row["inside"], row["median_error"]) for row in rows]

    async def _read_shared(self) -> Corrections:
        return _corrections(
            await self._database.fetch_as_service(SQL["shared_finished_jobs"], MIN_USERS, fitted().version)
        )


class Kept(Generic[T]):
    """What is read over all users: by one caller at a time, while the others get what was read before."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._until = 0.0
        self._found: T | None = None
        self._reading = asyncio.Lock()

    async def get(self) -> T:
        """Raises what reading raises."""
        if self._found is not None and (time.monotonic() < self._until or self._reading.locked()):
            return self._found
        async with self._reading:
            if self._found is None or time.monotonic() >= self._until:
                self._found = await self._read()
                self._until = time.monotonic() + SHARED_FRESH_SECONDS
            return self._found


def _corrections(rows: Iterable[asyncpg.Record]) -> Corrections:
    kinds: dict[Kind, list[FinishedJob]] = defaultdict(list)
    for row in rows:
        *features, log_gib = row["forecast_slopes"]
        job = FinishedJob(
            row["seconds"],
            row["forecast_seconds"],
            row["forecast_overhead_seconds"],
            row["forecast_correction"],
            tuple(features),
            math.exp(log_gib),
            row["peak_memory_gib"],
        )
        kinds[row["model_family"], row["gpu_type"], row["stack"]].append(job)
    return {kind: _correction(tuple(jobs[:MOST_JOBS])) for kind, jobs in kinds.items()}


@lru_cache(maxsize=1024)
def _correction(jobs: tuple[FinishedJob, ...]) -> Correction:
    """The same jobs teach the same: answers that are remembered by it stay."""
    return correct_for(jobs)

"""Positions of jobs in the queue, why they wait, and the capacity of each GPU type."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from uuid import UUID

import structlog

from jobs_service.database.rows import as_caller
from jobs_service.jobs.model import Job, JobState
from jobs_service.queue.model import GpuCapacity, QueuePosition, WaitingCode
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.errors import ServiceError
from rpc.identity.model import SYSTEM

SQL = load_queries("jobs_service.queue", "queries.sql")
# GPU types whose capacity is counted, those with the most jobs: a trainer's offer may name any type.
MAX_GPU_TYPES = 100
# Seconds for which a count of the queue is used; longer if counting would take more than COUNTING_SHARE of the time.
FRESH_SECONDS = 2.0
COUNTING_SHARE = 0.1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Queue:
    """Number of waiting jobs of each user for one GPU type; these numbers in ascending order; and their running sums."""

    by_user: Mapping[UUID, int]
    ordered: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, by_user: Mapping[UUID, int]) -> _Queue:
        ordered = sorted(by_user.values())
        return cls(by_user, ordered, [0, *accumulate(ordered)])

    def before(self, user: UUID, turns: int) -> int:
        """Returns how many jobs of other users can start before a user's job that is `turns` turns away."""
        fewer = bisect_left(self.ordered, turns)
        of_all_users = self.sums[fewer] + turns * (len(self.ordered) - fewer)
        return of_all_users - min(self.by_user.get(user, 0), turns)


class QueuePositions:
    """Counts the queue for all callers, at most once in `FRESH_SECONDS`. During a count, callers get the previous one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queues: Mapping[str, _Queue] = {}
        self._offers: Mapping[str, int] = {}
        self._capacity: Sequence[GpuCapacity] = ()
        self._good_until = -math.inf
        self._is_counted = False
        # Why the last count failed.
        self._error: ServiceError | None = None
        self._counting = asyncio.Lock()

    async def of(self, jobs: Iterable[Job]) -> dict[UUID, QueuePosition]:
        """Returns the positions of the queued ones among these jobs; none if the queue cannot be counted now.

        A failed count raises nothing: a job is shown without its position.
        """
        queued = [job for job in jobs if job.status == JobState.QUEUED]
        if queued:
            await self._count()
        return {job.id: self._position(job) for job in queued} if self._is_counted else {}

    async def capacity(self) -> Sequence[GpuCapacity]:
        """Returns the capacity of each GPU type. Raises the error of a failed count."""
        await self._count()
        if self._error is not None:
            raise self._error
        return self._capacity

    async def _count(self) -> None:
        loop = asyncio.get_running_loop()
        if self._is_counted and (loop.time() < self._good_until or self._counting.locked()):
            return
        async with self._counting:
            started = loop.time()
            if started < self._good_until:
                return
            self._good_until = started + FRESH_SECONDS
            try:
                await self._read()
            except ServiceError as error:
                self._is_counted, self._error = False, error
                log.warning("queue_count", error=error.reason)
                return
            self._is_counted, self._error = True, None
            self._good_until = max(self._good_until, started + (loop.time() - started) / COUNTING_SHARE)

    async def _read(self) -> None:
        async with as_caller(self._database, SYSTEM) as connection:
            waiting = await connection.fetch(SQL["waiting_jobs"])
            offers = await connection.fetch(SQL["latest_offers"])
            capacity = await connection.fetch(SQL["gpu_capacity"], MAX_GPU_TYPES)
        users: dict[str, dict[UUID, int]] = {}
        for row in waiting:
            users.setdefault(row["gpu_type"], {})[row["user_id"]] = row["waiting"]
        self._queues = {gpu_type: _Queue.of(by_user) for gpu_type, by_user in users.items()}
        self._offers = {row["gpu_type"]: row["gpus"] for row in offers}
        self._capacity = [GpuCapacity(**row) for row in capacity]

    def _position(self, job: Job) -> QueuePosition:
        gpu_type, needed = job.gpu_config["type"], job.gpu_config["count"]
        turns = (job.own_jobs_ahead or 0) + 1
        queue = self._queues.get(gpu_type)
        position = turns + (queue.before(job.user_id, turns) if queue else 0)
        offered = self._offers.get(gpu_type, 0)
        if offered < needed:
            code, message = WaitingCode.NO_TRAINER, f"No trainer offers {needed} GPUs of type {gpu_type} now."
        elif position > 1:
            code, message = WaitingCode.QUEUE, f"At most {position - 1} jobs start before it."
        elif job.attempt > 1:
            code, message = WaitingCode.NEXT_ATTEMPT, f"Attempt {job.attempt} of {job.max_attempts} starts next."
        else:
            code, message = WaitingCode.NEXT, "It is the next to start."
        return QueuePosition(position, code, message, needed, offered)

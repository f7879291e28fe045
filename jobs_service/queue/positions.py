"""Positions of jobs in the queue, why they wait, and what there is of the GPUs that they wait for."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from uuid import UUID

import structlog

from jobs_service.jobs.model import Job, JobState, QueuePosition, WaitingCode
from jobs_service.queue.lease import GpuCapacity
from jobs_service.queue.store import QueueStore
from rpc.errors import ServiceError

# Age up to which a count of the queue is used; longer if counting would take more than this share of the time.
FRESH_SECONDS = 2.0
COUNTING_SHARE = 0.1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Queue:
    """Jobs that wait for one GPU type: how many of each user, and these numbers in order with their running sums."""

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

    def __init__(self, queue: QueueStore) -> None:
        self._queue = queue
        self._queues: Mapping[str, _Queue] = {}
        self._offers: Mapping[str, int] = {}
        self._capacity: Sequence[GpuCapacity] = ()
        self._good_until = -math.inf
        self._is_counted = False
        # Why the last count failed.
        self._error: ServiceError | None = None
        self._counting = asyncio.Lock()

    async def of(self, jobs: Iterable[Job]) -> dict[UUID, QueuePosition]:
        """Returns the positions of those jobs that wait; none if the queue cannot be counted now.

        A caller shows a committed job with or without its position.
        """
        queued = [job for job in jobs if job.status == JobState.QUEUED]
        if queued:
            await self._count()
        return {job.id: self._position(job) for job in queued} if self._is_counted else {}

    async def capacity(self) -> Sequence[GpuCapacity]:
        """Returns what there is of each GPU type. Raises the error of the count where it failed."""
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
                count = await self._queue.count()
            except ServiceError as error:
                self._is_counted, self._error = False, error
                log.warning("queue-count", error=error.reason)
                return
            self._offers, self._capacity = count.offers, count.capacity
            users: dict[str, dict[UUID, int]] = {}
            for gpu_type, user_id, waiting in count.waiting:
                users.setdefault(gpu_type, {})[user_id] = waiting
            self._queues = {gpu_type: _Queue.of(by_user) for gpu_type, by_user in users.items()}
            self._is_counted, self._error = True, None
            self._good_until = max(self._good_until, started + (loop.time() - started) / COUNTING_SHARE)

    def _position(self, job: Job) -> QueuePosition:
        gpu_type, needed = job.gpu_config["type"], job.gpu_config["count"]
        turns = (job.own_ahead or 0) + 1
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

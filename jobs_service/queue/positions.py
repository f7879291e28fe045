"""Where a job stands in the queue, and why it waits."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple
from uuid import UUID

import structlog

from jobs_service.events.store import History
from jobs_service.jobs.model import Job, JobState
from rpc.errors import ServiceError

# A place in the queue may be this old; older where counting takes so long that it would be more than this share of all time.
FRESH_SECONDS = 2.0
COUNTING_SHARE = 0.1

log = structlog.get_logger()


class WaitingCode(StrEnum):
    """Kinds of reasons to wait."""

    QUEUE = "queue"
    NO_TRAINER = "no_trainer"
    NEXT_ATTEMPT = "next_attempt"
    NEXT = "next"


class Waiting(NamedTuple):
    """A place in the queue, from 1, and why."""

    position: int
    code: WaitingCode
    message: str
    gpus_needed: int
    gpus_offered: int


@dataclass(frozen=True, slots=True)
class _Queue:
    """The jobs that wait for one GPU type: how many each user has, and the same in order, with sums."""

    by_user: Mapping[UUID, int]
    ordered: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, by_user: Mapping[UUID, int]) -> _Queue:
        ordered = sorted(by_user.values())
        return cls(by_user, ordered, [0, *accumulate(ordered)])

    def before(self, user: UUID, turns: int) -> int:
        """Jobs of other users that can start before a user's job that is that many turns away."""
        fewer = bisect_left(self.ordered, turns)
        everybody = self.sums[fewer] + turns * (len(self.ordered) - fewer)
        return everybody - min(self.by_user.get(user, 0), turns)


class Census:
    """Counts the queue for all who ask, at most once in `FRESH_SECONDS`. While one counts, others are told the last count."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._queues: Mapping[str, _Queue] = {}
        self._offers: Mapping[str, int] = {}
        self._good_until = -math.inf
        self._is_known = False
        self._counting = asyncio.Lock()

    async def waiting(self, jobs: Iterable[Job]) -> dict[UUID, Waiting]:
        """Places and reasons of those of the jobs that wait; none where the queue cannot be counted now.

        A job that was committed is told to its owner whether or not its place is known.
        """
        queued = [job for job in jobs if job.status == JobState.QUEUED]
        if queued:
            await self._count()
        return {job.id: self._place(job) for job in queued} if self._is_known else {}

    async def _count(self) -> None:
        loop = asyncio.get_running_loop()
        if self._is_known and (loop.time() < self._good_until or self._counting.locked()):
            return
        async with self._counting:
            started = loop.time()
            if started < self._good_until:
                return
            self._good_until = started + FRESH_SECONDS
            try:
                rows, self._offers = await self._history.census()
            except ServiceError as error:
                self._is_known = False
                log.warning("census", error=error.reason)
                return
            users: dict[str, dict[UUID, int]] = {}
            for gpu_type, user_id, waiting in rows:
                users.setdefault(gpu_type, {})[user_id] = waiting
            self._queues = {gpu_type: _Queue.of(by_user) for gpu_type, by_user in users.items()}
            self._is_known = True
            self._good_until = max(self._good_until, started + (loop.time() - started) / COUNTING_SHARE)

    def _place(self, job: Job) -> Waiting:
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
        return Waiting(position, code, message, needed, offered)

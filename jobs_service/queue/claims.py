"""Claims of queued jobs by trainers: in turns among users, and more slowly for trainers that return what they lease."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID, uuid4
from zlib import crc32

import asyncpg
import structlog

from jobs_service.database.rows import as_caller, reader
from jobs_service.events.model import EventType
from jobs_service.queue.changes import write_transition
from jobs_service.queue.metrics import QueueMetrics
from jobs_service.queue.model import Lease, LeaseRequest
from rpc.boundary import Call
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import SYSTEM, Identity

SQL = load_queries("jobs_service.queue", "claims.sql")
# Seconds between two looks of a waiting trainer at the queue, and looks a second of all waiting trainers together.
POLL_SECONDS, POLLS_PER_SECOND = 0.2, 50
# Time to send a response before the caller's deadline.
RESPONSE_SECONDS = 0.5
# Jobs that a process leaves out of its claims, at most, and for how long: the database refused what their claim writes.
MAX_UNCLAIMABLE, UNCLAIMABLE_SECONDS = 100, 300.0
# Rows of the trainers that share a token: each has one for each GPU type.
MAX_OFFERS = 2_000
# A lease that was returned sooner counts as a quick return.
QUICK_SECONDS = 10.0
# Quick returns without a pause, seconds of pause for each further one, and the longest pause.
FREE_RETURNS, SECONDS_PER_RETURN, MAX_PAUSE_SECONDS = 10, 1.0, 60.0
# Names of trainers that share a token are hashed to this many values: a new name for each lease gains little.
MAX_NAMES = 16
# Trainers whose quick returns are counted. Beyond that, the trainer whose last quick return is oldest is dropped.
MAX_TRAINERS = 10_000

log = structlog.get_logger()
_lease = reader(Lease)


class UnclaimableJobs(Exception):
    """The database refused what the claim of these jobs writes."""

    def __init__(self, job_ids: Sequence[UUID]) -> None:
        super().__init__(f"claim of {len(job_ids)} jobs")
        self.job_ids = job_ids


class Claims:
    """Leases queued jobs to trainers. Methods act as the trainer, under row-level security."""

    def __init__(self, database: Database, *, lease_time: timedelta, metrics: QueueMetrics) -> None:
        self._database = database
        self._metrics = metrics
        self._lease_time = lease_time
        self._returns = QuickReturns()
        self._waiting = 0
        # Jobs that claims leave out, with the time until then.
        self._unclaimable: dict[UUID, float] = {}
        # The user id at which the next claim begins. Each process has its own: taking turns needs no agreement.
        self._turn = uuid4()

    async def wait(self, call: Call, request: LeaseRequest, wait_seconds: float) -> list[Lease]:
        """Claims jobs as soon as there are any. Returns none after `wait_seconds`, or when the server stops."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait_seconds, call.remaining_seconds() - RESPONSE_SECONDS)
        await self._offer(call.identity, request)
        self._waiting += 1
        try:
            while True:
                is_paused = self._returns.pause_seconds(call.identity.user_id, request.trainer) > 0
                leases = [] if is_paused else await self.claim(call.identity, request)
                seconds_left = until - loop.time()
                if leases or seconds_left <= 0 or call.draining.is_set():
                    return leases
                pause = max(POLL_SECONDS, self._waiting / POLLS_PER_SECOND) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
                await asyncio.sleep(min(seconds_left, pause))
        finally:
            self._waiting -= 1

    def count_return(self, trainer: Identity, name: str, lease_seconds: float) -> None:
        """Counts a job that a trainer returned to the queue after so many seconds."""
        self._returns.add(trainer.user_id, name, lease_seconds)

    async def claim(self, caller: Identity, request: LeaseRequest) -> list[Lease]:
        """Queued → initializing, for as many jobs as fit. Returns their leases; none if no job waits."""
        trained = await self._trained_types() if request.simulated else frozenset[str]()
        gpus = {gpu_type: count for gpu_type, count in request.gpus.items() if gpu_type not in trained}
        try:
            return await self._claim(caller, request, gpus, request.max_jobs)
        except UnclaimableJobs:
            # One by one, so that a job whose rows the database refuses takes no other one with it.
            leases: list[Lease] = []
            for _ in range(request.max_jobs + MAX_UNCLAIMABLE):
                try:
                    claimed = await self._claim(caller, request, gpus, 1)
                except UnclaimableJobs as error:
                    self._leave_out(error)
                    continue
                leases += claimed
                if not claimed or len(leases) >= request.max_jobs:
                    break
                gpu = claimed[0].gpu_config
                gpus[gpu["type"]] -= gpu["count"]
            return leases

    async def _offer(self, caller: Identity, request: LeaseRequest) -> None:
        """Stores how many GPUs of each type a trainer has free."""
        async with as_caller(self._database, caller) as connection:
            await connection.execute(
                SQL["offer_gpus"],
                list(request.gpus),
                list(request.gpus.values()),
                request.simulated,
                request.trainer,
                MAX_OFFERS,
            )

    async def _claim(
        self, caller: Identity, request: LeaseRequest, gpus: Mapping[str, int], max_jobs: int
    ) -> list[Lease]:
        ids: list[UUID] = []
        try:
            async with as_caller(self._database, caller) as connection:
                rows = await connection.fetch(
                    SQL["claim_jobs"],
                    list(gpus),
                    list(gpus.values()),
                    self._turn,
                    max_jobs,
                    request.trainer,
                    self._lease_time,
                    request.simulated,
                    [job_id for job_id, until in self._unclaimable.items() if until > time.monotonic()],
                    "waiting" if request.deferred else "initializing",
                )
                if not rows:
                    return []
                ids = [row["id"] for row in rows]
                await write_transition(connection, ids, EventType.LEASED)
                leases = [_lease(row) for row in await connection.fetch(SQL["leases"], ids)]
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, ValueError) as error:
            if not ids:
                raise
            raise UnclaimableJobs(ids) from error
        last = max(rows, key=lambda row: (row["rank_in_user"], row["pass_no"], row["user_id"]))
        self._turn = UUID(int=(last["user_id"].int + 1) % (1 << 128))
        self._metrics.leased(rows)
        return leases

    def _leave_out(self, error: UnclaimableJobs) -> None:
        for job_id in error.job_ids:
            log.error("job_unclaimable", job_id=str(job_id), error=repr(error.__cause__))
            self._unclaimable.pop(job_id, None)
            self._unclaimable[job_id] = time.monotonic() + UNCLAIMABLE_SECONDS
        while len(self._unclaimable) > MAX_UNCLAIMABLE:
            del self._unclaimable[next(iter(self._unclaimable))]

    async def _trained_types(self) -> frozenset[str]:
        """Returns the GPU types that non-simulated trainers offer or use: simulated ones claim no jobs for these."""
        async with as_caller(self._database, SYSTEM) as connection:
            return frozenset(row["gpu_type"] for row in await connection.fetch(SQL["trained_types"]))


class QuickReturns:
    """Counts quick returns of each trainer; one a second is dropped from the count."""

    def __init__(self) -> None:
        # When a trainer's count is back at 0, in monotonic seconds.
        self._zero_at: dict[tuple[str, int], float] = {}

    def add(self, user_id: str, name: str, lease_seconds: float) -> None:
        """Counts the return of a job by a trainer: the user of its token and its name."""
        if lease_seconds >= QUICK_SECONDS:
            return
        trainer, now = _key(user_id, name), time.monotonic()
        start = max(self._zero_at.pop(trainer, now), now)
        self._zero_at[trainer] = min(
            start + SECONDS_PER_RETURN, now + FREE_RETURNS * SECONDS_PER_RETURN + MAX_PAUSE_SECONDS
        )
        if len(self._zero_at) > MAX_TRAINERS:
            del self._zero_at[next(iter(self._zero_at))]

    def pause_seconds(self, user_id: str, name: str) -> float:
        """Returns how long a trainer gets no job yet."""
        left = self._zero_at.get(_key(user_id, name), 0) - time.monotonic()
        return max(0.0, left - FREE_RETURNS * SECONDS_PER_RETURN)


def _key(user_id: str, name: str) -> tuple[str, int]:
    return user_id, crc32(name.encode()) % MAX_NAMES

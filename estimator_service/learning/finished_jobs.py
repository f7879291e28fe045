"""Reads finished jobs, which correct forecasts, and the accuracy of forecasts.

A forecast is corrected by the user's own jobs. Once at least five users have finished jobs of a kind, on at least two workers,
it is corrected by the jobs of all users instead. Forecasts are not differentially private: comparing them before and after a
single job can reveal that job's speed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import asyncpg
import structlog

from estimator_service.learning.admission import refusal, trust, with_possible_peak
from estimator_service.learning.corrections import Accuracy, Correction, Corrections, FinishedJob, Kind, correct_for
from estimator_service.physics.parameters import fitted
from rpc.cache import ExpiringCache
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import Identity

log = structlog.get_logger()
T = TypeVar("T")
SQL = load_queries("estimator_service.learning", "queries.sql")
MIN_USERS, MIN_WORKERS = 5, 2  # for corrections by the jobs of all users
MAX_JOBS = 50  # the latest of a kind and software
LATEST_JOBS = 10  # of a user's own jobs of a kind: the most frequent software among them is used
PACKING = "packing"  # in the software that a trainer reports: it packs several samples into a sequence
MAX_JOBS_OF_USER, MAX_JOBS_OF_WORKER = 10, 25  # of a kind and software, of all users
FRESH_SECONDS = 0.9  # of the user's own: a finished job must change forecasts within a second
SHARED_FRESH_SECONDS = 30.0  # of what is read across all users
CACHE_SIZE = 10_000


class FinishedJobs:
    """Reads finished jobs and caches the corrections: each user's own, and those by the jobs of all users."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._own = ExpiringCache[str, Corrections](CACHE_SIZE)
        self._shared = SharedCache(self._read_shared)
        self._accuracy = SharedCache(self._read_accuracy)

    async def corrections(self, caller: Identity) -> Corrections:
        """Returns the corrections that apply to a caller. Raises DatabaseUnavailable."""
        now = time.monotonic()
        cached = self._own.get(caller.user_id)
        if cached is not None:
            return cached
        shared = await self._shared.get()
        async with self._database.as_caller(caller, role="quoter") as connection:
            own = await connection.fetch(SQL["own_finished_jobs"], fitted().version)
        corrections = {**own_corrections(own), **shared}
        self._own.put(caller.user_id, corrections, now + FRESH_SECONDS)
        return corrections

    async def accuracy(self) -> list[Accuracy]:
        """Returns the accuracy of all forecasts, then by month, the latest first; none from fewer than `MIN_USERS` users."""
        return await self._accuracy.get()

    async def _read_accuracy(self) -> list[Accuracy]:
        rows = await self._database.fetch_as_service(SQL["accuracy"], MIN_USERS)
        return [Accuracy(row["month"], row["jobs"], row["inside"], row["median_error"]) for row in rows]

    async def _read_shared(self) -> Corrections:
        rows = await self._database.fetch_as_service(
            SQL["shared_finished_jobs"], fitted().version, MAX_JOBS_OF_USER, MAX_JOBS_OF_WORKER
        )
        return shared_corrections(rows)


class SharedCache(Generic[T]):
    """Caches a value that is read across all users. While one caller refreshes it, the others get the previous one."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._until = 0.0
        self._value: T | None = None
        self._reading = asyncio.Lock()

    async def get(self) -> T:
        """Returns the value, at most `SHARED_FRESH_SECONDS` old or being refreshed. Raises what reading raises."""
        if self._value is not None and (time.monotonic() < self._until or self._reading.locked()):
            return self._value
        async with self._reading:
            if self._value is None or time.monotonic() >= self._until:
                self._value = await self._read()
                self._until = time.monotonic() + SHARED_FRESH_SECONDS
            return self._value


class CheckedJob(NamedTuple):
    """A finished job as it was read (`job` is None if its row is malformed), and why it is left out; empty if it is used."""

    row: asyncpg.Record
    job: FinishedJob | None
    refusal: str


class Lesson(NamedTuple):
    """A finished job that may correct forecasts, with its owner, worker and software."""

    user_id: str
    worker_id: str
    software: str
    job: FinishedJob


def own_corrections(rows: Iterable[asyncpg.Record]) -> Corrections:
    """Returns the corrections by a user's own jobs, with full weight, of the software that most of the latest jobs ran."""
    corrections = {}
    for kind, lessons in _lessons(check_jobs(rows)).items():
        software = Counter(lesson.software for lesson in lessons[:LATEST_JOBS]).most_common(1)[0][0]
        jobs = [lesson.job for lesson in lessons if lesson.software == software]
        corrections[kind] = _correction(tuple(jobs[:MAX_JOBS]), None, software)
    return corrections


def shared_corrections(rows: Iterable[asyncpg.Record]) -> Corrections:
    """Returns the corrections by the jobs of all users, for kinds and software with enough users and workers."""
    return {
        kind: _correction(tuple(lesson.job for lesson in lessons), weights(lessons), lessons[0].software)
        for kind, lessons in shared_lessons(check_jobs(rows)).items()
    }


def shared_lessons(jobs: Iterable[CheckedJob]) -> dict[Kind, list[Lesson]]:
    """Returns the jobs that correct the forecasts of all users, by kind.

    Among several versions of software, the one with the most users is used: no single user can change the choice.
    """
    shared = {}
    for kind, lessons in _lessons(jobs).items():
        by_software: dict[str, list[Lesson]] = defaultdict(list)
        for lesson in lessons:
            if len(by_software[lesson.software]) < MAX_JOBS:
                by_software[lesson.software].append(lesson)
        qualified = [lessons for lessons in by_software.values() if _is_shared(lessons)]
        if qualified:
            shared[kind] = max(qualified, key=lambda lessons: len({lesson.user_id for lesson in lessons}))
    return shared


def weights(lessons: Sequence[Lesson]) -> tuple[float, ...]:
    """Returns the weights of lessons: see `trust`."""
    return trust([(lesson.user_id, lesson.worker_id) for lesson in lessons])


def _is_shared(lessons: Sequence[Lesson]) -> bool:
    """Whether lessons come from enough users and workers to correct the forecasts of all users."""
    users, workers = {lesson.user_id for lesson in lessons}, {lesson.worker_id for lesson in lessons}
    return len(users) >= MIN_USERS and len(workers) >= MIN_WORKERS


def _lessons(jobs: Iterable[CheckedJob]) -> dict[Kind, list[Lesson]]:
    """Returns the jobs that may correct forecasts by kind, and logs the number of the others.

    A job whose trainer did not report its software counts for packed and for unpacked samples.
    """
    kinds: dict[Kind, list[Lesson]] = defaultdict(list)
    refused: Counter[str] = Counter()
    for row, job, reason in jobs:
        if job is None or reason:
            refused[reason] += 1
            continue
        lesson = Lesson(str(row["user_id"]), str(row["worker_id"]), row["software"], with_possible_peak(job))
        for packed in (False, True):
            if not lesson.software or (PACKING in lesson.software.split(", ")) == packed:
                kinds[row["model_family"], row["gpu_type"], row["stack"], packed].append(lesson)
    if refused:
        log.info("finished_jobs_refused", **{reason.replace(" ", "_"): count for reason, count in refused.items()})
    return kinds


def check_jobs(rows: Iterable[asyncpg.Record]) -> list[CheckedJob]:
    """Returns the finished jobs of rows, each with the decision whether it may correct forecasts."""
    return [_checked(row) for row in rows]


def _checked(row: asyncpg.Record) -> CheckedJob:
    try:
        job = _finished_job(row)
        return CheckedJob(row, job, "withdrawn" if row["is_withdrawn"] else refusal(job, row["gpu_type"] or "") or "")
    except (TypeError, ValueError, ArithmeticError):  # a malformed row must not stop the others
        return CheckedJob(row, None, "unreadable")


def _finished_job(row: asyncpg.Record) -> FinishedJob:
    *slopes, log_gib = row["forecast_slopes"]
    return FinishedJob(
        row["seconds"],
        row["forecast_seconds"],
        row["forecast_overhead_seconds"],
        row["forecast_correction"],
        tuple(slopes),
        math.exp(log_gib),
        row["peak_memory_gib"],
        row["token_ratio"] or 1.0,
    )


@lru_cache(maxsize=1024)
def _correction(jobs: tuple[FinishedJob, ...], weights: tuple[float, ...] | None, software: str) -> Correction:
    """Cached, so that the same jobs give the same object: keys of cached estimates contain it."""
    return correct_for(jobs, weights, software)

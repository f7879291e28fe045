"""Reads finished jobs, which correct forecasts, and figures of how good forecasts were.

A user's own jobs count at once. Where five users or more, on two workers or more, have finished jobs of a kind, everybody's
count instead, and below that nobody else's. This hides no single run from someone who compares forecasts before and after it:
forecasts are not differentially private.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import asyncpg
import structlog

from estimator_service.learning.admission import refusal, trust, with_possible_peak
from estimator_service.learning.corrections import Accuracy, Correction, Corrections, FinishedJob, Kind, correct_for
from estimator_service.physics.parameters import fitted
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import Identity

log = structlog.get_logger()
T = TypeVar("T")
SQL = load_queries("estimator_service.learning", "queries.sql")
MIN_USERS, MIN_WORKERS = 5, 2  # before jobs of others count
MAX_JOBS = 50  # of a kind and software, the latest
LATEST_JOBS = 10  # of a user's own jobs of a kind: the software of most of them counts
PACKING = "packing"  # part of the fingerprint of software that puts several samples into a sequence
MAX_JOBS_OF_USER, MAX_JOBS_OF_WORKER = 10, 25  # of a kind and software, of all users
FRESH_SECONDS = 0.9  # of the caller's own: a job that just finished shows in the next second
SHARED_FRESH_SECONDS = 30.0  # of what is read over all users
CACHE_SIZE = 10_000


class FinishedJobs:
    """Reads finished jobs and caches the corrections for a moment, each user's own apart from those of all users."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._own: OrderedDict[str, tuple[float, Corrections]] = OrderedDict()
        self._shared = SharedCache(self._read_shared)
        self._accuracy = SharedCache(self._read_accuracy)

    async def corrections(self, caller: Identity) -> Corrections:
        """Returns the corrections that apply to a caller. Raises DatabaseUnavailable."""
        now = time.monotonic()
        cached = self._own.get(caller.user_id)
        if cached is not None and now < cached[0]:
            return cached[1]
        shared = await self._shared.get()
        async with self._database.as_caller(caller, role="quoter") as connection:
            own = await connection.fetch(SQL["own_finished_jobs"], fitted().version)
        corrections = {**own_corrections(own), **shared}
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
        rows = await self._database.fetch_as_service(
            SQL["shared_finished_jobs"], fitted().version, MAX_JOBS_OF_USER, MAX_JOBS_OF_WORKER
        )
        return shared_corrections(rows)


class SharedCache(Generic[T]):
    """Caches a value that is read over all users. While one caller reads it anew, the others get the previous one."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._until = 0.0
        self._value: T | None = None
        self._reading = asyncio.Lock()

    async def get(self) -> T:
        """Returns the value, at most `SHARED_FRESH_SECONDS` old or being read anew. Raises what reading raises."""
        if self._value is not None and (time.monotonic() < self._until or self._reading.locked()):
            return self._value
        async with self._reading:
            if self._value is None or time.monotonic() >= self._until:
                self._value = await self._read()
                self._until = time.monotonic() + SHARED_FRESH_SECONDS
            return self._value


class Lesson(NamedTuple):
    """A finished job that may teach, and whose it is."""

    user_id: str
    worker_id: str
    software: str
    job: FinishedJob


def own_corrections(rows: Iterable[asyncpg.Record]) -> Corrections:
    """Corrections from a user's own jobs: each counts in full. Those of the software that most of the latest jobs ran."""
    corrections = {}
    for kind, lessons in _lessons(rows).items():
        software = Counter(lesson.software for lesson in lessons[:LATEST_JOBS]).most_common(1)[0][0]
        jobs = [lesson.job for lesson in lessons if lesson.software == software]
        corrections[kind] = _correction(tuple(jobs[:MAX_JOBS]), None, software)
    return corrections


def shared_corrections(rows: Iterable[asyncpg.Record]) -> Corrections:
    """Corrections from the jobs of all users: of kinds and software to which enough users and workers contributed.

    Of several software that of the most users counts, so that nobody's jobs alone change whose lessons apply.
    """
    corrections = {}
    for kind, lessons in _lessons(rows).items():
        by_software: dict[str, list[Lesson]] = defaultdict(list)
        for lesson in lessons:
            if len(by_software[lesson.software]) < MAX_JOBS:
                by_software[lesson.software].append(lesson)
        qualified = {software: used for software, used in by_software.items() if _is_shared(used)}
        if qualified:
            software, used = max(qualified.items(), key=lambda item: len({lesson.user_id for lesson in item[1]}))
            weights = trust([(lesson.user_id, lesson.worker_id) for lesson in used])
            corrections[kind] = _correction(tuple(lesson.job for lesson in used), weights, software)
    return corrections


def _is_shared(lessons: Sequence[Lesson]) -> bool:
    """Whether enough users and workers contributed to lessons for everybody's forecasts to follow them."""
    users, workers = {lesson.user_id for lesson in lessons}, {lesson.worker_id for lesson in lessons}
    return len(users) >= MIN_USERS and len(workers) >= MIN_WORKERS


def _lessons(rows: Iterable[asyncpg.Record]) -> dict[Kind, list[Lesson]]:
    """Jobs that may teach, by kind. The others are counted in one log line.

    A job whose trainer did not report its software teaches of packed and of unpacked samples.
    """
    kinds: dict[Kind, list[Lesson]] = defaultdict(list)
    refused: Counter[str] = Counter()
    for row in rows:
        try:
            job, reason = _finished_job(row), None
            reason = refusal(job, row["gpu_type"] or "")
        except (TypeError, ValueError, ArithmeticError):  # a row that holds no job at all fails nothing but itself
            reason = "unreadable"
        if reason:
            refused[reason] += 1
            continue
        lesson = Lesson(str(row["user_id"]), str(row["worker_id"]), row["software"], with_possible_peak(job))
        for packed in (False, True):
            if not lesson.software or (PACKING in lesson.software.split(", ")) == packed:
                kinds[row["model_family"], row["gpu_type"], row["stack"], packed].append(lesson)
    if refused:
        log.info("finished_jobs_refused", **{reason.replace(" ", "_"): count for reason, count in refused.items()})
    return kinds


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
    """The same jobs give the same object, so cached answers whose key holds it stay valid."""
    return correct_for(jobs, weights, software)

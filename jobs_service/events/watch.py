"""Watching jobs: one task reads the events of all, and each watcher gets its own from a buffer that has a size."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

import structlog

from jobs_service.errors import BadCursor
from jobs_service.events.model import Cursor, JobEvent, parse_cursor
from jobs_service.events.store import History
from jobs_service.jobs.model import FINAL, Job
from jobs_service.jobs.store import Store
from rpc.boundary import Call
from rpc.errors import BufferOverrun, Unauthenticated
from rpc.process.background import repeat

BUFFER = 256
# Jobs in a snapshot of all of a user's.
SNAPSHOT_JOBS = 100
# How long a poll of the events may take, and how long is waited after one that failed.
POLL_TIMEOUT_SECONDS = 5.0
PAUSE_SECONDS = 0.5
# A watch looks this often whether the server stops; it says goodbye this long before its time is up.
LOOK_SECONDS = 1.0
GOODBYE_SECONDS = 0.2

log = structlog.get_logger()


class EndReason(StrEnum):
    """Why a watch ends well."""

    JOB_FINAL = "job_final"
    SERVER_STOPS = "server_stops"
    AUTH = "auth"
    TIME_UP = "time_up"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Jobs as they are; `reset` where it replaces what the watcher had."""

    jobs: Sequence[Job]
    reset: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """Nothing happened."""


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more will be told."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class Told:
    """One message to a watcher, and the place after it."""

    cursor: Cursor
    what: Snapshot | JobEvent | Ping | End


class Buffer:
    """What one watcher has not taken yet."""

    def __init__(self, job_id: UUID | None) -> None:
        self.job_id = job_id
        self._events: deque[JobEvent] = deque()
        self._overrun = False
        self._filled = asyncio.Event()

    def offer(self, event: JobEvent) -> None:
        """Takes an event if it is of the job watched; gives all up where there are too many."""
        if self._overrun or self.job_id not in (None, event.job_id):
            return
        if len(self._events) == BUFFER:
            self._overrun = True
            self._events.clear()
        else:
            self._events.append(event)
        self._filled.set()

    async def take(self, seconds: float) -> JobEvent | None:
        """The next event; None where none comes in that time. Raises BufferOverrun."""
        if not self._events and not self._overrun:
            self._filled.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._filled.wait()
            except TimeoutError:
                # An event may come at the very moment that the time is up.
                pass
        if self._overrun:
            raise BufferOverrun
        return self._events.popleft() if self._events else None


class Tailer:
    """Reads new events as long as there are watchers, and gives each to those whose it is."""

    def __init__(self, history: History, *, poll_seconds: float) -> None:
        self._history = history
        self._poll_seconds = poll_seconds
        self._buffers: dict[str, set[Buffer]] = {}
        # Where the tailer is: all events before have been offered.
        self.position = Cursor(0, 0, 0)

    @contextmanager
    def subscribe(self, user_id: str, job_id: UUID | None, now: Cursor) -> Iterator[Buffer]:
        """A buffer of a user's events, for as long as its body runs. `now`: a safe place, for the first watcher."""
        if not self._buffers:
            self.position = now
        buffer = Buffer(job_id)
        self._buffers.setdefault(user_id, set()).add(buffer)
        try:
            yield buffer
        finally:
            self._buffers[user_id].discard(buffer)
            if not self._buffers[user_id]:
                del self._buffers[user_id]

    async def run(self) -> None:
        """Tails until cancelled."""

        async def poll() -> float:
            return 0.0 if self._buffers and await self._poll() else self._poll_seconds

        await repeat("tail", poll, every_seconds=PAUSE_SECONDS, timeout_seconds=POLL_TIMEOUT_SECONDS)

    async def _poll(self) -> bool:
        start = self.position
        events, position, more = await self._history.tail(start)
        if self.position != start:
            # The last watcher left and another came in between: it starts at a place of its own.
            return True
        for event in events:
            for buffer in self._buffers.get(str(event.user_id), ()):
                buffer.offer(event)
        self.position = position
        return more


class Watches:
    """Follows jobs for watchers: what was, without a gap what is, and how it ends."""

    def __init__(
        self, store: Store, history: History, tailer: Tailer, *, ping_seconds: float, retention: timedelta
    ) -> None:
        self._store = store
        self._history = history
        self._tailer = tailer
        self._ping_seconds = ping_seconds
        self._retention = retention

    async def follow(self, call: Call, last_event_id: str, job_id: UUID | None) -> AsyncGenerator[Told, None]:
        """What happens to a job of the caller's, or to all of them. Raises JobNotFound, BadCursor, BufferOverrun."""
        caller = call.identity
        now = await self._history.position()
        after = _after(last_event_id, caller.user_id)
        if after is not None and after.xid > now.next:
            raise BadCursor
        with self._tailer.subscribe(caller.user_id, job_id, now.safe) as buffer:
            # Everything before `start` is there to be read; everything after it comes into the buffer.
            start = self._tailer.position
            jobs, seen = await self._store.snapshot(caller, job_id, limit=SNAPSHOT_JOBS)
            over = job_id is not None and jobs[0].status in FINAL
            expired = after is not None and after.older_than(now.at, self._retention)
            if after is None or expired:
                place = Cursor(seen.first_running, 0, start.at_ms, seen)
                yield Told(place, Snapshot(jobs, reset=expired))
            else:
                # Says at once that the watch is on, before what may be nothing for a long time.
                place = after
                yield Told(place, Ping())
                async with aclosing(self._history.between(caller, after, start, job_id)) as missed:
                    async for event in missed:
                        if not after.seen.has(event.cursor.xid):
                            place = place.on_to(event.cursor)
                            yield Told(place, event)
                place = max(place, place.on_to(start))
                over = over and not await self._history.has_more(caller, jobs[0].id, place)
            if over:
                yield Told(place, End(EndReason.JOB_FINAL))
                return
            async with aclosing(self._live(call, buffer, place)) as live:
                async for message in live:
                    yield message

    async def _live(self, call: Call, buffer: Buffer, place: Cursor) -> AsyncGenerator[Told, None]:
        loop = asyncio.get_running_loop()
        pinged = checked = loop.time()
        while True:
            left = call.remaining_seconds() - GOODBYE_SECONDS
            event = await buffer.take(max(0.0, min(LOOK_SECONDS, self._ping_seconds, left)))
            now = loop.time()
            if event is not None and event.cursor > place:
                place = place.on_to(event.cursor)
                if not place.seen.has(event.cursor.xid):
                    pinged = now
                    yield Told(place, event)
                if buffer.job_id is not None and event.is_final:
                    yield Told(place, End(EndReason.JOB_FINAL))
                    return
            if call.draining.is_set():
                yield Told(place, End(EndReason.SERVER_STOPS))
                return
            if left <= 0:
                yield Told(place, End(EndReason.TIME_UP))
                return
            if now - checked >= self._ping_seconds:
                checked = now
                try:
                    await call.recheck()
                except Unauthenticated:
                    yield Told(place, End(EndReason.AUTH))
                    return
            if event is None and now - pinged >= self._ping_seconds:
                # Nothing waits in the buffer: all that the tailer has passed is told.
                passed, pinged = self._tailer.position, now
                place = replace(max(place, place.on_to(passed)), at_ms=max(place.at_ms, passed.at_ms))
                yield Told(place, Ping())


def _after(last_event_id: str, user_id: str) -> Cursor | None:
    try:
        return parse_cursor(last_event_id, user_id) if last_event_id else None
    except ValueError:
        raise BadCursor from None

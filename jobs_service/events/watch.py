"""Watches of jobs: one task reads all users' events, and each watch gets its own through a bounded buffer."""

from __future__ import annotations

import asyncio
import time
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
from jobs_service.events.store import EventStore
from jobs_service.jobs.model import FINAL, Job
from rpc.boundary import Call
from rpc.errors import BufferOverrun, Unauthenticated
from rpc.process.background import repeat
from rpc.telemetry.metrics import Metrics

# Events that a watch may be behind.
BUFFER = 256
# Jobs in a snapshot of all of a user's jobs.
SNAPSHOT_JOBS = 100
# Watches that read from the database at once while they open. The others wait, so that calls get connections.
MAX_OPENING = 2
# Events that wait longer than this are logged.
MAX_BEHIND_SECONDS = 5.0
# The timeout of one poll for events, and the pause after one that failed.
POLL_TIMEOUT_SECONDS = 5.0
PAUSE_SECONDS = 0.5
# How often a watch checks whether the server stops, and how long before its deadline it ends.
CHECK_SECONDS = 1.0
END_SECONDS = 0.2

log = structlog.get_logger()


class EndReason(StrEnum):
    """Why a watch ends without an error."""

    JOB_FINAL = "job_final"
    SERVER_STOPS = "server_stops"
    AUTH = "auth"
    TIME_UP = "time_up"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Jobs as they are now. `reset`: it replaces all that the watch sent before."""

    jobs: Sequence[Job]
    reset: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """Sent while there is no event. `behind_seconds`: age of the oldest event that waits for an open transaction to end."""

    behind_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class End:
    """The last message of a watch."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class WatchMessage:
    """A message of a watch, and the cursor to continue from after it."""

    cursor: Cursor
    content: Snapshot | JobEvent | Ping | End


class Buffer:
    """The events that one watch has not sent yet."""

    def __init__(self, job_id: UUID | None) -> None:
        self.job_id = job_id
        self._events: deque[JobEvent] = deque()
        self._overrun = False
        self._filled = asyncio.Event()

    def offer(self, event: JobEvent) -> None:
        """Adds an event if it is of the watched job. Drops all events when the buffer is full: take() then raises."""
        if self._overrun or self.job_id not in (None, event.job_id):
            return
        if len(self._events) == BUFFER:
            self._overrun = True
            self._events.clear()
        else:
            self._events.append(event)
        self._filled.set()

    async def take(self, seconds: float) -> JobEvent | None:
        """Returns the next event; None if none comes in that time. Raises BufferOverrun."""
        if not self._events and not self._overrun:
            self._filled.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._filled.wait()
            except TimeoutError:
                # An event may have come just as the time ran out.
                pass
        if self._overrun:
            raise BufferOverrun
        return self._events.popleft() if self._events else None


class Tailer:
    """Reads new events while there are watches, and adds each to the buffers of its owner's watches."""

    def __init__(self, events: EventStore, *, poll_seconds: float) -> None:
        self._events = events
        self._poll_seconds = poll_seconds
        self._buffers: dict[str, set[Buffer]] = {}
        # All events up to here have been offered; `_complete_at`: when there were no others.
        self.position = Cursor(0, 0, 0)
        self._complete_at = 0.0
        # Age of the oldest event that waits for an open transaction to end.
        self.behind_seconds = 0.0
        self._is_behind = False

    @contextmanager
    def subscribe(self, user_id: str, job_id: UUID | None, now: Cursor) -> Iterator[Buffer]:
        """Yields a buffer of a user's events. `now`: the safe cursor to start at if this is the only watch."""
        if not self._buffers:
            self.position = now
            self._complete_at = time.monotonic()
        buffer = Buffer(job_id)
        self._buffers.setdefault(user_id, set()).add(buffer)
        try:
            yield buffer
        finally:
            self._buffers[user_id].discard(buffer)
            if not self._buffers[user_id]:
                del self._buffers[user_id]

    def watch_lag(self, metrics: Metrics) -> None:
        """Shows as a metric how far watches are behind."""
        metrics.watch(
            "pipeline_events_lag_seconds",
            "Time since open watches had all events; 0 without watches.",
            lambda: time.monotonic() - self._complete_at if self._buffers else 0.0,
        )

    async def run(self) -> None:
        """Tails until cancelled."""

        async def poll() -> float:
            return 0.0 if self._buffers and await self._poll() else self._poll_seconds

        await repeat("tail", poll, every_seconds=PAUSE_SECONDS, timeout_seconds=POLL_TIMEOUT_SECONDS)

    async def _poll(self) -> bool:
        start, started = self.position, time.monotonic()
        events, position, more, behind_seconds = await self._events.tail(start)
        self._log_delay(behind_seconds)
        if self.position != start:
            # Since the read began, the last watch has ended and another one has set its own start.
            return True
        for event in events:
            for buffer in self._buffers.get(str(event.user_id), ()):
                buffer.offer(event)
        self.position = position
        if not more:
            self._complete_at = started
        return more

    def _log_delay(self, behind_seconds: float) -> None:
        self.behind_seconds = behind_seconds
        is_behind = behind_seconds > MAX_BEHIND_SECONDS
        if is_behind and not self._is_behind:
            log.warning(
                "events_held_back", seconds=round(behind_seconds, 1), reason="a transaction is open: pg_stat_activity"
            )
        elif self._is_behind and not is_behind:
            log.info("events_flow_again")
        self._is_behind = is_behind


class Watches:
    """Serves watches: a snapshot or the events missed since a cursor, then events as they come, without a gap."""

    def __init__(self, events: EventStore, tailer: Tailer, *, ping_seconds: float, retention: timedelta) -> None:
        self._events = events
        self._tailer = tailer
        self._ping_seconds = ping_seconds
        self._retention = retention
        self._opening = asyncio.Semaphore(MAX_OPENING)

    async def follow(self, call: Call, last_event_id: str, job_id: UUID | None) -> AsyncGenerator[WatchMessage, None]:
        """Yields the messages about one of the caller's jobs, or all. Raises JobNotFound, BadCursor, BufferOverrun."""
        caller = call.identity
        async with self._opening:
            now = await self._events.position()
        after = _after(last_event_id, caller.user_id)
        if after is not None and after.xid > now.next:
            raise BadCursor
        with self._tailer.subscribe(caller.user_id, job_id, now.safe) as buffer:
            # Events up to `start` can be read from the table; events after it come into the buffer.
            start = self._tailer.position
            async with self._opening:
                jobs, version = await self._events.snapshot(caller, job_id, limit=SNAPSHOT_JOBS)
            is_over = job_id is not None and jobs[0].status in FINAL
            is_expired = after is not None and after.older_than(now.at, self._retention)
            if after is None or is_expired:
                cursor = Cursor(version.first_running, 0, start.at_ms, version)
                yield WatchMessage(cursor, Snapshot(jobs, reset=is_expired))
            else:
                # Sent at once, so that the client sees the watch open: the next message may take long.
                cursor = after
                yield WatchMessage(cursor, Ping(self._tailer.behind_seconds))
                async with aclosing(self._events.between(caller, after, start, job_id)) as missed:
                    async for event in missed:
                        if not after.version.contains(event.cursor.xid):
                            cursor = cursor.moved_to(event.cursor)
                            yield WatchMessage(cursor, event)
                cursor = max(cursor, cursor.moved_to(start))
                is_over = is_over and not await self._events.has_more(caller, jobs[0].id, cursor)
            if is_over:
                yield WatchMessage(cursor, End(EndReason.JOB_FINAL))
                return
            async with aclosing(self._live(call, buffer, cursor)) as live:
                async for message in live:
                    yield message

    async def _live(self, call: Call, buffer: Buffer, cursor: Cursor) -> AsyncGenerator[WatchMessage, None]:
        loop = asyncio.get_running_loop()
        pinged = checked = loop.time()
        while True:
            left = call.remaining_seconds() - END_SECONDS
            event = await buffer.take(max(0.0, min(CHECK_SECONDS, self._ping_seconds, left)))
            now = loop.time()
            if event is not None and event.cursor > cursor:
                cursor = cursor.moved_to(event.cursor)
                if not cursor.version.contains(event.cursor.xid):
                    pinged = now
                    yield WatchMessage(cursor, event)
                if buffer.job_id is not None and event.is_final:
                    yield WatchMessage(cursor, End(EndReason.JOB_FINAL))
                    return
            if call.draining.is_set():
                yield WatchMessage(cursor, End(EndReason.SERVER_STOPS))
                return
            if left <= 0:
                yield WatchMessage(cursor, End(EndReason.TIME_UP))
                return
            if now - checked >= self._ping_seconds:
                checked = now
                try:
                    await call.recheck()
                except Unauthenticated:
                    yield WatchMessage(cursor, End(EndReason.AUTH))
                    return
            if event is None and now - pinged >= self._ping_seconds:
                # The buffer is empty, so everything up to the tailer's position was sent.
                passed, pinged = self._tailer.position, now
                cursor = replace(max(cursor, cursor.moved_to(passed)), at_ms=max(cursor.at_ms, passed.at_ms))
                yield WatchMessage(cursor, Ping(self._tailer.behind_seconds))


def _after(last_event_id: str, user_id: str) -> Cursor | None:
    try:
        return parse_cursor(last_event_id, user_id) if last_event_id else None
    except ValueError:
        raise BadCursor from None

"""What happened to a job, and places in the order of what happened: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import total_ordering
from hashlib import sha256
from typing import Any
from uuid import UUID

from jobs_service.jobs.model import FINAL, JobState

CURSOR_SHAPE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,15})\.([0-9a-f]{8})((?:\.[0-9]{1,18}){0,200})")


class EventType(StrEnum):
    """What happened to a job."""

    QUEUED = "queued"
    LEASED = "leased"
    STARTED = "started"
    PROGRESS = "progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    RETRIED = "retried"
    RELEASED = "released"
    COST_WARNING = "cost_warning"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture of jobs shows: transactions below `limit`, but for those that ran when it was taken."""

    first_running: int
    limit: int
    running: tuple[int, ...]

    def has(self, xid: int) -> bool:
        """Whether it shows what a transaction did."""
        return xid < self.limit and xid not in self.running


NOTHING = Seen(0, 0, ())


def parse_seen(snapshot: str, latest: int | None) -> Seen:
    """Reads a `pg_snapshot`: `xmin:xmax:xip,…`. `latest`: the last transaction it shows that left an event.

    What came after that one is not remembered: a crash of Postgres forgets transactions that were rolled back, and gives
    their numbers to others.
    """
    first, limit, running = snapshot.split(":")
    end = (latest or 0) + 1
    return Seen(
        min(int(first), end),
        min(int(limit), end),
        tuple(xid for each in running.split(",") if each and (xid := int(each)) < end),
    )


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Cursor:
    """A place in the order of events; `at_ms` says when it was passed, so that a place too old is known as such.

    After a picture of the jobs, events that it shows are still to come in that order. `seen` says which, until the place
    is beyond them, so that they are not told again.
    """

    xid: int
    seq: int
    at_ms: int
    seen: Seen = NOTHING

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cursor) and (self.xid, self.seq) == (other.xid, other.seq)

    def __lt__(self, other: Cursor) -> bool:
        return (self.xid, self.seq) < (other.xid, other.seq)

    def __hash__(self) -> int:
        return hash((self.xid, self.seq))

    def on_to(self, place: Cursor) -> Cursor:
        """A later place on the way from this one."""
        return Cursor(place.xid, place.seq, place.at_ms, self.seen)

    def render(self, user_id: UUID | str) -> str:
        """The cursor as one user gets it. Another user's is known by its tag."""
        seen = (self.seen.limit, *self.seen.running) if self.xid < self.seen.limit else ()
        return ".".join(map(str, (self.xid, self.seq, self.at_ms, _tag(user_id), *seen)))

    def older_than(self, now: datetime, age: timedelta) -> bool:
        """Whether it was passed longer ago than that."""
        return self.at_ms < (now - age).timestamp() * 1000


def parse_cursor(text: str, user_id: str) -> Cursor | None:
    """Reads a cursor; None for another user's. Raises ValueError for what is none."""
    found = CURSOR_SHAPE.fullmatch(text)
    if found is None:
        raise ValueError("not a cursor")
    xid, seq, at_ms, tag, rest = found.groups()
    if tag != _tag(user_id):
        return None
    limit, *running = [int(each) for each in rest.split(".")[1:]] or [0]
    return Cursor(int(xid), int(seq), int(at_ms), Seen(int(xid), limit, tuple(running)))


def _tag(user_id: UUID | str) -> str:
    return sha256(str(user_id).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event. `data` holds the job's fields as they were then."""

    cursor: Cursor
    job_id: UUID
    user_id: UUID
    revision: int
    type: EventType
    status: JobState
    data: Mapping[str, Any]
    created_at: datetime

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after it."""
        return self.status in FINAL


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """What a trainer measured at one step."""

    step: int
    epoch: float
    values: Mapping[str, float]
    created_at: datetime | None = None

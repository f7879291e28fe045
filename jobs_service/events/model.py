"""Events and metrics of jobs, and cursors in the order of events: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

from jobs_service.jobs.model import FINAL, JobState

CURSOR_SHAPE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,15})\.([0-9a-f]{8})((?:\.[0-9]{1,18}){0,200})")


class EventType(StrEnum):
    """Types of events."""

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
    REFORECAST = "reforecast"


@dataclass(frozen=True, slots=True)
class SnapshotVersion:
    """The transactions that a snapshot includes: those below `limit`, except those that were `running` when it was taken."""

    first_running: int
    limit: int
    running: tuple[int, ...]

    def contains(self, xid: int) -> bool:
        """Whether the snapshot includes a transaction's changes."""
        return xid < self.limit and xid not in self.running


NO_SNAPSHOT = SnapshotVersion(0, 0, ())


def parse_version(snapshot: str, latest: int | None) -> SnapshotVersion:
    """Parses a `pg_snapshot`: `xmin:xmax:xip,…`. `latest`: the last transaction in it with an event of the caller.

    Transactions after that one are left out: after a crash, Postgres gives the numbers of transactions that were rolled back to
    others.
    """
    first, limit, running = snapshot.split(":")
    end = (latest or 0) + 1
    return SnapshotVersion(
        min(int(first), end),
        min(int(limit), end),
        tuple(xid for each in running.split(",") if each and (xid := int(each)) < end),
    )


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A position in the order of events, (xid, seq). `at_ms`: when it was current, Unix time in ms; it expires with age.

    After a snapshot of jobs, events that it includes may still follow in that order. They are not sent again: `version` says
    which they are, until the cursor is beyond them.
    """

    xid: int
    seq: int
    at_ms: int = field(compare=False)
    version: SnapshotVersion = field(default=NO_SNAPSHOT, compare=False)

    def moved_to(self, later: Cursor) -> Cursor:
        """Returns a later cursor with this one's version."""
        return replace(later, version=self.version)

    def render(self, user_id: UUID | str) -> str:
        """Returns the cursor as text for a user, with a tag of that user."""
        version = (self.version.limit, *self.version.running) if self.xid < self.version.limit else ()
        return ".".join(map(str, (self.xid, self.seq, self.at_ms, _tag(user_id), *version)))

    def older_than(self, now: datetime, age: timedelta) -> bool:
        """Whether it was current longer than `age` before `now`."""
        return self.at_ms < (now - age).timestamp() * 1000


def parse_cursor(text: str, user_id: str) -> Cursor | None:
    """Parses a cursor; None for another user's. Raises ValueError if it is malformed."""
    match = CURSOR_SHAPE.fullmatch(text)
    if match is None:
        raise ValueError("malformed cursor")
    xid, seq, at_ms, tag, rest = match.groups()
    if tag != _tag(user_id):
        return None
    limit, *running = [int(each) for each in rest.split(".")[1:]] or [0]
    return Cursor(int(xid), int(seq), int(at_ms), SnapshotVersion(int(xid), limit, tuple(running)))


def _tag(user_id: UUID | str) -> str:
    return sha256(str(user_id).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class JobEvent:
    """An event. `data` holds the job's fields as they were then."""

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
        """Whether it is the job's last event."""
        return self.status in FINAL


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """A trainer's metrics at one step."""

    step: int
    epoch: float
    values: Mapping[str, float]
    created_at: datetime | None = None

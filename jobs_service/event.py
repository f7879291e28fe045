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

from jobs_service.job import FINAL, JobState

CURSOR_SHAPE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,15})\.([0-9a-f]{8})")


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


@total_ordering
@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the order of events; `at_ms` says when it was passed, so that a place too old is known as such."""

    xid: int
    seq: int
    at_ms: int

    def __lt__(self, other: Cursor) -> bool:
        return (self.xid, self.seq) < (other.xid, other.seq)

    def render(self, user_id: UUID | str) -> str:
        """The cursor as one user gets it. Another user's is known by its tag."""
        return f"{self.xid}.{self.seq}.{self.at_ms}.{_tag(user_id)}"

    def older_than(self, now: datetime, age: timedelta) -> bool:
        """Whether it was passed longer ago than that."""
        return self.at_ms < (now - age).timestamp() * 1000


def parse_cursor(text: str, user_id: str) -> Cursor | None:
    """Reads a cursor; None for another user's. Raises ValueError for what is none."""
    found = CURSOR_SHAPE.fullmatch(text)
    if found is None:
        raise ValueError("not a cursor")
    xid, seq, at_ms, tag = found.groups()
    return Cursor(int(xid), int(seq), int(at_ms)) if tag == _tag(user_id) else None


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

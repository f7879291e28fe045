"""Slows down trainers that return jobs as fast as they lease them."""

from __future__ import annotations

import time
from zlib import crc32

# A lease that was returned sooner counts.
QUICK_SECONDS = 10.0
# Quick returns that cost nothing, seconds that each further one keeps its trainer from leasing, and the longest such pause.
FREE_RETURNS, SECONDS_PER_RETURN, MAX_PAUSE_SECONDS = 10, 1.0, 60.0
# Trainers that share a token are told apart by so many hashes of their names: a new name for each lease gains little.
NAMES = 16
# Trainers in the table; above it, those whose last quick return is oldest are forgotten.
TABLE_SIZE = 10_000


class QuickReturns:
    """The quick returns of each trainer, of which one a second is forgotten."""

    def __init__(self) -> None:
        # When all of a trainer's returns are forgotten, in monotonic seconds.
        self._forgotten_at: dict[tuple[str, int], float] = {}

    def add(self, user_id: str, name: str, lease_seconds: float) -> None:
        """Counts the return of a job that a trainer, by its token's user and its name, had for so long."""
        if lease_seconds >= QUICK_SECONDS:
            return
        trainer, now = _key(user_id, name), time.monotonic()
        start = max(self._forgotten_at.pop(trainer, now), now)
        self._forgotten_at[trainer] = min(
            start + SECONDS_PER_RETURN, now + FREE_RETURNS * SECONDS_PER_RETURN + MAX_PAUSE_SECONDS
        )
        if len(self._forgotten_at) > TABLE_SIZE:
            del self._forgotten_at[next(iter(self._forgotten_at))]

    def pause_seconds(self, user_id: str, name: str) -> float:
        """How long a trainer gets no job yet."""
        left = self._forgotten_at.get(_key(user_id, name), 0) - time.monotonic()
        return max(0.0, left - FREE_RETURNS * SECONDS_PER_RETURN)


def _key(user_id: str, name: str) -> tuple[str, int]:
    return user_id, crc32(name.encode()) % NAMES

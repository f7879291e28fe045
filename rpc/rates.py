"""How often somebody may call: a bucket of calls for each, in a table that does not grow."""

from __future__ import annotations

import time

from rpc.errors import RateLimited

# Callers that are remembered; beyond, those who called longest ago are taken for new ones.
TABLE_SIZE = 10_000
# Of a second's calls this many may come at once.
BURST_SECONDS = 2.0


class Rates:
    """Lets each caller call `per_second` times a second in the long run."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        # When a caller's bucket is full again, in monotonic seconds.
        self._full_at: dict[str, float] = {}

    def take(self, caller: str) -> None:
        """Counts a call. Raises RateLimited, which counts for nothing."""
        now = time.monotonic()
        full_at = max(self._full_at.get(caller, now), now) + 1 / self._per_second
        if full_at > now + max(BURST_SECONDS, 1 / self._per_second):
            raise RateLimited(self._per_second)
        self._full_at[caller] = full_at
        if len(self._full_at) > TABLE_SIZE:
            self._forget(now)

    def _forget(self, now: float) -> None:
        waiting = [(caller, full_at) for caller, full_at in self._full_at.items() if full_at > now]
        self._full_at = dict(waiting[-TABLE_SIZE // 2 :])

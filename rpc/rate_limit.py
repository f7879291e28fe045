"""How often somebody may call: a bucket of calls for each, in a table that does not grow."""

from __future__ import annotations

import time

from rpc.errors import RateLimited

# Callers that are remembered; beyond, those who called longest ago are taken for new ones.
TABLE_SIZE = 10_000
# Of a second's calls this many may come at once.
BURST_SECONDS = 2.0


class Rates:
    """Lets each caller do something, `what`, `per_second` times a second in the long run."""

    def __init__(self, per_second: float, what: str = "calls") -> None:
        self._per_second, self._what = per_second, what
        # When a caller's bucket is full again, in monotonic seconds.
        self._full_at: dict[str, float] = {}

    def take(self, caller: str) -> None:
        """Counts a call. Raises RateLimited, which counts for nothing."""
        now = time.monotonic()
        # Taken out and put in again: the table is in the order in which callers called last.
        held = max(self._full_at.pop(caller, now), now)
        full_at = held + 1 / self._per_second
        refused = full_at > now + max(BURST_SECONDS, 1 / self._per_second)
        self._full_at[caller] = held if refused else full_at
        if len(self._full_at) > TABLE_SIZE:
            self._forget(now)
        if refused:
            raise RateLimited(self._per_second, self._what)

    def _forget(self, now: float) -> None:
        waiting = [(caller, full_at) for caller, full_at in self._full_at.items() if full_at > now]
        self._full_at = dict(waiting[-TABLE_SIZE // 2 :])

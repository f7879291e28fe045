"""Limits of concurrent calls and of the rate of calls, with a share for each user."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rpc.errors import RateLimited, ServiceError

# Most callers in the table. Beyond it, those whose last call is oldest are removed.
TABLE_SIZE = 10_000
# Size of a burst, in seconds of the rate.
BURST_SECONDS = 2.0


class FairLimit:
    """Shares a capacity among users: a user may take as much as stays free for the others, and at most `per_user`.

    With k users at their limit, each has capacity / (k + 1), and the same amount is free for the next user.
    """

    def __init__(self, capacity: int, *, per_user: int | None = None) -> None:
        self._capacity = capacity
        self._per_user = capacity if per_user is None else per_user
        self._used: dict[str, int] = {}
        self.total = 0

    @contextmanager
    def slot(self, user_id: str, refused: ServiceError | type[ServiceError], amount: int = 1) -> Iterator[None]:
        """Takes an amount for a user while the body runs. Raises `refused` if that is more than the user's share."""
        used = self._used.get(user_id, 0)
        if used + amount > min(self._capacity - self.total, self._per_user):
            raise refused
        self._used[user_id] = used + amount
        self.total += amount
        try:
            yield
        finally:
            self.total -= amount
            # Of two slots of amount 0, as for empty bodies, the first one to end removes the entry.
            left = self._used.pop(user_id, 0) - amount
            if left:
                self._used[user_id] = left


class RateLimiter:
    """A token bucket for each caller, in a table of bounded size: `per_second` calls a second on average.

    `unit`: what is counted, for the error message, in the plural.
    """

    def __init__(self, per_second: float, unit: str = "calls") -> None:
        self._per_second, self._unit = per_second, unit
        # When a caller's bucket will be full again, in monotonic seconds.
        self._full_at: dict[str, float] = {}

    def take(self, caller: str, calls: float = 1) -> None:
        """Counts a call, or its cost in `calls`. Raises RateLimited; a refused call is not counted."""
        now = time.monotonic()
        # At most a second of the rate, so that a caller with a low limit can make expensive calls, too.
        calls = min(calls, max(1, self._per_second))
        # Removed and inserted again, so that the table is in the order of the callers' last calls.
        previous = max(self._full_at.pop(caller, now), now)
        full_at = previous + calls / self._per_second
        refused = full_at > now + max(BURST_SECONDS, calls / self._per_second)
        self._full_at[caller] = previous if refused else full_at
        if len(self._full_at) > TABLE_SIZE:
            self._shrink(now)
        if refused:
            raise RateLimited(self._per_second, self._unit)

    def _shrink(self, now: float) -> None:
        """Removes callers whose bucket is full, and all but the newest `TABLE_SIZE` / 2 of the others."""
        not_full = [(caller, full_at) for caller, full_at in self._full_at.items() if full_at > now]
        self._full_at = dict(not_full[-TABLE_SIZE // 2 :])

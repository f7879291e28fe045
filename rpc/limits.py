"""Limits on what runs at once."""

from __future__ import annotations

from collections import Counter


class FairLimit:
    """Shares a capacity among users: each may have as many as are still free, and `per_user` at most.

    With k users at their limit, each has capacity / (k + 1), and as much is free for the next one.
    """

    def __init__(self, capacity: int, *, per_user: int | None = None) -> None:
        self._capacity = capacity
        self._per_user = capacity if per_user is None else per_user
        self._used: Counter[str] = Counter()
        self.total = 0

    def try_acquire(self, user_id: str) -> bool:
        """Takes one for a user; returns False if the user has a full share."""
        used = self._used[user_id]
        if used >= min(self._capacity - self.total, self._per_user):
            if not used:
                del self._used[user_id]
            return False
        self._used[user_id] = used + 1
        self.total += 1
        return True

    def release(self, user_id: str) -> None:
        """Gives one back."""
        self.total -= 1
        self._used[user_id] -= 1
        if not self._used[user_id]:
            del self._used[user_id]

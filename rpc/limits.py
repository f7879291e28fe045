"""Limits on what runs at once."""

from __future__ import annotations


class FairLimit:
    """Shares a capacity among users: each may have as many as are still free, and `per_user` at most.

    With k users at their limit, each has capacity / (k + 1), and as much is free for the next one.
    """

    def __init__(self, capacity: int, *, per_user: int | None = None) -> None:
        self._capacity = capacity
        self._per_user = capacity if per_user is None else per_user
        self._used: dict[str, int] = {}
        self.total = 0

    def try_acquire(self, user_id: str, amount: int = 1) -> bool:
        """Takes an amount for a user; returns False if that is more than the user's share."""
        used = self._used.get(user_id, 0)
        if used + amount > min(self._capacity - self.total, self._per_user):
            return False
        self._used[user_id] = used + amount
        self.total += amount
        return True

    def release(self, user_id: str, amount: int = 1) -> None:
        """Gives an amount back."""
        self.total -= amount
        left = self._used.pop(user_id) - amount
        if left:
            self._used[user_id] = left

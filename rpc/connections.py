"""Connections of a pool, of which those that were used last stay out of it, at hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import asyncpg

WAIT_SECONDS = 3.0


class Connections:
    """Lends connections, as many at once as the pool may have.

    The pool itself takes a task to be given one back, which costs more than a statement.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._at_hand: list[asyncpg.Connection] = []
        self._places = asyncio.Semaphore(pool.get_max_size())

    @asynccontextmanager
    async def borrow(self, *, patient: bool = False) -> AsyncIterator[asyncpg.Connection]:
        """A connection that is in no transaction. Raises TimeoutError where none gets free in time, unless `patient`.

        Raises what connecting raises, too.
        """
        async with asyncio.timeout(None if patient else WAIT_SECONDS) if self._places.locked() else nullcontext():
            await self._places.acquire()
        try:
            while self._at_hand and not _is_open(self._at_hand[-1]):
                await self._pool.release(self._at_hand.pop())
            if self._at_hand:
                connection = self._at_hand.pop()
            else:
                connection = await self._pool.acquire(timeout=WAIT_SECONDS)
            ready = False
            try:
                yield connection
                ready = not connection.is_in_transaction()
            finally:
                if ready:
                    self._at_hand.append(connection)
                else:
                    # The pool ends what it is in the middle of, or throws it away.
                    await self._pool.release(connection)
        finally:
            self._places.release()

    async def give_back(self) -> None:
        """Gives the one that was used longest ago back to the pool, which ends what is idle for long or very old."""
        if self._at_hand:
            await self._pool.release(self._at_hand.pop(0))


def _is_open(connection: asyncpg.Connection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken it back already
        return False

"""A caller's transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import asyncpg

from rpc.database.queries import SQL
from rpc.telemetry.traces import trace_statement


class Transaction:
    """Runs statements in a caller's transaction.

    After a migration that adds a column, Postgres refuses statements that a connection prepared before. If the first statement
    of a transaction is refused, the transaction is begun again and the statement is repeated.
    """

    def __init__(self, connection: asyncpg.Connection, begin: str) -> None:
        self._connection = connection
        self._begin = begin
        self._is_empty = True

    async def begin(self) -> None:
        """Opens the transaction as its caller."""
        await self._connection.execute(self._begin)

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Returns all rows of a statement."""
        return cast("list[asyncpg.Record]", await self._run(self._connection.fetch, statement, *arguments))

    async def fetchrow(self, statement: str, *arguments: Any) -> asyncpg.Record | None:
        """Returns the first row of a statement; None if there is none."""
        return await self._run(self._connection.fetchrow, statement, *arguments)

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        """Returns the first column of the first row; None if there is none."""
        return await self._run(self._connection.fetchval, statement, *arguments)

    async def execute(self, statement: str, *arguments: Any) -> str:
        """Runs a statement and returns its command tag."""
        return cast(str, await self._run(self._connection.execute, statement, *arguments))

    async def _run(self, method: Callable[..., Awaitable[Any]], statement: str, *arguments: Any) -> Any:
        is_first, self._is_empty = self._is_empty, False
        try:
            return await trace_statement(method, statement, *arguments)
        except asyncpg.InvalidCachedStatementError:
            if not is_first:
                raise
            # asyncpg has dropped the prepared statements of every connection of the pool.
            await self._connection.execute(SQL["rollback"])
            await self.begin()
            return await method(statement, *arguments)

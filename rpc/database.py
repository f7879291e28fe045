"""Postgres for the services: a pool whose every transaction is some caller's, under row-level security."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import asyncpg
import structlog

from rpc.errors import Conflict, DatabaseUnavailable, DeadlineExceeded, NotOwner
from rpc.identity import Identity

CONNECT_TIMEOUT_SECONDS = 3.0
ACQUIRE_TIMEOUT_SECONDS = 3.0
CLEAN_UP_TIMEOUT_SECONDS = 2.0
# How often health is looked at; a database that went away shows within this.
WATCH_SECONDS = 1.0
SESSION_SETTINGS = {
    "application_name": "pipeline",
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
    # Our statements are short: compiling them costs more than it saves.
    "jit": "off",
}
AWAY: tuple[type[Exception], ...] = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)

log = structlog.get_logger()


class GuardError(Exception):
    """The database would let somebody see another's rows: nothing may be served from it."""


def load_queries(package: str, name: str) -> Mapping[str, str]:
    """Reads a `.sql` file of a package: statements by the name in the `-- name:` line above each."""
    parts = re.split(r"^-- name: (\w+)\n", files(package).joinpath(name).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


SQL = load_queries("rpc", "database.sql")


class Database:
    """A lazily connecting pool. Opening it needs no database: a server starts without one and says so in its health."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.healthy = False

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, size: int) -> AsyncIterator[Database]:
        """Opens a pool of at most `size` connections and closes it in the end."""
        pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=size,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=15,
            server_settings=SESSION_SETTINGS,
            reset=_reset,
        )
        async with pool:
            try:
                yield cls(pool)
            finally:
                pool.terminate()

    @asynccontextmanager
    async def as_caller(self, caller: Identity) -> AsyncIterator[asyncpg.Connection]:
        """A transaction in which `caller` sees and writes their own rows only. Commits unless its body raises.

        Raises DatabaseUnavailable, Conflict, NotOwner, DeadlineExceeded; other database errors pass as they are.
        """
        with _translated():
            connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        try:
            with _translated():
                await connection.execute(SQL["begin_as"].format(role=caller.role, user_id=caller.user_id))
                yield connection
                await connection.execute(SQL["commit"])
        finally:
            await self._pool.release(connection)

    async def is_disabled(self, user_id: str) -> bool:
        """Whether a user may not sign in any more."""
        with _translated():
            return bool(await self._pool.fetchval(SQL["is_disabled"], user_id, timeout=ACQUIRE_TIMEOUT_SECONDS))

    async def check(self) -> None:
        """Makes sure that the database answers and guards its rows. Raises GuardError, or what asyncpg raises."""
        found = await self._pool.fetchrow(SQL["guard"], timeout=ACQUIRE_TIMEOUT_SECONDS)
        if found["tables"] == 0:
            raise asyncpg.UndefinedTableError("no tables yet: run `python -m jobs_service migrate`")
        if found["above_the_law"] or found["owned"]:
            raise GuardError("PIPELINE_DATABASE_URL names a login that row-level security does not bind")
        if found["unguarded"] or found["unchecked"]:
            what = ", ".join([*found["unguarded"], *found["unchecked"]])
            raise GuardError(f"row-level security is not on, forced and checked for {what}")

    async def watch(self, report: Callable[[bool], Any]) -> None:
        """Keeps `healthy` true to the facts and reports each change, until cancelled. Raises GuardError."""
        while True:
            try:
                await self.check()
                healthy, why = True, ""
            except GuardError:
                await report(False)
                raise
            except Exception as error:
                # Whatever it is, the answer is the same: not healthy, and say why, without the URL's password.
                healthy, why = False, f"{type(error).__name__}: {error}"
            if healthy != self.healthy or (why and not self.healthy):
                log.log(20 if healthy else 40, "database", healthy=healthy, error=why or None)
            if healthy != self.healthy:
                self.healthy = healthy
                await report(healthy)
            await asyncio.sleep(WATCH_SECONDS)


async def _reset(connection: asyncpg.Connection) -> None:
    """Readies a connection for its next caller.

    Every setting we make ends with its transaction, so ending that is enough; asyncpg's own RESET ALL costs Postgres
    as much as an estimate's query. A connection that cannot even roll back is thrown away.
    """
    if connection.is_in_transaction():
        await connection.execute(SQL["rollback"], timeout=CLEAN_UP_TIMEOUT_SECONDS)


class _translated:  # noqa: N801 - reads as a word: `with _translated():`
    """Turns what Postgres and the way to it can do into errors that callers understand."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case asyncpg.QueryCanceledError():
                raise DeadlineExceeded from error
            case asyncpg.SerializationError() | asyncpg.DeadlockDetectedError() | asyncpg.LockNotAvailableError():
                raise Conflict("Conflict", details="Two calls met in the database; repeat this one.") from error
            case asyncpg.InsufficientPrivilegeError():
                raise NotOwner("Permission denied", details="The row belongs to somebody else.") from error
            case TimeoutError() | asyncpg.UndefinedTableError():
                raise DatabaseUnavailable from error
            case _ if isinstance(error, AWAY):
                raise DatabaseUnavailable from error

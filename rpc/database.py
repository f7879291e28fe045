"""Postgres for the services: a pool whose every transaction is some caller's, under row-level security."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, cast

import asyncpg
import structlog

from rpc.connections import Connections
from rpc.errors import Conflict, DatabaseUnavailable, DeadlineExceeded, NotOwner, OperatorError, StaleStatement, Undone
from rpc.identity import Identity

CONNECT_TIMEOUT_SECONDS = 3.0
CLEAN_UP_TIMEOUT_SECONDS = 2.0
# How often health is looked at; a database that went away shows within this.
WATCH_SECONDS = 1.0
MET = "Two calls met in the database; repeat this one."
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


class GuardError(OperatorError):
    """The database would let somebody see another's rows: nothing may be served from it."""


def load_queries(package: str, name: str) -> Mapping[str, str]:
    """Reads a `.sql` file of a package: statements by the name in the `-- name:` line above each."""
    parts = re.split(r"^-- name: (\w+)\n", files(package).joinpath(name).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


SQL = load_queries("rpc", "database.sql")


class Transaction:
    """A caller's transaction, as statements are run in it.

    A migration that adds a column makes Postgres refuse the statements that a connection prepared before it. Where such
    a statement is the first of its transaction, nothing has happened yet: the transaction begins anew, and it runs again.
    """

    def __init__(self, connection: asyncpg.Connection, begin: str) -> None:
        self._connection = connection
        self._begin = begin
        self._untouched = True

    async def begin(self) -> None:
        """Opens the transaction as its caller."""
        await self._connection.execute(self._begin)

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """All rows of a statement."""
        return cast("list[asyncpg.Record]", await self._run(self._connection.fetch, statement, *arguments))

    async def fetchrow(self, statement: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row of a statement; None where there is none."""
        return await self._run(self._connection.fetchrow, statement, *arguments)

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        """The first column of the first row; None where there is none."""
        return await self._run(self._connection.fetchval, statement, *arguments)

    async def execute(self, statement: str, *arguments: Any) -> str:
        """Runs a statement and returns its command tag."""
        return cast(str, await self._run(self._connection.execute, statement, *arguments))

    async def _run(self, method: Callable[..., Awaitable[Any]], statement: str, *arguments: Any) -> Any:
        untouched, self._untouched = self._untouched, False
        try:
            return await method(statement, *arguments)
        except asyncpg.InvalidCachedStatementError:
            if not untouched:
                raise
            # asyncpg has dropped what every connection of the pool had prepared.
            await self._connection.execute(SQL["rollback"])
            await self.begin()
            return await method(statement, *arguments)


class Database:
    """A lazily connecting pool. Opening it needs no database: a server starts without one and says so in its health."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._connections = Connections(pool)
        self._guarded = False
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
            connection_class=_Connection,
        )
        async with pool:
            try:
                yield cls(pool)
            finally:
                pool.terminate()

    @asynccontextmanager
    async def as_caller(self, caller: Identity, first: str = "") -> AsyncIterator[Transaction]:
        """A transaction in which `caller` sees and writes their own rows only. Commits unless its body raises.

        `first` is a statement without parameters that is run with the transaction's beginning, in one round trip.

        Raises DatabaseUnavailable, Conflict, NotOwner, DeadlineExceeded; other database errors pass as they are.
        """
        async with self._connection() as connection:
            begin = SQL["begin_as"].format(role=caller.role, user_id=caller.user_id)
            transaction = Transaction(connection, begin + first)
            try:
                await transaction.begin()
            except asyncpg.InsufficientPrivilegeError as error:
                raise GuardError(f"the login may not become pipeline_{caller.role}") from error
            yield transaction
            await connection.execute(SQL["commit"])

    async def call_as(self, caller: Identity, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of a statement that is one call of a function, which becomes the caller, its first parameter, by itself.

        One round trip, and a transaction of its own, where `as_caller` takes three. Raises the same. Such functions become
        users and nobody else.
        """
        if caller.role != "user":
            raise GuardError(f"a call of a user's was made for a {caller.role}")
        async with self._connection() as connection:
            try:
                return cast("list[asyncpg.Record]", await connection.fetch(statement, caller.user_id, *arguments))
            except asyncpg.InsufficientPrivilegeError as error:
                # Such functions write rows of the caller's only: what is refused is to become the caller.
                raise GuardError(f"the login may not become pipeline_{caller.role}") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        with _translated():
            if not self._guarded:
                await self.check()
            async with self._connections.borrow() as connection:
                yield connection

    async def fetch_as_service(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """What the services' own login may read, which is next to nothing: see the policies `to pipeline_service`.

        Raises DatabaseUnavailable, Conflict, DeadlineExceeded.
        """
        async with self._connection() as connection:
            return cast("list[asyncpg.Record]", await connection.fetch(statement, *arguments))

    async def is_disabled(self, user_id: str) -> bool:
        """Whether a user may not sign in any more."""
        async with self._connection() as connection:
            return bool(await connection.fetchval(SQL["is_disabled"], user_id))

    async def check(self) -> None:
        """Makes sure that the database answers and guards its rows. Raises GuardError, or what asyncpg raises."""
        # That others have every connection does not say that the database is away.
        async with self._connections.borrow(patient=True) as connection:
            found = await connection.fetchrow(SQL["guard"], timeout=CONNECT_TIMEOUT_SECONDS)
        if found["tables"] == 0:
            raise asyncpg.UndefinedTableError("no tables yet: run `python -m jobs_service migrate`")
        if found["above_the_law"] or found["owned"]:
            raise GuardError("PIPELINE_DATABASE_URL names a login that row-level security does not bind")
        faults = [name for key in ("unguarded", "ways_around", "unchecked", "unruled") for name in found[key]]
        if faults:
            what = ", ".join(faults)
            raise GuardError(f"row-level security is not on, forced and checked for {what}")
        self._guarded = True

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
            with suppress(*AWAY):  # it is thrown away then
                await self._connections.give_back()


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that the pool readies for its next caller with no more work than that takes."""

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's own signature
        """Every setting we make ends with its transaction, so ending what is open is enough.

        asyncpg's own RESET ALL costs Postgres as much as an estimate's query. A connection that cannot even roll back is
        thrown away.
        """
        end = "rollback" if self.is_in_transaction() else "settle"
        await self.execute(SQL[end], timeout=timeout or CLEAN_UP_TIMEOUT_SECONDS)


class _translated:  # noqa: N801 - reads as a word: `with _translated():`
    """Turns what Postgres and the way to it can do into errors that callers understand."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncpg.PostgresError):
            # It holds the row that was refused, and that is no business of a log's.
            error.detail = None
        match error:
            case asyncpg.QueryCanceledError():
                raise DeadlineExceeded from error
            case asyncpg.InvalidCachedStatementError():
                raise StaleStatement from error
            case asyncpg.SerializationError() | asyncpg.DeadlockDetectedError():
                raise Undone("Conflict", details=MET) from error
            case asyncpg.LockNotAvailableError():
                raise Conflict("Conflict", details=MET) from error
            case asyncpg.InsufficientPrivilegeError():
                raise NotOwner("Permission denied", details="The row belongs to somebody else.") from error
            case TimeoutError() | asyncpg.UndefinedTableError():
                raise DatabaseUnavailable from error
            case _ if isinstance(error, AWAY):
                raise DatabaseUnavailable from error

"""The connection pool of a service. Its transactions run as their caller, under row-level security."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Set
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import structlog

from rpc.database.errors import ConnectionRefused, GuardError, translated_errors
from rpc.database.queries import SQL
from rpc.database.transaction import Transaction
from rpc.identity.api_keys import key_hash
from rpc.identity.model import Identity
from rpc.identity.origin import current_origin, origin_claims
from rpc.process.database_url import DatabaseUrl
from rpc.telemetry.metrics import Metrics
from rpc.telemetry.traces import trace_statement

CONNECT_TIMEOUT_SECONDS = 3.0
# Longest wait for a connection.
ACQUIRE_TIMEOUT_SECONDS = 3.0
RESET_TIMEOUT_SECONDS = 2.0
HEALTH_INTERVAL_SECONDS = 1.0
SESSION_SETTINGS = {
    "application_name": "pipeline",
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
    # Statements are short: compiling them costs more than it saves.
    "jit": "off",
}

# Errors of PostgreSQL and asyncpg for a parameter of the URL.
URL_ERRORS = (
    asyncpg.UndefinedObjectError,
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.InvalidParameterValueError,
    asyncpg.PostgresSyntaxError,
    asyncpg.exceptions.ClientConfigurationError,
)
POOLER_MESSAGE = (
    "PIPELINE_DATABASE_URL leads to a pooler (PgBouncer, Supavisor): add pgbouncer=true to its parameters, "
    "?pgbouncer=true where it has none; pgbouncer=false for a proxy that keeps sessions"
)

log = structlog.get_logger()


class Database:
    """A pool that connects on first use: a server starts without its database, and is NOT_SERVING until it answers."""

    def __init__(self, pool: asyncpg.Pool, *, pgbouncer: bool | None) -> None:
        self._pool = pool
        self._pgbouncer = pgbouncer
        self._is_guarded = False
        self._waiting = 0
        self.healthy = False

    def watch_pool(self, metrics: Metrics) -> None:
        """Registers metrics of the pool."""
        connections, idle = "db_client_connection_count", self._pool.get_idle_size
        for state, read in (("used", lambda: self._pool.get_size() - idle()), ("idle", idle)):
            metrics.watch(connections, "Connections of the pool.", read, db_client_connection_state=state)
        metrics.watch(
            "db_client_connection_pending_requests",
            "Calls that wait for a connection.",
            lambda: max(0, self._waiting),
        )
        metrics.watch("pipeline_database_up", "1 while the database answers.", lambda: int(self.healthy))

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, size: int) -> AsyncIterator[Database]:
        """Opens a pool of at most `size` connections."""
        database_url = DatabaseUrl.parse(url)
        # A pooler shares sessions, so the settings have to be those of the login. `migrate` sets them.
        names = {"application_name"} if database_url.pgbouncer else SESSION_SETTINGS.keys()
        pool = asyncpg.create_pool(
            **database_url.connect_arguments(),
            min_size=0,
            max_size=size,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=15,
            server_settings={name: SESSION_SETTINGS[name] for name in names},
            connection_class=_Connection,
        )
        async with pool:
            try:
                yield cls(pool, pgbouncer=database_url.pgbouncer)
            finally:
                pool.terminate()

    @asynccontextmanager
    async def as_caller(
        self, caller: Identity, first: str = "", *, role: str | None = None
    ) -> AsyncIterator[Transaction]:
        """Opens a transaction in which `caller` reads and writes only their own rows. Commits unless its body raises.

        `first` is a statement without parameters that is sent together with `begin`, in one round trip. `role` is a role of
        the database, without `pipeline_`, for a login that may not become the caller's.

        Raises DatabaseUnavailable, Conflict, NotOwner, DeadlineExceeded; other database errors are not changed.
        """
        async with self._connection() as connection:
            begin = SQL["begin_as"].format(
                role=role or caller.role,
                caller_role=caller.role,
                user_id=caller.user_id,
                origin=origin_claims(caller),
            )
            transaction = Transaction(connection, begin + first)
            try:
                await transaction.begin()
            except asyncpg.InsufficientPrivilegeError as error:
                raise GuardError(f"the login may not become pipeline_{role or caller.role}") from error
            yield transaction
            await connection.execute(SQL["commit"])

    async def call_as(self, caller: Identity, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Returns the rows of a database function that itself acts as the caller, its first parameter. For users only.

        It takes one round trip, in its own transaction; `as_caller` takes three. Raises the same errors.
        """
        if caller.role != "user":
            raise GuardError(f"a function for users was called as {caller.role}")
        async with self._connection() as connection:
            try:
                return cast(
                    "list[asyncpg.Record]",
                    await trace_statement(connection.fetch, statement, caller.user_id, *arguments),
                )
            except asyncpg.InsufficientPrivilegeError as error:
                # These functions use rows of the caller only, so the change of role was refused.
                raise GuardError(f"the login may not become the caller: {error}") from error

    async def fetch_as_service(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Returns rows that the service's own login may read, by the policies `to pipeline_estimator`.

        Raises DatabaseUnavailable, Conflict, DeadlineExceeded.
        """
        async with self._connection() as connection:
            return cast("list[asyncpg.Record]", await trace_statement(connection.fetch, statement, *arguments))

    async def is_disabled(self, user_id: str) -> bool:
        """Whether a user may no longer sign in."""
        async with self._connection() as connection:
            return bool(await connection.fetchval(SQL["is_disabled"], user_id))

    async def find_api_key(self, key: str) -> Identity | None:
        """Returns the identity of an API key, also if it has expired. None: there is no such key."""
        async with self._connection() as connection:
            origin = current_origin.get()
            claims = "{" + origin.claims(None).removeprefix(",") + "}" if origin else "{}"
            row = await connection.fetchrow(SQL["find_api_key"], key_hash(key), claims)
        if row is None:
            return None
        scopes = frozenset(row["scopes"])
        return Identity(str(row["user_id"]), row["role"], row["expires_at"], scopes, str(row["id"]))

    async def check(self) -> None:
        """Checks that the database answers and guards its rows. Raises GuardError, ConnectionRefused and asyncpg's errors."""
        try:
            # Without a timeout: the database may answer while all connections of the pool are in use.
            connection = await self._acquire(None)
        except URL_ERRORS as error:
            raise ConnectionRefused(f"PIPELINE_DATABASE_URL: {error}") from error
        except asyncpg.ProtocolViolationError as error:
            # PgBouncer raises this for all of its errors, such as a PostgreSQL that does not answer.
            if "unsupported startup parameter" not in str(error):
                raise
            raise ConnectionRefused(POOLER_MESSAGE) from error
        try:
            if not self._is_guarded:
                await self._check_session(connection)
            row = await connection.fetchrow(SQL["guard"], timeout=CONNECT_TIMEOUT_SECONDS)
            changes = [] if self._is_guarded or row["tables"] == 0 else await access_differences(connection)
            connection.mark_settled()
        finally:
            await self._pool.release(connection)
        if row["tables"] == 0:
            raise asyncpg.UndefinedTableError("no tables yet: run `python -m jobs_service migrate`")
        if row["login_bypasses"] or row["login_owns"]:
            raise GuardError("row-level security does not apply to the login of PIPELINE_DATABASE_URL")
        gaps = [name for key in ("not_forced", "bypasses", "not_checked", "without_policy") for name in row[key]]
        if gaps:
            raise GuardError(f"row-level security is not on, forced and checked for {', '.join(gaps)}")
        if changes:
            raise GuardError(f"roles, policies or grants are not those of the last migration: {'; '.join(changes)}")
        self._is_guarded = True

    async def _check_session(self, connection: asyncpg.Connection) -> None:
        session = await connection.fetchrow(SQL["session"], timeout=CONNECT_TIMEOUT_SECONDS)
        if session["process"] != connection.get_server_pid() and self._pgbouncer is None:
            raise ConnectionRefused(POOLER_MESSAGE)
        if session["statement_timeout"] != SESSION_SETTINGS["statement_timeout"]:
            settings = ", ".join(f"{name} = {value}" for name, value in SESSION_SETTINGS.items())
            raise ConnectionRefused(
                "the login of PIPELINE_DATABASE_URL has none of the settings that a pooled connection needs: run "
                f"`python -m jobs_service migrate`, or for a login of your own `alter role … set` ({settings})"
            )

    async def watch(self, report: Callable[[bool], Any]) -> None:
        """Checks the database every second and reports each change of `healthy`, until cancelled.

        Raises GuardError, ConnectionRefused.
        """
        while True:
            try:
                await self.check()
                healthy, reason = True, ""
            except (GuardError, ConnectionRefused):
                await report(False)
                raise
            except Exception as error:
                # asyncpg's texts do not contain the URL's password.
                healthy, reason = False, f"{type(error).__name__}: {error}"
            if healthy != self.healthy or (reason and not self.healthy):
                log.log(logging.INFO if healthy else logging.ERROR, "database", healthy=healthy, error=reason or None)
            if healthy != self.healthy:
                self.healthy = healthy
                await report(healthy)
            await asyncio.sleep(HEALTH_INTERVAL_SECONDS)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        with translated_errors():
            if not self._is_guarded:
                await self.check()
            connection = await self._acquire(ACQUIRE_TIMEOUT_SECONDS)
            try:
                yield connection
                connection.mark_settled()
            finally:
                await self._pool.release(connection)

    async def _acquire(self, timeout_seconds: float | None) -> asyncpg.Connection:
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=timeout_seconds)
        finally:
            self._waiting -= 1


async def access_differences(connection: asyncpg.Connection) -> list[str]:
    """Returns the differences between the database's roles, policies and grants and those of the last migration's files."""
    current = await connection.fetch(SQL["access"], "public", timeout=CONNECT_TIMEOUT_SECONDS)
    recorded = await connection.fetch(SQL["recorded_access"], timeout=CONNECT_TIMEOUT_SECONDS)
    return differences({row["line"] for row in current}, {row["line"] for row in recorded})


def differences(current: Set[str], expected: Set[str]) -> list[str]:
    """Returns the lines that are in only one of the sets."""
    return [f"unexpected: {line}" for line in sorted(current - expected)] + [
        f"missing: {line}" for line in sorted(expected - current)
    ]


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection whose `reset` for the next caller needs no round trip after a call without an error."""

    _is_settled = False

    def mark_settled(self) -> None:
        """Records that every statement has completed: `reset` then has at most a transaction to end."""
        self._is_settled = True

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's own signature
        """Ends an open transaction, and with it every setting that was made. The pool closes a connection whose reset fails.

        asyncpg's own RESET ALL costs Postgres as much as the query of an estimate.
        """
        is_settled, self._is_settled = self._is_settled, False
        if self.is_in_transaction():
            await self.execute(SQL["rollback"], timeout=timeout or RESET_TIMEOUT_SECONDS)
        elif not is_settled:
            # A statement that was prepared and never run leaves a transaction that the protocol does not report.
            await self.execute(SQL["settle"], timeout=timeout or RESET_TIMEOUT_SECONDS)

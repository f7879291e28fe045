"""Translates the errors of Postgres and of its connections into the errors that callers see."""

from __future__ import annotations

import asyncpg

from rpc.errors import (
    Conflict,
    DatabaseUnavailable,
    DeadlineExceeded,
    NotOwner,
    OperatorError,
    StaleStatement,
    TransactionRolledBack,
)

UNAVAILABLE: tuple[type[Exception], ...] = (
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


class GuardError(OperatorError):
    """The database does not protect users' rows from each other. The service must not use it."""


class ConnectionRefused(OperatorError):
    """PostgreSQL or a pooler refuses connections with the parameters of PIPELINE_DATABASE_URL."""


class translated_errors:  # noqa: N801 - a context manager: `with translated_errors():`
    """Raises ServiceErrors in place of the database's errors. Other errors are not changed."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, asyncpg.PostgresError):
            # The detail contains the refused row, which must not be logged.
            error.detail = None
        match error:
            case asyncpg.QueryCanceledError():
                raise DeadlineExceeded from error
            case asyncpg.InvalidCachedStatementError():
                raise StaleStatement from error
            case asyncpg.SerializationError() | asyncpg.DeadlockDetectedError():
                raise TransactionRolledBack from error
            case asyncpg.LockNotAvailableError():
                raise Conflict from error
            case asyncpg.InsufficientPrivilegeError():
                raise NotOwner from error
            case TimeoutError() | asyncpg.UndefinedTableError():
                raise DatabaseUnavailable from error
            case _ if isinstance(error, UNAVAILABLE):
                raise DatabaseUnavailable from error

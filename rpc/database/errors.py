"""Errors of Postgres and of the way to it, translated once into the errors that callers see."""

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
    """The database would show users each other's rows; nothing may be served from it."""


class ConnectionRefused(OperatorError):
    """The database, or a pooler before it, does not take connections as PIPELINE_DATABASE_URL describes them."""


class translated_errors:  # noqa: N801 - a context manager: `with translated_errors():`
    """Raises ServiceErrors in place of the database's errors. Others pass as they are."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, asyncpg.PostgresError):
            # It contains the refused row, which must not be logged.
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

"""Errors that services raise on purpose. `rpc.status` turns them into statuses of gRPC and HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ServiceError(Exception):
    """An error that its caller may see.

    `code` is a gRPC status name, `reason` a value of `pipeline.errors.v1.ErrorReason` without its prefix; `rpc.status` has
    the HTTP status. `message` is one short sentence, by default the class's `title`; `details` says where the error is and
    what to do, by default the class's `advice`; `metadata` is for programs.
    """

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"
    title: ClassVar[str] = "internal error"
    advice: ClassVar[str] = ""

    def __init__(
        self, message: str | None = None, *, details: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message or self.title)
        self.message = message or self.title
        self.details = self.advice if details is None else details
        self.metadata = dict(metadata or {})


class OperatorError(Exception):
    """A fault that only an operator can repair, such as a missing setting. The server ends with its text, one line."""


class ValidationFailed(ServiceError):
    """Missing fields, or values of the wrong type or outside their limits. `violations`: (field path, message) pairs."""

    code = "INVALID_ARGUMENT"
    reason = "VALIDATION_FAILED"
    title = "Validation error"

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        super().__init__()
        self.violations = violations


class MalformedRequest(ServiceError):
    """Bytes that are not the message of the contract."""

    code = "INVALID_ARGUMENT"
    reason = "MALFORMED_REQUEST"
    title = "Malformed request"


class NoMessage(ServiceError):
    """A call that ended without the message of its request."""

    code = "UNIMPLEMENTED"
    reason = "UNIMPLEMENTED"
    title = "No message"
    advice = "The call ended without a request."


class UnknownService(ServiceError):
    """A health check of a service that this server does not have."""

    code = "NOT_FOUND"
    reason = "SERVICE_UNKNOWN"
    title = "Unknown service"
    advice = "This server has no service of that name; reflection lists its services."


class Unauthenticated(ServiceError):
    """No token, or one that is not valid."""

    code = "UNAUTHENTICATED"
    reason = "TOKEN_INVALID"


class TokenExpired(Unauthenticated):
    """A token that has expired."""

    reason = "TOKEN_EXPIRED"


class UserDisabled(Unauthenticated):
    """A token of a disabled user."""

    reason = "USER_DISABLED"


class RoleNotAllowed(ServiceError):
    """A role that may not call this RPC."""

    code = "PERMISSION_DENIED"
    reason = "ROLE_NOT_ALLOWED"
    title = "Permission denied"


class ScopeNotAllowed(ServiceError):
    """An API key without the scope that this RPC needs."""

    code = "PERMISSION_DENIED"
    reason = "SCOPE_NOT_ALLOWED"
    title = "Permission denied"

    def __init__(self, scope: str) -> None:
        super().__init__(
            details="API keys may not make this call; use an access token."
            if scope == "sign_in"
            else f"The API key needs the scope {scope}; create a key that has it.",
            metadata={"scope": scope},
        )


class NotOwner(ServiceError):
    """A row that row-level security refused to the caller."""

    code = "PERMISSION_DENIED"
    reason = "NOT_OWNER"
    title = "Permission denied"
    advice = "The row belongs to another user."


class Conflict(ServiceError):
    """Two calls that conflicted in the database."""

    code = "ABORTED"
    reason = "CONFLICT"
    title = "Conflict"
    advice = "Two calls conflicted in the database; repeat this one."


class TransactionRolledBack(Conflict):
    """A transaction that Postgres rolled back because of another one. It may be repeated at once."""


class StaleStatement(TransactionRolledBack):
    """A prepared statement on a table that a migration has changed since."""

    advice = "The database changed under this call; repeat it."


class Overloaded(ServiceError):
    """The limit of concurrent calls, of a caller or of the server, is reached."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"
    title = "Server busy"
    advice = "Too many of your calls at once; try again in a second."


class RateLimited(ServiceError):
    """A caller above the rate limit. `unit` is what is counted, in the plural."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"

    def __init__(self, per_second: float, unit: str) -> None:
        super().__init__(
            f"Too many {unit}",
            details=f"At most {per_second:g} {unit} a second; try again in a second.",
            metadata={"limit": f"{per_second:g}"},
        )


class TooManyWatches(ServiceError):
    """The limit of open watches, uploads and waits, of a caller or of the server, is reached."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_MANY_WATCHES"
    title = "Too many watches"

    def __init__(self, kind: str = "of your watches, uploads and waits") -> None:
        super().__init__(details=f"Too many {kind} are open at once; close one, or try again later.")


class BufferOverrun(ServiceError):
    """A caller that reads a stream more slowly than its messages arrive."""

    code = "RESOURCE_EXHAUSTED"
    reason = "BUFFER_OVERRUN"
    title = "Reader too slow"
    advice = "Events arrived faster than they were read; watch again with the last id."


class TooLarge(ServiceError):
    """A body, file, message or header above its limit."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_LARGE"
    title = "Too large"


class DatabaseUnavailable(ServiceError):
    """Postgres does not answer."""

    code = "UNAVAILABLE"
    reason = "DATABASE_UNAVAILABLE"
    title = "Database unavailable"
    advice = "The database does not answer; try again in a few seconds."


class IssuerUnavailable(ServiceError):
    """The token issuer's keys cannot be fetched, and none are cached."""

    code = "UNAVAILABLE"
    reason = "ISSUER_UNAVAILABLE"
    title = "Token issuer unavailable"
    advice = "The issuer's keys cannot be fetched; try again in a few seconds."


class DeadlineExceeded(ServiceError):
    """A call that did not finish before its deadline."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"
    title = "Deadline exceeded"
    advice = "The call took longer than its deadline; try again with a longer one."

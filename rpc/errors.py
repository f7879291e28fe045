"""Errors that services raise on purpose. `status` turns them into statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ServiceError(Exception):
    """An error that its caller may see.

    `code` is a gRPC status name, `reason` a value of `pipeline.errors.v1.ErrorReason` without its prefix. `message` is
    one short sentence; `details` says where the error is and what to do; `metadata` is for programs.
    """

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, details: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.metadata = dict(metadata or {})


class OperatorError(Exception):
    """A fault that keeps a server from serving and that only its operator can repair; its text is one line."""


class ValidationFailed(ServiceError):
    """Missing fields, or values of the wrong type or outside their limits. `violations`: (field path, message) pairs."""

    code = "INVALID_ARGUMENT"
    reason = "VALIDATION_FAILED"

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        super().__init__("Validation error")
        self.violations = violations


class MalformedRequest(ServiceError):
    """Bytes that are not the message of the contract."""

    code = "INVALID_ARGUMENT"
    reason = "MALFORMED_REQUEST"


class NoMessage(ServiceError):
    """A call without the one message that its RPC takes."""

    code = "UNIMPLEMENTED"
    reason = "UNIMPLEMENTED"


class UnknownService(ServiceError):
    """Health of a service that this server does not have."""

    code = "NOT_FOUND"
    reason = "SERVICE_UNKNOWN"

    def __init__(self) -> None:
        super().__init__(
            "Unknown service", details="This server has no service of that name; reflection lists its services."
        )


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


class ScopeNotAllowed(ServiceError):
    """An API key without the scope that this RPC needs."""

    code = "PERMISSION_DENIED"
    reason = "SCOPE_NOT_ALLOWED"

    def __init__(self, scope: str) -> None:
        super().__init__(
            "Permission denied",
            details="API keys may not make this call; use an access token."
            if scope == "sign_in"
            else f"The API key needs the scope {scope}; create a key that has it.",
            metadata={"scope": scope},
        )


class NotOwner(ServiceError):
    """A row that row-level security refused to the caller."""

    code = "PERMISSION_DENIED"
    reason = "NOT_OWNER"


class Conflict(ServiceError):
    """Two calls that conflicted in the database."""

    code = "ABORTED"
    reason = "CONFLICT"


class Undone(Conflict):
    """A transaction that Postgres rolled back because of another one. It may be repeated at once."""


class StaleStatement(Undone):
    """A prepared statement on a table that a migration has changed since."""

    def __init__(self) -> None:
        super().__init__("Conflict", details="The database changed under this call; repeat it.")


class Overloaded(ServiceError):
    """A server, or a caller, at the limit of concurrent calls."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"

    def __init__(self) -> None:
        super().__init__("Server busy", details="Too many of your calls at once; try again in a second.")


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
    """A caller, or a server, at its limit of long calls: watches, uploads, waits."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_MANY_WATCHES"

    def __init__(self, kind: str = "of your watches, uploads and waits") -> None:
        super().__init__(
            "Too many watches", details=f"Too many {kind} are open at once; close one, or try again later."
        )


class BufferOverrun(ServiceError):
    """A caller that reads a stream more slowly than its messages arrive."""

    code = "RESOURCE_EXHAUSTED"
    reason = "BUFFER_OVERRUN"

    def __init__(self) -> None:
        super().__init__(
            "Reader too slow", details="Events arrived faster than they were read; watch again with the last id."
        )


class TooLarge(ServiceError):
    """A body, file, message or header above its limit."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_LARGE"


class DatabaseUnavailable(ServiceError):
    """Postgres does not answer."""

    code = "UNAVAILABLE"
    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("Database unavailable", details="The database does not answer; try again in a few seconds.")


class IssuerUnavailable(ServiceError):
    """The token issuer's keys cannot be fetched, and none are cached."""

    code = "UNAVAILABLE"
    reason = "ISSUER_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__(
            "Token issuer unavailable", details="The issuer's keys cannot be fetched; try again in a few seconds."
        )


class DeadlineExceeded(ServiceError):
    """A call that did not finish before its deadline."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"

    def __init__(self) -> None:
        super().__init__(
            "Deadline exceeded", details="The call took longer than its deadline; try again with a longer one."
        )

"""Errors that services raise on purpose. `rpc.status` turns them into statuses of gRPC and HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar


class ServiceError(Exception):
    """An error that its caller may see.

    `code` is a gRPC status name, `reason` a value of `pipeline.errors.v1.ErrorReason` without its prefix, by default the
    class's name: JobNotFound has JOB_NOT_FOUND. `rpc.status` has the HTTP status. `message` is one short sentence, by
    default the class's `title`; `details` says where the error is and what to do, by default the class's `advice`;
    `metadata` is for programs.
    """

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"
    title: ClassVar[str] = "internal error"
    advice: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if "reason" not in vars(cls):
            cls.reason = re.sub("(?<=[a-z])(?=[A-Z])", "_", cls.__name__).upper()

    def __init__(
        self, message: str | None = None, *, details: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message or self.title)
        self.message = message or self.title
        self.details = self.advice if details is None else details
        self.metadata = dict(metadata or {})


# The bases by code. Only their subclasses are raised.


class InvalidArgument(ServiceError):
    """A request that is invalid in any state of the server."""

    code = "INVALID_ARGUMENT"


class FailedPrecondition(ServiceError):
    """A request that the state of its resource does not allow."""

    code = "FAILED_PRECONDITION"


class NotFound(ServiceError):
    """A resource that does not exist or belongs to another user: the response is the same for both."""

    code = "NOT_FOUND"


class PermissionDenied(ServiceError):
    """A call that its caller may not make."""

    code = "PERMISSION_DENIED"
    title = "Permission denied"


class Unavailable(ServiceError):
    """A service, database or storage that the server needs does not answer."""

    code = "UNAVAILABLE"


class ResourceExhausted(ServiceError):
    """A limit of a user or of the server is reached."""

    code = "RESOURCE_EXHAUSTED"


class LimitReached(ResourceExhausted):
    """A request for more than a user may have, or the server accepts. `advice` contains `{limit}`, which is replaced."""

    def __init__(self, *, limit: int) -> None:
        super().__init__(details=self.advice.format(limit=limit), metadata={"limit": str(limit)})


class OperatorError(Exception):
    """A fault that only an operator can repair, such as a missing setting. The process exits with its one-line message."""


class ValidationFailed(InvalidArgument):
    """Missing fields, or values of the wrong type or outside their limits. `violations`: (field path, message) pairs."""

    title = "Validation error"

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        super().__init__()
        self.violations = violations


class MalformedRequest(InvalidArgument):
    """Bytes that are not the message of the contract."""

    title = "Malformed request"


class NoMessage(ServiceError):
    """A call that ended without the message of its request."""

    code = "UNIMPLEMENTED"
    reason = "UNIMPLEMENTED"
    title = "No message"
    advice = "The call ended without a request."


class UnknownService(NotFound):
    """A health check of a service that this server does not have."""

    reason = "SERVICE_UNKNOWN"
    title = "Unknown service"
    advice = "This server has no service of that name; reflection lists its services."


class Unauthenticated(ServiceError):
    """No token, or one that is not valid."""

    code = "UNAUTHENTICATED"
    reason = "TOKEN_INVALID"


class TokenExpired(Unauthenticated):
    """A token that has expired."""


class UserDisabled(Unauthenticated):
    """A token of a disabled user."""


class RoleNotAllowed(PermissionDenied):
    """A role that may not call this RPC."""


class ScopeNotAllowed(PermissionDenied):
    """An API key without the scope that this RPC needs."""

    def __init__(self, scope: str) -> None:
        super().__init__(
            details="API keys may not make this call; use an access token."
            if scope == "sign_in"
            else f"The API key needs the scope {scope}; create a key that has it.",
            metadata={"scope": scope},
        )


class NotOwner(PermissionDenied):
    """A row that row-level security refused to the caller."""

    advice = "The row belongs to another user."


class Conflict(ServiceError):
    """Two calls that conflicted in the database."""

    code = "ABORTED"
    title = "Conflict"
    advice = "Two calls conflicted in the database; repeat this one."


class TransactionRolledBack(Conflict):
    """A transaction that Postgres rolled back because of another one. It may be repeated at once."""

    reason = "CONFLICT"


class StaleStatement(TransactionRolledBack):
    """A prepared statement on a table that a migration has changed since."""

    reason = "CONFLICT"
    advice = "The database changed under this call; repeat it."


class Overloaded(ResourceExhausted):
    """The limit of concurrent calls, of a caller or of the server, is reached."""

    title = "Server busy"
    advice = "Too many of your calls at once; try again in a second."


class RateLimited(ResourceExhausted):
    """A caller above the rate limit. `unit` is what is counted, in the plural."""

    def __init__(self, per_second: float, unit: str) -> None:
        super().__init__(
            f"Too many {unit}",
            details=f"At most {per_second:g} {unit} a second; try again in a second.",
            metadata={"limit": f"{per_second:g}"},
        )


class TooManyWatches(ResourceExhausted):
    """The limit of open watches, uploads and waits, of a caller or of the server, is reached."""

    title = "Too many watches"

    def __init__(self, kind: str = "of your watches, uploads and waits") -> None:
        super().__init__(details=f"Too many {kind} are open at once; close one, or try again later.")


class TooManyUploads(LimitReached):
    """A user, or the server, at the limit of concurrent uploads, in the gateway or in the Jobs service."""

    title = "Too many uploads"
    advice = "A user may have at most {limit} uploads at once, fewer while many users upload; try again later."


class BufferOverrun(ResourceExhausted):
    """A caller that reads a stream more slowly than its messages arrive."""

    title = "Reader too slow"
    advice = "Events arrived faster than they were read; watch again with the last id."


class TooLarge(ResourceExhausted):
    """A body, file, message or header above its limit."""

    title = "Too large"


class DatabaseUnavailable(Unavailable):
    """Postgres does not answer."""

    title = "Database unavailable"
    advice = "The database does not answer; try again in a few seconds."


class IssuerUnavailable(Unavailable):
    """The token issuer's keys cannot be fetched, and none are cached."""

    title = "Token issuer unavailable"
    advice = "The issuer's keys cannot be fetched; try again in a few seconds."


class DeadlineExceeded(ServiceError):
    """A call that did not finish before its deadline."""

    code = "DEADLINE_EXCEEDED"
    title = "Deadline exceeded"
    advice = "The call took longer than its deadline; try again with a longer one."

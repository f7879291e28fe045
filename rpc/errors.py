"""Errors that a service raises on purpose. They say what happened; `boundary` says it over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ServiceError(Exception):
    """A refusal that its caller may see.

    `code` is a gRPC status name, `reason` a word of `pipeline.errors.v1.ErrorReason` without its prefix. `message` is one
    short sentence; `details` says where and what to do; `metadata` holds what a program may want to read.
    """

    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, details: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.metadata = dict(metadata or {})


class OperatorError(Exception):
    """What keeps a server from serving, and only its operator can mend; says so in one line."""


class ValidationFailed(ServiceError):
    """Fields that are missing, of the wrong type or outside their limits. `violations`: (field path, message) pairs."""

    code = "INVALID_ARGUMENT"
    reason = "VALIDATION_FAILED"

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        super().__init__("Validation error")
        self.violations = violations


class MalformedRequest(ServiceError):
    """Bytes that are not what the contract says."""

    code = "INVALID_ARGUMENT"
    reason = "MALFORMED_REQUEST"


class NoMessage(ServiceError):
    """A call of an RPC that takes one message, without one."""

    code = "UNIMPLEMENTED"
    reason = "UNIMPLEMENTED"


class UnknownService(ServiceError):
    """Health of a service that is not here."""

    code = "NOT_FOUND"
    reason = "SERVICE_UNKNOWN"

    def __init__(self) -> None:
        super().__init__("Unknown service", details="This server has no service of that name; reflection lists them.")


class Unauthenticated(ServiceError):
    """No token, or one that does not hold."""

    code = "UNAUTHENTICATED"
    reason = "TOKEN_INVALID"


class TokenExpired(Unauthenticated):
    """A token whose time is over."""

    reason = "TOKEN_EXPIRED"


class UserDisabled(Unauthenticated):
    """A token of a user who was disabled after it was made."""

    reason = "USER_DISABLED"


class RoleNotAllowed(ServiceError):
    """A caller whose role may not call this."""

    code = "PERMISSION_DENIED"
    reason = "ROLE_NOT_ALLOWED"


class NotOwner(ServiceError):
    """A row that row-level security kept from its caller."""

    code = "PERMISSION_DENIED"
    reason = "NOT_OWNER"


class DatasetNotFound(ServiceError):
    """No such dataset, or somebody else's: the same answer for both."""

    code = "NOT_FOUND"
    reason = "DATASET_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "Dataset not found or access denied", details="Check the dataset_id against GET /api/datasets."
        )


class DatasetNotReady(ServiceError):
    """A dataset that jobs may not train on."""

    code = "FAILED_PRECONDITION"
    reason = "DATASET_NOT_READY"

    def __init__(self, *, status: str, training_ready: bool) -> None:
        ready = str(training_ready).lower()
        super().__init__(
            "Dataset not ready for training",
            details=f"The dataset's status is '{status}' and training_ready is {ready}; "
            "it can be trained on when they are 'ready' and true.",
            metadata={"status": status, "training_ready": ready},
        )


class Conflict(ServiceError):
    """Two calls that met in the database."""

    code = "ABORTED"
    reason = "CONFLICT"


class Undone(Conflict):
    """A transaction that Postgres ended because of another one. Nothing of it was done, so it may be run again at once."""


class StaleStatement(Undone):
    """A migration changed a table under a statement that was prepared before."""

    def __init__(self) -> None:
        super().__init__("Conflict", details="The database changed under this call; repeat it.")


class Overloaded(ServiceError):
    """A server with as many calls as it takes."""

    code = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"


class RateLimited(ServiceError):
    """A caller who calls more often than one may."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"

    def __init__(self, per_second: float, what: str) -> None:
        super().__init__(
            f"Too many {what}",
            details=f"At most {per_second:g} {what} a second; try again in a second.",
            metadata={"limit": f"{per_second:g}"},
        )


class TooManyWatches(ServiceError):
    """A caller, or a server, with as many calls open that take long (watches, uploads, waits) as it may have."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_MANY_WATCHES"


class BufferOverrun(ServiceError):
    """A caller that reads a stream more slowly than its messages come."""

    code = "RESOURCE_EXHAUSTED"
    reason = "BUFFER_OVERRUN"

    def __init__(self) -> None:
        super().__init__(
            "Reader too slow", details="Events came faster than they were read; watch again with the last id."
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
        super().__init__(
            "Database unavailable", details="The database does not answer now; try again in a few seconds."
        )


class IssuerUnavailable(ServiceError):
    """The token issuer's keys cannot be had, and none are cached."""

    code = "UNAVAILABLE"
    reason = "ISSUER_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__(
            "Token issuer unavailable", details="The issuer's keys cannot be fetched now; try again in a few seconds."
        )


class DeadlineExceeded(ServiceError):
    """A call that did not finish in its time."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"

    def __init__(self) -> None:
        super().__init__("Deadline exceeded", details="The call did not finish in its time; try again with more.")

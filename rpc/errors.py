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


class UnknownGpuType(ValidationFailed):
    """A GPU type that the catalogue does not have."""

    reason = "UNKNOWN_GPU_TYPE"


class UnknownBaseModel(ValidationFailed):
    """A base model that the catalogue does not have."""

    reason = "UNKNOWN_BASE_MODEL"


class UnknownProvider(ValidationFailed):
    """A provider that has no price for a GPU type."""

    reason = "UNKNOWN_PROVIDER"


class TooManyPoints(ValidationFailed):
    """A comparison of more points than one call may ask for."""

    reason = "TOO_MANY_POINTS"


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


class DatasetInUse(ServiceError):
    """A dataset that jobs which are not final train on."""

    code = "FAILED_PRECONDITION"
    reason = "DATASET_IN_USE"

    def __init__(self, *, jobs: int) -> None:
        super().__init__(
            "Dataset in use",
            details=f"{jobs} of its jobs are not final; wait for them, or cancel them.",
            metadata={"jobs": str(jobs)},
        )


class StorageQuota(ServiceError):
    """A file larger than what its owner may still keep."""

    code = "RESOURCE_EXHAUSTED"
    reason = "STORAGE_QUOTA"

    def __init__(self, *, room: int) -> None:
        super().__init__(
            "Storage quota reached",
            details=f"You may keep {room} bytes more; delete a dataset first.",
            metadata={"room": str(room)},
        )


class DatasetTooLarge(ServiceError):
    """A dataset of more training steps than can be counted."""

    code = "OUT_OF_RANGE"
    reason = "DATASET_TOO_LARGE"

    def __init__(self) -> None:
        super().__init__("Dataset too large", details="Its training steps are more than 2^53: split the dataset.")


class DoesNotFit(ServiceError):
    """A job that needs more memory than its GPUs have."""

    code = "FAILED_PRECONDITION"
    reason = "DOES_NOT_FIT"

    def __init__(self, *, needed_gib: float, usable_gib: float, repair: str) -> None:
        what = f"try: {repair}" if repair else "use GPUs with more memory"
        super().__init__(
            "Job does not fit into GPU memory",
            details=f"It needs about {needed_gib:.1f} GiB on each GPU, which has {usable_gib:.1f}; {what}; "
            "or set allow_oom_risk to queue it all the same.",
            metadata={"needed_gib": f"{needed_gib:.2f}", "usable_gib": f"{usable_gib:.2f}"},
        )


class QuoteNotFound(ServiceError):
    """No such quote, or somebody else's: the same answer for both."""

    code = "NOT_FOUND"
    reason = "QUOTE_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("Quote not found or access denied", details="Ask for a new one with POST /api/quotes.")


class QuoteExpired(ServiceError):
    """A quote whose time is over."""

    code = "FAILED_PRECONDITION"
    reason = "QUOTE_EXPIRED"

    def __init__(self, *, expired_at: str) -> None:
        super().__init__(
            "Quote expired",
            details=f"It held until {expired_at}; ask for a new one with POST /api/quotes.",
            metadata={"expired_at": expired_at},
        )


class QuoteMismatch(ServiceError):
    """A quote of something else than what is asked for now."""

    code = "FAILED_PRECONDITION"
    reason = "QUOTE_MISMATCH"

    def __init__(self, differences: list[str]) -> None:
        super().__init__("Quote does not match", details="; ".join(differences))


class NotQuotable(ServiceError):
    """A configuration of which too little is known to promise a price."""

    code = "FAILED_PRECONDITION"
    reason = "NOT_QUOTABLE"

    def __init__(self, note: str) -> None:
        super().__init__("Not quotable", details=note)


class TooManyQuotes(ServiceError):
    """A person who holds as many unexpired quotes as anybody may."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_MANY_QUOTES"

    def __init__(self, most: int) -> None:
        super().__init__(
            "Too many quotes", details=f"At most {most} unexpired quotes are held; wait until some expire."
        )


class JobNotFound(ServiceError):
    """No such job, or somebody else's: the same answer for both."""

    code = "NOT_FOUND"
    reason = "JOB_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("Job not found or access denied", details="Check the id against GET /api/jobs.")


class NotificationNotFound(ServiceError):
    """No such notification, or somebody else's: the same answer for both."""

    code = "NOT_FOUND"
    reason = "NOTIFICATION_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "Notification not found or access denied", details="Check the id against GET /api/notifications."
        )


class IdempotencyKeyReused(ServiceError):
    """An idempotency key that belongs to something with other content; `kind` is what, `id_` which."""

    code = "ALREADY_EXISTS"
    reason = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self, kind: str, id_: str) -> None:
        super().__init__(
            "Idempotency key already used",
            details=f"The key belongs to {kind} {id_}, which was asked for with other content; use a new key.",
            metadata={f"{kind}_id": id_},
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


class BadCursor(ServiceError):
    """A place in a stream that is none of ours, or lies in the future."""

    code = "INVALID_ARGUMENT"
    reason = "BAD_CURSOR"

    def __init__(self) -> None:
        super().__init__(
            "Bad cursor", details="last_event_id must be the id of a message of this watch; leave it out to start anew."
        )


class LeaseLost(ServiceError):
    """A report on a lease that is over."""

    code = "FAILED_PRECONDITION"
    reason = "LEASE_LOST"

    def __init__(self) -> None:
        super().__init__("Lease lost", details="The lease is over; stop working on this job.")


class JobFinal(ServiceError):
    """A change to what will not change any more."""

    code = "FAILED_PRECONDITION"
    reason = "JOB_FINAL"

    def __init__(self, *, status: str) -> None:
        super().__init__("Job is over", details=f"It ended as '{status}'.", metadata={"status": status})


class InvalidTransition(ServiceError):
    """A change that the job's state does not allow."""

    code = "FAILED_PRECONDITION"
    reason = "INVALID_TRANSITION"

    def __init__(self, what: str, *, status: str) -> None:
        super().__init__("Not in this state", details=what, metadata={"status": status})


class OpenJobsLimit(ServiceError):
    """A user with as many open jobs as one may have."""

    code = "RESOURCE_EXHAUSTED"
    reason = "QUOTA"

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            "Too many open jobs",
            details=f"A user may have {limit} jobs that are not final; wait for one, or cancel one.",
            metadata={"limit": str(limit)},
        )


class WebhookNotFound(ServiceError):
    """No such webhook, or somebody else's: the same answer for both."""

    code = "NOT_FOUND"
    reason = "WEBHOOK_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("Webhook not found or access denied", details="Check the id against GET /api/webhooks.")


class WebhookDeliveryNotFound(ServiceError):
    """No such delivery of that webhook, or somebody else's: the same answer for both."""

    code = "NOT_FOUND"
    reason = "WEBHOOK_DELIVERY_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "Delivery not found or access denied", details="Check the ids against GET /api/webhooks/{id}/deliveries."
        )


class WebhookUrlRefused(ValidationFailed):
    """An address that no request may be sent to."""

    reason = "WEBHOOK_URL_REFUSED"

    def __init__(self, why: str) -> None:
        super().__init__([("url", why)])


class WebhookLimit(ServiceError):
    """A user with as many webhooks as one may have."""

    code = "RESOURCE_EXHAUSTED"
    reason = "WEBHOOK_LIMIT"

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            "Too many webhooks",
            details=f"A user may have {limit} webhooks; delete one first.",
            metadata={"limit": str(limit)},
        )


class WebhookRate(ServiceError):
    """A user who has us look up names and send requests more often than one may."""

    code = "RESOURCE_EXHAUSTED"
    reason = "WEBHOOK_RATE"

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            "Too many webhook calls",
            details=f"A user may create, change, test and redeliver webhooks {limit} times an hour; wait a while.",
            metadata={"limit": str(limit)},
        )


class WebhookDisabled(ServiceError):
    """A webhook that nothing is sent to."""

    code = "FAILED_PRECONDITION"
    reason = "WEBHOOK_DISABLED"

    def __init__(self) -> None:
        super().__init__("Webhook is disabled", details="Enable it first: PUT /api/webhooks/{id}.")


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


class StorageUnavailable(ServiceError):
    """The dataset storage does not answer."""

    code = "UNAVAILABLE"
    reason = "STORAGE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("Storage unavailable", details="The file cannot be kept now; try again in a few minutes.")


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

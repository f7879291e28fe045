"""What the Jobs service refuses on purpose. `rpc.boundary` says it over the wire."""

from __future__ import annotations

from rpc.errors import ServiceError, ValidationFailed


class DatasetNotFound(ServiceError):
    """No such dataset, or another user's: the response is the same for both."""

    code = "NOT_FOUND"
    reason = "DATASET_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "Dataset not found or access denied", details="Check the dataset_id against GET /api/datasets."
        )


class DatasetNotReady(ServiceError):
    """A dataset that is not ready for training."""

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


class DatasetLimit(ServiceError):
    """A user with as many datasets as one may have."""

    code = "RESOURCE_EXHAUSTED"
    reason = "DATASET_LIMIT"

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            "Too many datasets",
            details=f"A user may have {limit} datasets; delete one first.",
            metadata={"limit": str(limit)},
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


class TooManyUploads(ServiceError):
    """An upload more than a user, or the server, may have at once. `limit`: the user's; None if it is the server's."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_MANY_UPLOADS"

    def __init__(self, *, limit: int | None) -> None:
        whose = (
            "The server takes no more uploads at once" if limit is None else f"A user may have {limit} uploads at once"
        )
        super().__init__(
            "Too many uploads",
            details=f"{whose}; try again when one is done.",
            metadata={} if limit is None else {"limit": str(limit)},
        )


class UploadTimeout(ServiceError):
    """An upload that sends nothing for too long."""

    code = "DEADLINE_EXCEEDED"
    reason = "REQUEST_TIMEOUT"

    def __init__(self, *, seconds: float) -> None:
        super().__init__(
            "Upload timed out", details=f"Nothing was sent for {seconds:g} seconds; upload the file again."
        )


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


class ApiKeyNotFound(ServiceError):
    """An API key that does not exist, was revoked, or is another user's: the same answer for all."""

    code = "NOT_FOUND"
    reason = "API_KEY_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("API key not found or access denied", details="Check the id against GET /api/keys.")


class ApiKeyLimit(ServiceError):
    """A user with the largest number of API keys that a user may have."""

    code = "RESOURCE_EXHAUSTED"
    reason = "API_KEY_LIMIT"

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            "Too many API keys",
            details=f"A user may have {limit} API keys; revoke one first.",
            metadata={"limit": str(limit)},
        )


class StorageUnavailable(ServiceError):
    """The dataset storage does not answer."""

    code = "UNAVAILABLE"
    reason = "STORAGE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("Storage unavailable", details="The file cannot be kept now; try again in a few minutes.")


class ArtifactNotFound(ServiceError):
    """A job without result files, or without one of that name."""

    code = "NOT_FOUND"
    reason = "ARTIFACT_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "No such file",
            details="The job has no such result file: it is not completed, its trainer kept them elsewhere (artifact_uri), "
            "or they were deleted. GET /api/jobs/{id}/artifact lists those there are.",
        )


class ArtifactMismatch(ServiceError):
    """Files of a result that its lease has not uploaded as named."""

    code = "FAILED_PRECONDITION"
    reason = "ARTIFACT_MISMATCH"

    def __init__(self, *, files: list[str]) -> None:
        names = ", ".join(files[:10])
        super().__init__(
            "Result files differ",
            details=f"Not uploaded with this lease, or with another size or SHA-256: {names}. Upload them again.",
            metadata={"files": names},
        )


class ArtifactTooLarge(ServiceError):
    """A result with more bytes or files than the server takes."""

    code = "RESOURCE_EXHAUSTED"
    reason = "ARTIFACT_TOO_LARGE"

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            "Result too large",
            details=f"The files of a result may have {limit} bytes together.",
            metadata={"limit": str(limit)},
        )


class DatasetFileNotFound(ServiceError):
    """A dataset whose file is not in the storage of this server."""

    code = "NOT_FOUND"
    reason = "DATASET_FILE_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "Dataset file not found",
            details="The dataset's file is not in this server's storage: storage_bucket and storage_path say where it is.",
        )

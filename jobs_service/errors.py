"""Errors that the Jobs service raises on purpose, by package. `rpc.boundary` turns them into statuses."""

from __future__ import annotations

from rpc.errors import (
    FailedPrecondition,
    InvalidArgument,
    LimitReached,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    ValidationFailed,
)


class IdempotencyKeyReused(ServiceError):
    """An idempotency key that a request with other content used before. `kind` and `id_`: what that request created."""

    code = "ALREADY_EXISTS"
    title = "Idempotency key already used"

    def __init__(self, kind: str, id_: str) -> None:
        super().__init__(
            details=f"The key belongs to {kind} {id_}, which was asked for with other content; use a new key.",
            metadata={f"{kind}_id": id_},
        )


class StorageUnavailable(Unavailable):
    """The storage of files does not answer."""

    title = "Storage unavailable"
    advice = "The file cannot be kept now; try again in a few minutes."


class DatasetNotFound(NotFound):
    """No such dataset."""

    title = "Dataset not found or access denied"
    advice = "Check the dataset_id against GET /api/datasets."


class DatasetFileNotFound(NotFound):
    """A dataset whose file is not in the storage of this server."""

    title = "Dataset file not found"
    advice = "The dataset's file is not in this server's storage: storage_bucket and storage_path say where it is."


class DatasetNotReady(FailedPrecondition):
    """A dataset that is not ready for training."""

    title = "Dataset not ready for training"

    def __init__(self, *, status: str, training_ready: bool) -> None:
        ready = str(training_ready).lower()
        super().__init__(
            details=f"The dataset's status is '{status}' and training_ready is {ready}; "
            "it can be trained on when they are 'ready' and true.",
            metadata={"status": status, "training_ready": ready},
        )


class DatasetInUse(FailedPrecondition):
    """A dataset that jobs which are not final train on."""

    title = "Dataset in use"

    def __init__(self, *, jobs: int) -> None:
        super().__init__(
            details=f"{jobs} of its jobs are not final; wait for them, or cancel them.",
            metadata={"jobs": str(jobs)},
        )


class DatasetLimit(LimitReached):
    """A user with the largest number of datasets."""

    title = "Too many datasets"
    advice = "A user may have {limit} datasets; delete one first."


class StorageQuota(ResourceExhausted):
    """A file that is larger than the space its owner has left. `remaining_bytes`: that space."""

    title = "Storage quota reached"

    def __init__(self, *, remaining_bytes: int) -> None:
        super().__init__(
            details=f"You may keep {remaining_bytes} bytes more; delete a dataset first.",
            metadata={"remaining_bytes": str(remaining_bytes)},
        )


class UploadTimeout(ServiceError):
    """An upload that sends nothing for too long."""

    code = "DEADLINE_EXCEEDED"
    reason = "REQUEST_TIMEOUT"
    title = "Upload timed out"

    def __init__(self, *, seconds: float) -> None:
        super().__init__(details=f"Nothing was sent for {seconds:g} seconds; upload the file again.")


class JobNotFound(NotFound):
    """No such job."""

    title = "Job not found or access denied"
    advice = "Check the id against GET /api/jobs."


class DoesNotFit(FailedPrecondition):
    """A job that needs more memory than its GPUs have, GiB. `repair`: a change that makes it fit; empty if there is none."""

    title = "Job does not fit into GPU memory"

    def __init__(self, *, needed_gib: float, usable_gib: float, repair: str) -> None:
        advice = f"try: {repair}" if repair else "use GPUs with more memory"
        super().__init__(
            details=f"It needs about {needed_gib:.1f} GiB on each GPU, which has {usable_gib:.1f}; {advice}; "
            "or set allow_oom_risk to queue it all the same.",
            metadata={"needed_gib": f"{needed_gib:.2f}", "usable_gib": f"{usable_gib:.2f}"},
        )


class OpenJobsLimit(LimitReached):
    """A user with the largest number of jobs that are not final."""

    reason = "QUOTA"
    title = "Too many open jobs"
    advice = "A user may have {limit} jobs that are not final; wait for one, or cancel one."


class InvalidTransition(FailedPrecondition):
    """A change that the job's state does not allow."""

    title = "Not in this state"

    def __init__(self, details: str, *, status: str) -> None:
        super().__init__(details=details, metadata={"status": status})


class JobFinal(FailedPrecondition):
    """A change of a job that is in a final state."""

    title = "Job is over"

    def __init__(self, *, status: str) -> None:
        super().__init__(details=f"It ended as '{status}'.", metadata={"status": status})


class LeaseLost(FailedPrecondition):
    """A report on a lease that is over."""

    title = "Lease lost"
    advice = "The lease is over; stop working on this job."


class BadCursor(InvalidArgument):
    """A `last_event_id` that is malformed or lies in the future."""

    title = "Bad cursor"
    advice = "last_event_id must be the id of a message of this watch; leave it out to start anew."


class ArtifactNotFound(NotFound):
    """A job without result files, or without one of that name."""

    title = "No such file"
    advice = (
        "The job has no such result file: it is not completed, its trainer kept them elsewhere (artifact_uri), "
        "or they were deleted. GET /api/jobs/{id}/artifact lists those there are."
    )


class ArtifactMismatch(FailedPrecondition):
    """Files of a result that differ from those that the lease has uploaded."""

    title = "Result files differ"

    def __init__(self, *, files: list[str]) -> None:
        names = ", ".join(files[:10])
        super().__init__(
            details=f"Not uploaded with this lease, or with another size or SHA-256: {names}. Upload them again.",
            metadata={"files": names},
        )


class ArtifactTooLarge(LimitReached):
    """A result with more bytes or files than the server accepts."""

    title = "Result too large"
    advice = "The files of a result may have {limit} bytes together."


class NotificationNotFound(NotFound):
    """No such notification."""

    title = "Notification not found or access denied"
    advice = "Check the id against GET /api/notifications."


class WebhookNotFound(NotFound):
    """No such webhook."""

    title = "Webhook not found or access denied"
    advice = "Check the id against GET /api/webhooks."


class WebhookDeliveryNotFound(NotFound):
    """No such delivery of that webhook."""

    title = "Delivery not found or access denied"
    advice = "Check the ids against GET /api/webhooks/{id}/deliveries."


class WebhookUrlRefused(ValidationFailed):
    """A URL that no request may be sent to."""

    def __init__(self, why: str) -> None:
        super().__init__([("url", why)])


class WebhookLimit(LimitReached):
    """A user with the largest number of webhooks."""

    title = "Too many webhooks"
    advice = "A user may have {limit} webhooks; delete one first."


class WebhookRate(LimitReached):
    """A user who has made the service look up names and send requests as often in an hour as allowed."""

    title = "Too many webhook calls"
    advice = "A user may create, change, test and redeliver webhooks {limit} times an hour; try again later."


class WebhookDisabled(FailedPrecondition):
    """A webhook that is disabled, so that nothing can be sent to it."""

    title = "Webhook is disabled"
    advice = "Enable it first: PUT /api/webhooks/{id}."


class ApiKeyNotFound(NotFound):
    """No such API key, or one that was revoked."""

    title = "API key not found or access denied"
    advice = "Check the id against GET /api/keys."


class ApiKeyLimit(LimitReached):
    """A user with the largest number of API keys."""

    title = "Too many API keys"
    advice = "A user may have {limit} API keys; revoke one first."

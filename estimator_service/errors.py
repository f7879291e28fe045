"""The errors of the Estimator service. `rpc/status.py` has their statuses."""

from __future__ import annotations

from rpc.errors import ServiceError, ValidationFailed


class DatasetNotFound(ServiceError):
    """No such dataset, or one of another user: the response is the same for both."""

    code = "NOT_FOUND"
    reason = "DATASET_NOT_FOUND"
    title = "Dataset not found or access denied"

    def __init__(self, field: str) -> None:
        super().__init__(details=f"Check the {field} against GET /api/datasets.")


class DatasetNotReady(ServiceError):
    """A dataset that is not ready for training."""

    code = "FAILED_PRECONDITION"
    reason = "DATASET_NOT_READY"
    title = "Dataset not ready for training"

    def __init__(self, field: str, *, status: str, training_ready: bool) -> None:
        ready = str(training_ready).lower()
        dataset = "dataset" if field == "dataset_id" else f"dataset of {field}"
        super().__init__(
            details=f"The {dataset}'s status is '{status}' and training_ready is {ready}; "
            "it can be trained on when they are 'ready' and true.",
            metadata={"status": status, "training_ready": ready},
        )


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
    """A comparison of more points than one call may have."""

    reason = "TOO_MANY_POINTS"


class DatasetTooLarge(ServiceError):
    """A dataset with more training steps than a double can count exactly."""

    code = "OUT_OF_RANGE"
    reason = "DATASET_TOO_LARGE"
    title = "Dataset too large"
    advice = "Its training steps are more than 2^53: split the dataset."


class QuoteNotFound(ServiceError):
    """No such quote, or one of another user: the response is the same for both."""

    code = "NOT_FOUND"
    reason = "QUOTE_NOT_FOUND"
    title = "Quote not found or access denied"
    advice = "Ask for a new one with POST /api/quotes."


class QuoteExpired(ServiceError):
    """A quote after its expiry."""

    code = "FAILED_PRECONDITION"
    reason = "QUOTE_EXPIRED"
    title = "Quote expired"

    def __init__(self, *, expired_at: str) -> None:
        super().__init__(
            details=f"It expired at {expired_at}; ask for a new one with POST /api/quotes.",
            metadata={"expired_at": expired_at},
        )


class QuoteMismatch(ServiceError):
    """A quote whose configuration, dataset or price is not that of the request."""

    code = "FAILED_PRECONDITION"
    reason = "QUOTE_MISMATCH"
    title = "Quote does not match"


class NotQuotable(ServiceError):
    """A configuration whose forecast is too uncertain to promise a price."""

    code = "FAILED_PRECONDITION"
    reason = "NOT_QUOTABLE"
    title = "Not quotable"


class TooManyQuotes(ServiceError):
    """A user at the limit of unexpired quotes."""

    code = "RESOURCE_EXHAUSTED"
    reason = "TOO_MANY_QUOTES"
    title = "Too many quotes"

    def __init__(self, limit: int) -> None:
        super().__init__(details=f"A user may have at most {limit} unexpired quotes; wait until some expire.")

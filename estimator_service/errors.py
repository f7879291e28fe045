"""The errors of the Estimator service. `rpc/status.py` has their statuses."""

from __future__ import annotations

from rpc.errors import FailedPrecondition, LimitReached, NotFound, ServiceError, ValidationFailed


class DatasetNotFound(NotFound):
    """No such dataset, or one of another user: the response is the same for both."""

    title = "Dataset not found or access denied"

    def __init__(self, field: str) -> None:
        super().__init__(details=f"Check the {field} against GET /api/datasets.")


class DatasetNotReady(FailedPrecondition):
    """A dataset that is not ready for training."""

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


class UnknownBaseModel(ValidationFailed):
    """A base model that the catalogue does not have."""


class UnknownProvider(ValidationFailed):
    """A provider that has no price for a GPU type."""


class TooManyPoints(ValidationFailed):
    """A comparison of more points than one call may have."""


class DatasetTooLarge(ServiceError):
    """A dataset with more training steps than a double can count exactly."""

    code = "OUT_OF_RANGE"
    title = "Dataset too large"
    advice = "Its training steps are more than 2^53: split the dataset."


class QuoteNotFound(NotFound):
    """No such quote, or one of another user: the response is the same for both."""

    title = "Quote not found or access denied"
    advice = "Ask for a new one with POST /api/quotes."


class QuoteExpired(FailedPrecondition):
    """A quote after its expiry."""

    title = "Quote expired"

    def __init__(self, *, expired_at: str) -> None:
        super().__init__(
            details=f"It expired at {expired_at}; ask for a new one with POST /api/quotes.",
            metadata={"expired_at": expired_at},
        )


class QuoteMismatch(FailedPrecondition):
    """A quote whose configuration, dataset or price is not that of the request."""

    title = "Quote does not match"


class NotQuotable(FailedPrecondition):
    """A configuration whose forecast is too uncertain to promise a price."""

    title = "Not quotable"


class TooManyQuotes(LimitReached):
    """A user at the limit of unexpired quotes."""

    title = "Too many quotes"
    advice = "A user may have at most {limit} unexpired quotes; wait until some expire."

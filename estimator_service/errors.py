"""What the Estimator service refuses on purpose. `rpc.boundary` says it over the wire."""

from __future__ import annotations

from rpc.errors import ServiceError, ValidationFailed


class DatasetNotFound(ServiceError):
    """No such dataset, or another user's: the response is the same for both."""

    code = "NOT_FOUND"
    reason = "DATASET_NOT_FOUND"

    def __init__(self, field: str) -> None:
        super().__init__("Dataset not found or access denied", details=f"Check the {field} against GET /api/datasets.")


class DatasetNotReady(ServiceError):
    """A dataset that is not ready for training."""

    code = "FAILED_PRECONDITION"
    reason = "DATASET_NOT_READY"

    def __init__(self, field: str, *, status: str, training_ready: bool) -> None:
        ready = str(training_ready).lower()
        dataset = "dataset" if field == "dataset_id" else f"dataset of {field}"
        super().__init__(
            "Dataset not ready for training",
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
    """A comparison of more points than one call may ask for."""

    reason = "TOO_MANY_POINTS"


class DatasetTooLarge(ServiceError):
    """A dataset of more training steps than can be counted."""

    code = "OUT_OF_RANGE"
    reason = "DATASET_TOO_LARGE"
    title = "Dataset too large"
    advice = "Its training steps are more than 2^53: split the dataset."


class QuoteNotFound(ServiceError):
    """No such quote, or somebody else's: the same answer for both."""

    code = "NOT_FOUND"
    reason = "QUOTE_NOT_FOUND"
    title = "Quote not found or access denied"
    advice = "Ask for a new one with POST /api/quotes."


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

"""How a training fails, with what the job's owner is to read."""

from __future__ import annotations


class TrainingError(Exception):
    """A training that cannot go on. `reason` is one of the contract's kinds of failure, without its prefix."""

    reason = ""
    retryable = False


class NotSupported(TrainingError):
    """The job is configured in a way that this trainer, this machine or this model cannot honour."""

    reason = "NOT_SUPPORTED"


class DatasetError(TrainingError):
    """The dataset is not the one that was estimated, or nothing in it can be trained on."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written. Another machine may have more room."""

    retryable = True

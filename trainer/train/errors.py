"""Errors of a training. Their texts are for the job's owner."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

# Errors of a full disk: by number, and in the messages of safetensors (Rust) and PyTorch.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DISK_WORDS = (*(f"os error {number})" for number in sorted(DISK_ERRORS)), "enforce fail at inline_container.cc")
MIB = 2**20


class TrainingError(Exception):
    """A training that cannot continue. `reason`: a FailureReason of the contract, without its prefix."""

    reason = ""
    retryable = False


class NotSupported(TrainingError):
    """A configuration that this trainer, this machine or this model does not support."""

    reason = "NOT_SUPPORTED"


class DatasetError(TrainingError):
    """A dataset that is not the estimated one, or that has nothing to train on."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written. Another machine may have more room."""

    retryable = True


def disk_error(error: Exception, folder: Path) -> str | None:
    """Returns a message for an error of a full disk, with the space that `folder` has left; None for another error."""
    number = error.errno if isinstance(error, OSError) else None
    if number not in DISK_ERRORS and not any(words in str(error) for words in DISK_WORDS):
        return None
    return (
        f"The trainer cannot write a file; its disk has {shutil.disk_usage(folder).free / MIB:,.0f} MiB free: "
        f"{type(error).__name__}: {error}"
    )

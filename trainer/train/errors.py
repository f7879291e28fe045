"""How a training fails, with what the job's owner is to read."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

# What an error says where a disk takes no more: by number, in the words of safetensors (Rust), and of PyTorch.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DISK_WORDS = (*(f"os error {number})" for number in sorted(DISK_ERRORS)), "enforce fail at inline_container.cc")
MIB = 2**20


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


def disk_error(error: Exception, folder: Path) -> str | None:
    """What the job's owner reads where an error says that the disk of `folder` takes no more; None for another error."""
    number = error.errno if isinstance(error, OSError) else None
    if number not in DISK_ERRORS and not any(words in str(error) for words in DISK_WORDS):
        return None
    return (
        f"The trainer cannot write a file; its disk has {shutil.disk_usage(folder).free / MIB:,.0f} MiB free: "
        f"{type(error).__name__}: {error}"
    )

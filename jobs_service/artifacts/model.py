"""The files of a job's result: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

# The name of the archive of all files.
ARCHIVE = "adapter.zip"


class ArtifactFile(NamedTuple):
    """A file as a trainer names it: size in bytes, SHA-256 in hexadecimal digits."""

    name: str
    size: int
    sha256: str


class StoredFile(NamedTuple):
    """A file of a result, and its path in the storage."""

    name: str
    size: int
    sha256: str
    path: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """The result of a completed job. `estimate` is the Estimator's answer, which names the base model."""

    files: Sequence[StoredFile]
    step: int
    estimate: bytes | None
    completed_at: datetime

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


class Upload(NamedTuple):
    """A file that a trainer is about to upload: its path in the storage, and the bytes that it may have."""

    path: str
    max_bytes: int


class Download(NamedTuple):
    """A part of a file to send. `size`: bytes of the whole file; 0 if that is not known beforehand.

    With a `signed_url` no bytes are sent: the URL has the whole file.
    """

    file_name: str
    size: int
    offset: int
    length: int
    etag: str
    signed_url: str = ""


class DatasetFile(NamedTuple):
    """The stored file of a dataset."""

    bucket: str
    path: str

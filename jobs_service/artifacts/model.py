"""The files of a job's result: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

# The name under which all files are downloaded as one.
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
    """A file that a trainer is about to upload: where it goes, and how many bytes it may have."""

    path: str
    max_bytes: int


class Download(NamedTuple):
    """A part of a file that is sent: `size` is the whole file's, 0 where it is not known beforehand.

    With a `signed_url`, nothing is sent: the URL gives the whole file.
    """

    file_name: str
    size: int
    offset: int
    length: int
    etag: str
    signed_url: str = ""


class LeaseRef(NamedTuple):
    """A lease as a trainer's request names it."""

    job_id: UUID
    token: UUID


class DatasetFile(NamedTuple):
    """The stored file of a dataset."""

    bucket: str
    path: str

"""The storage of datasets' and results' files: any that fsspec supports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import fsspec
import structlog

from jobs_service.errors import StorageUnavailable
from rpc.errors import OperatorError

# Suffix of files that are not complete yet.
PART = ".part"
# Schemes of S3, and of stores that speak its protocol.
S3 = ("s3", "s3a")
# Schemes of stores without folders. Making one could create a missing bucket, in the wrong account for example.
OBJECT_STORES = (*S3, "gs", "gcs", "abfs", "abfss", "az")

log = structlog.get_logger()


class StorageError(OperatorError):
    """A storage URL that fsspec cannot open, or that contains a password."""


class Writer:
    """Writes a file, which gets its name by `commit`. Methods block: call them in a thread."""

    def __init__(self, filesystem: Any, path: str, *, makes_folders: bool) -> None:
        self._filesystem = filesystem
        self._makes_folders = makes_folders
        self._path = path
        self._part = path + PART
        self._file: Any = None

    def write(self, data: bytes) -> None:
        """Appends. Raises StorageUnavailable."""
        with _translated():
            if self._file is None:
                if self._makes_folders:
                    self._filesystem.makedirs(self._path.rpartition("/")[0], exist_ok=True)
                self._file = self._filesystem.open(self._part, "wb")
            self._file.write(data)

    def commit(self) -> None:
        """Gives the file its name. Raises StorageUnavailable."""
        with _translated():
            self._file.close()
            self._filesystem.mv(self._part, self._path)

    def discard(self) -> None:
        """Removes the file, committed or not, as far as the storage allows."""
        if self._file is None:
            return
        with suppress(Exception):
            self._file.close()
        for path in (self._part, self._path):
            with suppress(Exception):
                self._filesystem.rm(path)


def _options(url: str) -> dict[str, Any]:
    """Returns options of a filesystem in addition to those that its operator has set for fsspec."""
    if urlsplit(url).scheme not in S3:
        return {}
    # Buckets created since June 2020 refuse signatures of version 2, which botocore would choose for URLs.
    config = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {"signature_version": "s3v4", **config}}


@contextmanager
def _translated() -> Iterator[None]:
    """Turns any exception into StorageUnavailable, since each kind of storage has its own. Logs the original."""
    try:
        yield
    except Exception as error:
        log.exception("storage_unavailable")
        raise StorageUnavailable from error


class Storage:
    """Files under a root. `bucket` is the root's URL. Raises StorageError if it cannot be opened or contains a password.

    `signed_url_seconds`: how long signed URLs are valid; 0: none are signed.
    """

    def __init__(self, url: str, *, signed_url_seconds: int = 0) -> None:
        self.bucket = url.rstrip("/")
        self._signed_url_seconds = signed_url_seconds
        try:
            if urlsplit(url).password is not None:
                raise ValueError(
                    "it has a password, which owners of datasets would read: give it to fsspec by itself, "
                    "as FSSPEC_SFTP_PASSWORD for example"
                )
            self._filesystem, self._root = fsspec.core.url_to_fs(url, **_options(url))
        except Exception as error:
            raise StorageError(f"PIPELINE_STORAGE_URL: {' '.join(str(error).split())}") from error

    def remove(self, paths: Sequence[str]) -> list[str]:
        """Removes files, complete or not; missing ones count as removed. Returns the removed paths. Blocks."""
        gone = []
        for path in paths:
            with suppress(StorageUnavailable), _translated():
                for name in (f"{self._root}/{path}", f"{self._root}/{path}{PART}"):
                    with suppress(FileNotFoundError):
                        self._filesystem.rm_file(name)
                gone.append(path)
        return gone

    def size(self, path: str) -> int:
        """Returns the size of a file in bytes. Blocks. Raises StorageUnavailable."""
        with _translated():
            return int(self._filesystem.size(f"{self._root}/{path}"))

    def read(self, path: str, start: int, end: int) -> bytes:
        """Returns the bytes of a file from `start` up to `end`, fewer at its end. Blocks. Raises StorageUnavailable."""
        with _translated():
            return bytes(self._filesystem.cat_file(f"{self._root}/{path}", start=start, end=end))

    @property
    def signs(self) -> bool:
        """Whether the storage signs URLs: S3 and compatible stores do."""
        return self._signed_url_seconds > 0 and urlsplit(self.bucket).scheme in S3

    def signed_url(self, path: str, file_name: str) -> str:
        """Returns a URL that downloads a file without a token, saved as `file_name`. Blocks. Raises StorageUnavailable."""
        with _translated():
            return str(
                self._filesystem.sign(
                    f"{self._root}/{path}",
                    expiration=self._signed_url_seconds,
                    ResponseContentDisposition=f'attachment; filename="{file_name}"',
                )
            )

    def writer(self, path: str) -> Writer:
        """Returns a writer of a new file. Nothing is created before the first write."""
        makes_folders = urlsplit(self.bucket).scheme not in OBJECT_STORES
        return Writer(self._filesystem, f"{self._root}/{path}", makes_folders=makes_folders)

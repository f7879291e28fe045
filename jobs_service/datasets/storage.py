"""Where dataset files are kept: any storage that fsspec knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import fsspec
import structlog

from jobs_service.errors import StorageUnavailable
from rpc.errors import OperatorError

# Beside the name of a file that is not whole yet.
PART = ".part"

log = structlog.get_logger()


class StorageError(OperatorError):
    """A storage URL that nothing here can open."""


class Writer:
    """A file on its way in, not there under its name until `commit`. Its methods block: call them in a thread."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self._part = path + PART
        self._file: Any = None

    def write(self, data: bytes) -> None:
        """Appends. Raises StorageUnavailable."""
        with _translated():
            if self._file is None:
                self._filesystem.makedirs(self._path.rpartition("/")[0], exist_ok=True)
                self._file = self._filesystem.open(self._part, "wb")
            self._file.write(data)

    def commit(self) -> None:
        """Gives the file its name. Raises StorageUnavailable."""
        with _translated():
            self._file.close()
            self._filesystem.mv(self._part, self._path)

    def discard(self) -> None:
        """Leaves nothing behind, committed or not, as far as the storage lets us."""
        if self._file is None:
            return
        with suppress(Exception):
            self._file.close()
        for path in (self._part, self._path):
            with suppress(Exception):
                self._filesystem.rm(path)


@contextmanager
def _translated() -> Iterator[None]:
    """Whatever a storage raises means the same to a caller; the log has the rest. Each kind has exceptions of its own."""
    try:
        yield
    except Exception as error:
        log.exception("storage_unavailable")
        raise StorageUnavailable from error


class Storage:
    """A root that files are kept under. `bucket` is its URL. Raises StorageError where that is none."""

    def __init__(self, url: str) -> None:
        self.bucket = url.rstrip("/")
        try:
            self._filesystem, self._root = fsspec.core.url_to_fs(url)
        except Exception as error:
            raise StorageError(f"PIPELINE_STORAGE_URL: {' '.join(str(error).split())}") from error

    def remove(self, paths: Sequence[str]) -> list[str]:
        """Removes files, whether they are there or not, whole or begun. Returns those that are gone. Blocks."""
        gone = []
        for path in paths:
            with suppress(StorageUnavailable), _translated():
                for name in (f"{self._root}/{path}", f"{self._root}/{path}{PART}"):
                    with suppress(FileNotFoundError):
                        self._filesystem.rm_file(name)
                gone.append(path)
        return gone

    def writer(self, path: str) -> Writer:
        """A file to be; nothing happens before its first byte."""
        return Writer(self._filesystem, f"{self._root}/{path}")

"""Where dataset files are kept: any storage that fsspec knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import fsspec

from rpc.errors import StorageUnavailable


class Writer:
    """A file on its way in. It is not there under its name until `commit`. Its methods block: call them in a thread."""

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self._part = f"{path}.part"
        try:
            filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._file = filesystem.open(self._part, "wb")
        except OSError as error:
            raise StorageUnavailable from error

    def write(self, data: bytes) -> None:
        """Appends. Raises StorageUnavailable."""
        try:
            self._file.write(data)
        except OSError as error:
            raise StorageUnavailable from error

    def commit(self) -> None:
        """Gives the file its name. Raises StorageUnavailable."""
        try:
            self._file.close()
            self._filesystem.mv(self._part, self._path)
        except OSError as error:
            raise StorageUnavailable from error

    def discard(self) -> None:
        """Leaves nothing behind, as far as the storage lets us."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._filesystem.rm(self._part)


class Storage:
    """A root that files are kept under. `bucket` is its URL."""

    def __init__(self, url: str) -> None:
        self.bucket = url.rstrip("/")
        self._filesystem, self._root = fsspec.core.url_to_fs(url)

    def open(self, path: str) -> Writer:
        """Begins a file. Raises StorageUnavailable."""
        return Writer(self._filesystem, f"{self._root}/{path}")

    @asynccontextmanager
    async def removed_on_error(self, path: str) -> AsyncIterator[None]:
        """Removes a committed file if the body, which records it, does not come to its end."""
        try:
            yield
        except BaseException:
            await asyncio.to_thread(self._remove, path)
            raise

    def _remove(self, path: str) -> None:
        with suppress(OSError):
            self._filesystem.rm(f"{self._root}/{path}")

"""Compressed files, decompressed in pieces of bounded size. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# A window of 16 MiB: more than any level below `--ultra` uses without `--long`.
ZSTD_WINDOW_LOG = 24


class BadCompressionError(ValueError):
    """Bytes that cannot be decompressed. Its text is shown to the user."""


class Source:
    """Takes the bytes of a file and returns its content in pieces. This class reads files that are not compressed."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Adds the next bytes."""
        self._data += data

    def read(self, size: int) -> bytes:
        """Returns the next content, at most about `size` bytes; empty until more is fed. Raises BadCompressionError."""
        data, self._data = self._data[:size], self._data[size:]
        return data

    def is_complete(self) -> bool:
        """Whether the file may end here."""
        return True


class Gzip(Source):
    """A gzip file, which may have several members."""

    def __init__(self) -> None:
        super().__init__()
        self._member = zlib.decompressobj(wbits=31)

    def read(self, size: int) -> bytes:
        while self._data:
            if self._member.eof:
                if not self._data.strip(b"\0"):
                    # Some writers pad the last member.
                    self._data = b""
                    return b""
                self._member = zlib.decompressobj(wbits=31)
            try:
                content = self._member.decompress(self._data, size)
            except zlib.error as error:
                raise BadCompressionError(f"the file is damaged: gzip says {error}") from None
            self._data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if content:
                return content
        return b""

    def is_complete(self) -> bool:
        return self._member.eof


class Zstd(Source):
    """A Zstandard file, which may have several frames."""

    def __init__(self) -> None:
        super().__init__()
        # Imported here: few files need it.
        from backports import zstd

        self._error: type[Exception] = zstd.ZstdError
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        self._open: Callable[[], Any] = partial(zstd.ZstdDecompressor, options=options)
        self._frame = self._open()

    def read(self, size: int) -> bytes:
        while self._data or not (self._frame.needs_input or self._frame.eof):
            if self._frame.eof:
                self._frame = self._open()
            data, self._data = self._data, b""
            try:
                content: bytes = self._frame.decompress(data, size)
            except self._error as error:
                raise BadCompressionError(
                    f"the file is damaged, or was compressed with --long or --ultra: Zstandard says {error}"
                ) from None
            if self._frame.eof:
                self._data = self._frame.unused_data
            if content:
                return content
        return b""

    def is_complete(self) -> bool:
        return bool(self._frame.eof)


def open_source(head: bytes) -> Source:
    """Returns the source for a file that begins with `head`."""
    if head.startswith(GZIP):
        return Gzip()
    return Zstd() if head.startswith(ZSTD) else Source()

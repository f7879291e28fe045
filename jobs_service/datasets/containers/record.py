"""Records: the rows of a file of any format. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

# A longer row is most likely a file that was not split into rows.
MAX_RECORD_BYTES = 4 * 1024 * 1024


class Record(NamedTuple):
    """One row of a file: its value, or the error that it has instead.

    `line` and `column`: where in the file it begins, or where the error is, from 1. Line 0 is the file as a whole, column 0 the
    line as a whole. `size`: its bytes. `text`: the text around an error.
    """

    line: int
    value: Any = None
    size: int = 0
    error: str = ""
    column: int = 0
    text: str = ""


class RecordReader(Protocol):
    """Takes the bytes of a file in pieces and returns the records that they complete. Used by one thread."""

    def feed(self, data: bytes) -> Iterable[Record]:
        """Takes the next bytes. The result is used up before the next call."""

    def finish(self) -> Iterable[Record]:
        """Takes the end of the file."""


class Unreadable:
    """The reader of a file that cannot be read: returns one error at the end."""

    def __init__(self, error: str) -> None:
        self._error = error

    def feed(self, _data: bytes) -> Iterable[Record]:
        """Takes the next bytes."""
        return ()

    def finish(self) -> Iterable[Record]:
        """Takes the end of the file."""
        return (Record(0, error=self._error),)

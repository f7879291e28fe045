"""Tables as text: CSV with commas, tabs, semicolons or bars. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from jobs_service.datasets.containers.json_values import NOT_UTF8, around, too_long
from jobs_service.datasets.containers.record import MAX_RECORD_BYTES, Record

DELIMITERS = ("\t", ",", ";", "|")
# A limit of the whole process, 128 KiB by default. The length of rows is checked in Table.
csv.field_size_limit(2 * MAX_RECORD_BYTES)


class _NeedsMoreError(Exception):
    """The lines end inside a quoted cell, and more may come."""


class _Lines:
    """Lines for `csv.reader`. Those before `begin` belong to rows that were read, those before `next` to the current row."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.begin = self.next = 0
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.next < len(self.waiting):
            self.next += 1
            return self.waiting[self.next - 1]
        raise StopIteration if self.ended else _NeedsMoreError

    def take(self) -> list[str]:
        """The lines of the row that was just read."""
        lines, self.begin = self.waiting[self.begin : self.next], self.next
        return lines

    def compact(self) -> None:
        """Drops the lines of complete rows, and goes back to the first line of the incomplete row."""
        del self.waiting[: self.begin]
        self.begin = self.next = 0


class Table:
    """Reads rows of cells. The first row has the columns' names. A quoted cell may have line breaks."""

    def __init__(self, delimiter: str) -> None:
        self._lines = _Lines()
        self._rows = csv.reader(self._lines, delimiter=delimiter)
        self._columns: list[str] | None = None
        self._line = 1
        self._rest = b""
        self._has_bad_bytes = False

    def feed(self, data: bytes) -> Iterator[Record]:
        """Takes the next bytes."""
        head, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if newline:
            self._append(head + newline)
        yield from self._records()
        size = len(self._rest) + sum(map(len, self._lines.waiting))
        if size > MAX_RECORD_BYTES:
            # A quote that is never closed: continues after the lines read so far.
            yield too_long(self._line, size)
            self._line += len(self._lines.waiting)
            self._lines.waiting.clear()
            self._rest = b""

    def finish(self) -> Iterator[Record]:
        """Takes the last row."""
        self._lines.ended = True
        if self._rest:
            self._append(self._rest)
        yield from self._records()

    def _append(self, data: bytes) -> None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text, self._has_bad_bytes = data.decode(errors="surrogateescape"), True
        lines = text.split("\n")
        self._lines.waiting += [f"{line}\n" for line in lines[:-1]]
        if lines[-1]:
            self._lines.waiting.append(lines[-1])

    def _records(self) -> Iterator[Record]:
        while True:
            try:
                cells = next(self._rows)
            except (StopIteration, _NeedsMoreError):
                self._lines.compact()
                return
            except csv.Error as error:
                cells, reason = [], f"not a row of a table: {error}"
            else:
                reason = ""
            lines = self._lines.take()
            line, self._line = self._line, self._line + len(lines)
            yield from self._record(cells, line, lines, reason)

    def _record(self, cells: list[str], line: int, lines: list[str], reason: str) -> Iterator[Record]:
        if not cells and not reason:
            return
        if self._columns is None and not reason:
            self._columns = [cell.strip() for cell in cells]
            return
        columns, size = self._columns or [], sum(map(len, lines))
        if size > MAX_RECORD_BYTES:
            yield too_long(line, size)
            return
        if self._has_bad_bytes and any(not cell.isprintable() and _has_bad_bytes(cell) for cell in cells):
            reason = NOT_UTF8
        elif not reason and len(cells) != len(columns):
            reason = f"has {len(cells)} cells, the first line has {len(columns)}"
        if reason:
            yield Record(line, error=reason, text=around("".join(lines), 0))
        else:
            yield Record(line, dict(zip(columns, cells, strict=True)), size)


def delimiter_of(line: str) -> str | None:
    """Returns the most frequent delimiter in a table's first line, outside of quotes; None if there is none."""
    outside = "".join(line.split('"')[::2])
    best = max(DELIMITERS, key=outside.count)
    return best if best in outside else None


def _has_bad_bytes(cell: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in cell)

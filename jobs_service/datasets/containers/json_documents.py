"""JSON that is not one value a line: an array of rows, an object that contains one, or objects over several lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jobs_service.datasets.containers.json_lines import is_conversation
from jobs_service.datasets.containers.json_values import around, decode, too_long
from jobs_service.datasets.containers.record import MAX_RECORD_BYTES, Record

OUTSIDE = re.compile(rb'["{}\[\]]')
# A backslash hides the byte after it, which may be in the next piece.
INSIDE = re.compile(rb'"|\\.?', re.DOTALL)
# What may stand between two rows.
SEPARATORS = b" \t\r\n,"
# Bytes of other text between rows that an error shows.
SHOWN_BYTES = 200


class JsonDocuments:
    """Reads objects and lists at a depth of brackets. 0: not nested, 1: in an array, 2: in an array in an object."""

    def __init__(self, depth: int) -> None:
        self._base = depth
        self._depth = 0
        self._in_string = False
        # The list of rows was closed.
        self._closed = False
        self._data = b""
        # Where in the data scanning goes on, and where the row or the gap between two rows begins.
        self._scan = self._begin = 0
        self._in_row = False
        self._row_place = (1, 1)
        self._gap, self._gap_place = b"", (1, 1)
        self._dropped = 0
        # Line and column of `_begin` in the file.
        self._line, self._column = 1, 1

    def feed(self, data: bytes) -> Iterator[Record]:
        """Takes the next bytes."""
        self._data += data
        while match := (INSIDE if self._in_string else OUTSIDE).search(self._data, self._scan):
            mark = match.group()
            if mark == b"\\":
                self._scan = match.start()
                break
            self._scan = match.end()
            if mark == b'"':
                self._in_string = not self._in_string
            elif not self._in_string:
                yield from self._bracket(mark, match.start())
        else:
            self._scan = len(self._data)
        self._forget()

    def finish(self) -> Iterator[Record]:
        """Takes the end of the file."""
        yield from self._end_gap(len(self._data))
        if self._depth or self._in_string:
            text = around(self._data.decode(errors="replace"), len(self._data))
            error = "the file ends before its last bracket or quote: it was cut off"
            line, column = self._row_place if self._in_row else (self._line, self._column)
            yield Record(line, error=error, column=column, text=text)

    def _bracket(self, mark: bytes, position: int) -> Iterator[Record]:
        if mark in b"{[":
            if self._depth == self._base and not self._closed:
                yield from self._end_gap(position)
                self._move_to(position)
                self._in_row, self._row_place = True, (self._line, self._column)
            elif self._depth < self._base:
                self._move_to(position + 1)
            self._depth += 1
            return
        if self._depth == self._base and not self._in_row:
            yield from self._end_gap(position)
            self._closed = self._base > 0
            self._move_to(position + 1)
        self._depth = max(0, self._depth - 1)
        if self._in_row and self._depth == self._base:
            yield self._row(position + 1)

    def _row(self, end: int) -> Record:
        raw, (line, column) = self._data[self._begin : end], self._row_place
        size = self._dropped + len(raw)
        self._move_to(end)
        self._in_row, self._dropped = False, 0
        if size > MAX_RECORD_BYTES:
            return too_long(line, size)
        record = decode(raw, line, column)
        return record._replace(value={"messages": record.value}) if is_conversation(record.value) else record

    def _end_gap(self, end: int) -> Iterator[Record]:
        """Yields an error for text between two rows or after the last one that is no row."""
        if self._in_row or (self._depth < self._base and not self._closed):
            return
        self._extend_gap(end)
        gap, self._gap = self._gap, b""
        # An object goes on after its list of rows.
        if gap and not (self._closed and self._base == 2):
            line, column = self._gap_place
            error = "text after the end of the list of rows" if self._closed else "not a JSON object"
            yield Record(line, error=error, column=column, text=around(gap.decode(errors="replace"), 0))

    def _extend_gap(self, end: int) -> None:
        """Keeps the beginning of the text between two rows, with its line and column."""
        text = self._data[self._begin : end].lstrip(SEPARATORS + b"}]" if self._closed else SEPARATORS)
        if text and not self._gap:
            self._move_to(end - len(text))
            self._gap_place = self._line, self._column
        self._gap = (self._gap + text)[:SHOWN_BYTES].rstrip(SEPARATORS)

    def _move_to(self, position: int) -> None:
        """Sets `_begin`, with its line and column."""
        passed = self._data[self._begin : position]
        newlines = passed.count(b"\n")
        self._line += newlines
        start = passed.rfind(b"\n") + 1
        self._column = len(passed[start:].decode(errors="replace")) + (1 if newlines else self._column)
        self._begin = position

    def _forget(self) -> None:
        """Drops the bytes that were read. Keeps the size of a row that is too long, and the beginning of a gap."""
        if self._in_row:
            rest = self._data[self._begin :]
            if self._dropped + len(rest) > MAX_RECORD_BYTES:
                self._dropped += self._scan - self._begin
                self._move_to(self._scan)
                rest = self._data[self._scan :]
        else:
            if self._depth == self._base or self._closed:
                self._extend_gap(self._scan)
            self._move_to(self._scan)
            rest = self._data[self._scan :]
        self._scan -= len(self._data) - len(rest)
        self._data, self._begin = rest, 0

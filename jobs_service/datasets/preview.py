"""Reads single rows of a stored file without reading all of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from jobs_service.datasets.model import Dataset, DatasetStatus
from jobs_service.datasets.storage import Storage

BLOCK_BYTES = 128 * 1024
# Rows are read up to this size together, the last one in full.
MAX_PAGE_BYTES = 1024 * 1024
# Reads at once: each holds a thread and a page.
MAX_READS = 4
PLACE = re.compile(rb'\{"row":(?P<row>\d+),"line":(?P<line>\d+),')

Row = Mapping[str, Any]


class Previews:
    """Reads pages of the rows of stored files."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._reads = asyncio.Semaphore(MAX_READS)

    async def page(self, dataset: Dataset, *, row: int, line: int | None, limit: int) -> tuple[list[Row], int]:
        """Returns at most `limit` rows from `row` on, or from `line` of the uploaded file on, and the number of all rows.

        A dataset with errors has the rows of its excerpt, numbered from 1. Raises StorageUnavailable.
        """
        if dataset.storage_path is None or dataset.storage_bucket != self._storage.bucket:
            return [], 0
        async with self._reads:
            if dataset.status == DatasetStatus.ERROR:
                return await asyncio.to_thread(self._excerpt, dataset.storage_path, row, line, limit)
            key, target = ("row", row) if line is None else ("line", line)
            rows = await asyncio.to_thread(self._rows, dataset.storage_path, key, target, limit)
        return rows, dataset.total_rows or 0

    def _excerpt(self, path: str, row: int, line: int | None, limit: int) -> tuple[list[Row], int]:
        rows: list[Row] = [
            {**orjson.loads(raw), "row": number}
            for number, raw in enumerate(self._lines(path, 0, self._storage.size(path)), start=1)
        ]
        first = row if line is None else next((each["row"] for each in rows if each["line"] >= line), len(rows) + 1)
        return rows[first - 1 : first - 1 + limit], len(rows)

    def _rows(self, path: str, key: str, target: int, limit: int) -> list[Row]:
        size = self._storage.size(path)
        rows: list[Row] = []
        total = 0
        for raw in self._lines(path, self._near(path, size, key, target), size):
            place = PLACE.match(raw)
            if place is not None and int(place[key]) >= target:
                rows.append(orjson.loads(raw))
                total += len(raw)
                if len(rows) == limit or total > MAX_PAGE_BYTES:
                    break
        return rows

    def _near(self, path: str, size: int, key: str, target: int) -> int:
        """Finds by binary search a line that begins about a block before the first line whose `key` is `target` or more."""
        low, high = 0, size
        while high - low > BLOCK_BYTES:
            middle = (low + high) // 2
            # The line that `middle` is in belongs to the half before.
            begin, place = self._next_line(path, middle, size)
            if place is None or int(place[key]) >= target:
                high = middle
            else:
                low = begin
        return low

    def _next_line(self, path: str, offset: int, size: int) -> tuple[int, re.Match[bytes] | None]:
        """Returns where the next line after an offset begins, and its row and line numbers; None at the end of the file."""
        while offset < size:
            block = self._storage.read(path, offset, min(size, offset + BLOCK_BYTES))
            newline = block.find(b"\n")
            if newline >= 0:
                begin = offset + newline + 1
                return begin, PLACE.match(self._storage.read(path, begin, min(size, begin + 64)))
            offset += len(block)
        return size, None

    def _lines(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        rest = b""
        while offset < size:
            block = self._storage.read(path, offset, min(size, offset + BLOCK_BYTES))
            offset += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from lines

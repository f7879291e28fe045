"""Reads a JSONL file as it comes in: checks its lines, counts pairs and tokens, keeps it if all of it is good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy
import orjson

from jobs_service.formats import BadLineError, detect, parse
from jobs_service.storage import Storage
from jobs_service.tokens import count_tokens
from rpc.errors import TooLarge

MAX_ERRORS = 50
MAX_LINE_BYTES = 4 * 1024 * 1024
# Bytes handed to the worker at once: large enough to be worth the trip, small enough to hold twice.
BATCH_BYTES = 256 * 1024
# Lengths are counted one by one up to here; a longer example counts as this long.
MAX_LENGTH = 65_536


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with a line, from 1; line 0 is the file as a whole."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file holds. The token lengths are those of whole examples; storage is None where the file is not kept."""

    format: str | None
    training_pairs: int
    validation_pairs: int
    tokens: int
    p50_tokens: int
    p95_tokens: int
    longest_tokens: int
    token_histogram: list[tuple[int, int]]
    file_size: int
    errors: list[LineError]
    error_count: int
    storage_bucket: str | None
    storage_path: str | None


async def import_file(chunks: AsyncIterator[bytes], storage: Storage, path: str, *, max_bytes: int) -> Imported:
    """Imports a file in a thread of its own, in bounded memory; the sender is read no faster than the lines are.

    Nothing stays behind if it fails or is cancelled. Raises TooLarge, StorageUnavailable, and what `chunks` raises.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="import") as worker:

        async def run(step: Callable[..., Any], *arguments: Any) -> Any:
            return await loop.run_in_executor(worker, step, *arguments)

        reader = _Reader()
        writer = await run(storage.open, path)
        try:
            batch = bytearray()
            async for chunk in chunks:
                batch += chunk
                if reader.size + len(batch) > max_bytes:
                    raise TooLarge("File too large", details=f"A dataset may have {max_bytes} bytes at most; split it.")
                if len(batch) >= BATCH_BYTES:
                    data, batch = bytes(batch), bytearray()
                    await run(_step, reader, writer, data)
            await run(_step, reader, writer, bytes(batch))
            await run(reader.finish)
            if reader.error_count == 0:
                await run(writer.commit)
                return reader.result(storage.bucket, path)
            return reader.result(None, None)
        finally:
            # After a commit there is nothing left to discard.
            worker.submit(writer.discard)


def _step(reader: _Reader, writer: Any, data: bytes) -> None:
    writer.write(data)
    reader.feed(data)


class _Reader:
    """Checks and counts lines, batch by batch. Used by one thread."""

    def __init__(self) -> None:
        self.size = 0
        self.error_count = 0
        self._errors: list[LineError] = []
        self._format: str | None = None
        self._line = 0
        self._rest = b""
        self._overlong = False
        self._pairs = 0
        self._tokens = 0
        self._examples = 0
        self._longest = 0
        self._lengths = numpy.zeros(MAX_LENGTH + 1, dtype=numpy.int64)

    def feed(self, data: bytes) -> None:
        """Takes the next bytes."""
        self.size += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > MAX_LINE_BYTES:
            # Keep what tells that it was too long, not the line.
            self._overlong, self._rest = True, b""

    def finish(self) -> None:
        """Takes the last line, and judges the file as a whole."""
        if self._rest or self._overlong:
            self._take(self._rest)
            self._rest = b""
        if self._examples == 0 and self.error_count == 0:
            self._line = 0
            self._complain("the file is empty: it needs at least one line")

    def result(self, bucket: str | None, path: str | None) -> Imported:
        """What was found."""
        return Imported(
            format=self._format,
            training_pairs=self._pairs,
            validation_pairs=0,
            tokens=self._tokens,
            p50_tokens=self._quantile(0.50),
            p95_tokens=self._quantile(0.95),
            longest_tokens=self._longest,
            token_histogram=self._histogram(),
            file_size=self.size,
            errors=self._errors,
            error_count=self.error_count,
            storage_bucket=bucket,
            storage_path=path,
        )

    def _take(self, line: bytes) -> None:
        self._line += 1
        if self._line == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            if self._overlong or len(line) > MAX_LINE_BYTES:
                self._overlong = False
                raise BadLineError(f"longer than {MAX_LINE_BYTES} bytes")
            if line.strip():
                self._count(line)
        except BadLineError as error:
            self._complain(str(error))

    def _count(self, line: bytes) -> None:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadLineError(f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise BadLineError("not a JSON object")
        found = detect(value)
        if found is None:
            raise BadLineError(
                "no known format: use `messages`, `conversations`, `instruction` and `output`, "
                "`prompt` and `completion`, or `conversation_id` and `turns`"
            )
        if self._format is None:
            self._format = found
        if found != self._format:
            raise BadLineError(f"has the format {found}, the lines before have {self._format}")
        example = parse(found, value)
        tokens = count_tokens(example.texts)
        self._examples += 1
        self._pairs += example.pairs
        self._tokens += tokens
        self._longest = max(self._longest, tokens)
        self._lengths[min(tokens, MAX_LENGTH)] += 1

    def _complain(self, reason: str) -> None:
        self.error_count += 1
        if len(self._errors) < MAX_ERRORS:
            self._errors.append(LineError(self._line, reason))

    def _histogram(self) -> list[tuple[int, int]]:
        """(most tokens, examples) of every bin that has some. Edges grow by a fourth root of 2; the last is the longest."""
        counted = numpy.cumsum(self._lengths)
        edges = numpy.unique(numpy.rint(2.0 ** (numpy.arange(4 * 16 + 1) / 4.0)).astype(int))
        inside = numpy.diff(counted[edges], prepend=0)
        found = [(edge, samples) for edge, samples in zip(edges.tolist(), inside.tolist(), strict=True) if samples]
        return [*found[:-1], (self._longest, found[-1][1])] if found else []

    def _quantile(self, share: float) -> int:
        if not self._examples:
            return 0
        return int(numpy.searchsorted(numpy.cumsum(self._lengths), share * self._examples))

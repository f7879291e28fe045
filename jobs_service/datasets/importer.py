"""Reads a JSONL file as it comes in: checks its lines, counts pairs and tokens, keeps it if all of it is good."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any
from weakref import WeakValueDictionary

import orjson

from jobs_service.datasets.formats import BadLineError, detect, parse
from jobs_service.datasets.storage import Storage, Writer
from jobs_service.datasets.tokens import count_tokens
from jobs_service.errors import StorageQuota
from rpc.errors import DatabaseUnavailable, DeadlineExceeded, TooLarge

# Tokenising lets other threads run, parsing does not: more of these would only slow down what answers meanwhile.
THREADS = 2
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


class Importer:
    """Imports files in a few threads for the whole process, in bounded memory, off the event loop.

    Files of one folder, which is one user's, take turns: whoever sends many keeps no thread from others.
    """

    def __init__(self, storage: Storage, threads: ThreadPoolExecutor, *, max_bytes: int) -> None:
        self._storage = storage
        self._threads = threads
        self._max_bytes = max_bytes
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    @asynccontextmanager
    async def open(cls, storage: Storage, *, max_bytes: int) -> AsyncIterator[Importer]:
        """Opens an importer, and waits in the end for what its threads are at."""
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="import")
        try:
            yield cls(storage, threads, max_bytes=max_bytes)
        finally:
            await asyncio.to_thread(threads.shutdown)

    @asynccontextmanager
    async def read(self, chunks: AsyncIterator[bytes], path: str, *, room: int) -> AsyncIterator[Imported]:
        """Reads a file, no faster than its lines are checked, and keeps it under `path` if all of it is good.

        `room`: bytes that its owner may keep beside what there is.

        The body records it. Where reading fails, or the body says for certain that nothing is recorded, nothing stays
        behind; where it cannot know, the file does: one that nobody knows of is waste, one that is missing is a loss.
        Raises TooLarge, StorageQuota, StorageUnavailable, and what `chunks` raises.
        """
        turn = self._turns.setdefault(path.rpartition("/")[0], asyncio.Lock())
        work = _Work(self._threads, turn, self._storage.writer(path))
        try:
            await self._take(chunks, work, room)
            found = work.reader.result(*(() if work.reader.error_count else (self._storage.bucket, path)))
        except BaseException:
            await work.discard()
            raise
        if found.error_count:
            await work.discard()
        try:
            yield found
        except (DatabaseUnavailable, DeadlineExceeded):
            raise
        except Exception:
            await work.discard()
            raise

    async def _take(self, chunks: AsyncIterator[bytes], work: _Work, room: int) -> None:
        batch = bytearray()
        async for chunk in chunks:
            batch += chunk
            if work.reader.size + len(batch) > self._max_bytes:
                most = f"A dataset may have {self._max_bytes} bytes at most; split it."
                raise TooLarge("File too large", details=most)
            if work.reader.size + len(batch) > room:
                raise StorageQuota(room=room)
            if len(batch) >= BATCH_BYTES:
                data, batch = bytes(batch), bytearray()
                await work.run(work.step, data)
        await work.run(work.step, bytes(batch))
        await work.run(work.finish)


class _Work:
    """One import's steps: each in some thread, one after another."""

    def __init__(self, threads: ThreadPoolExecutor, turn: asyncio.Lock, writer: Writer) -> None:
        self.reader = _Reader()
        self._threads = threads
        self._turn = turn
        self._writer = writer
        self._running: Future[None] | None = None

    async def run(self, step: Callable[..., None], *arguments: Any) -> None:
        """Runs a step. If its caller is cancelled it goes on to its end, and `discard` waits for that."""
        async with self._turn:
            self._running = self._threads.submit(step, *arguments)
            await asyncio.wrap_future(self._running)

    def step(self, data: bytes) -> None:
        """Takes the next bytes. What has bad lines is not kept, so the rest of it is not written."""
        self.reader.feed(data)
        if not self.reader.error_count and data:
            self._writer.write(data)

    def finish(self) -> None:
        """Takes the end of the file."""
        self.reader.finish()
        if not self.reader.error_count:
            self._writer.commit()

    async def discard(self) -> None:
        """Leaves nothing behind."""

        def discard() -> None:
            if self._running is not None:
                wait([self._running])
            self._writer.discard()

        await asyncio.wrap_future(self._threads.submit(discard))


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
        self._lengths = [0] * (MAX_LENGTH + 1)

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

    def result(self, bucket: str | None = None, path: str | None = None) -> Imported:
        """What was found, and where it is kept if it is."""
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
        counted = list(accumulate(self._lengths))
        edges = sorted({round(2 ** (step / 4)) for step in range(4 * 16 + 1)})
        inside = [upto - before for before, upto in pairwise([0, *(counted[edge] for edge in edges)])]
        found = [(edge, samples) for edge, samples in zip(edges, inside, strict=True) if samples]
        return [*found[:-1], (self._longest, found[-1][1])] if found else []

    def _quantile(self, share: float) -> int:
        if not self._examples:
            return 0
        return bisect_left(list(accumulate(self._lengths)), share * self._examples)

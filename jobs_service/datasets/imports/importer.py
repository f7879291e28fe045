"""Imports files: reads them in threads while they are uploaded, and stores their rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from jobs_service.datasets.formats.mapping import ColumnMapping
from jobs_service.datasets.imports.ingestion import Ingestion, Summary
from jobs_service.datasets.storage import Storage
from jobs_service.errors import StorageQuota
from rpc.errors import DatabaseUnavailable, DeadlineExceeded, TooLarge
from rpc.telemetry.metrics import Metrics

# Counting tokens releases the interpreter lock, parsing does not: more threads would only slow down the event loop.
THREADS = 2
# Bytes handed to a thread at once.
BATCH_BYTES = 256 * 1024
DURATION_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1_800)


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """An imported file. `storage_path` is None if nothing of it is stored; sizes in bytes."""

    summary: Summary
    file_size: int
    stored_size: int
    storage_bucket: str | None
    storage_path: str | None


class Importer:
    """Imports files in a few threads for the whole process, in bounded memory.

    A folder belongs to one user. Files of one folder take turns, so that the files of one user leave a thread to others.
    """

    def __init__(self, storage: Storage, threads: ThreadPoolExecutor, *, max_bytes: int, metrics: Metrics) -> None:
        self._metrics = ImportMetrics(metrics)
        self._storage = storage
        self._threads = threads
        self._max_bytes = max_bytes
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    @asynccontextmanager
    async def open(cls, storage: Storage, *, max_bytes: int, metrics: Metrics) -> AsyncIterator[Importer]:
        """Opens an importer. Closing it waits for the steps that its threads are running."""
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="import")
        try:
            yield cls(storage, threads, max_bytes=max_bytes, metrics=metrics)
        finally:
            await asyncio.to_thread(threads.shutdown)

    @asynccontextmanager
    async def read(
        self, chunks: AsyncIterator[bytes], path: str, *, remaining_bytes: int, mapping: ColumnMapping | None = None
    ) -> AsyncIterator[ImportedFile]:
        """Reads a file as fast as its rows can be checked, and stores them under `path`; an excerpt if the file has bad rows.

        `remaining_bytes`: what its owner may store in addition. The body records the file. If reading or recording fails, the
        file is removed. If it is unknown whether it was recorded, the sweeper removes it later unless a dataset has it.
        Raises TooLarge, StorageQuota, StorageUnavailable, and what `chunks` raises.
        """
        started = time.monotonic()
        turn = self._turns.setdefault(path.rpartition("/")[0], asyncio.Lock())
        work = _Work(
            self._threads,
            turn,
            self._storage,
            path,
            remaining_bytes=remaining_bytes,
            max_bytes=self._max_bytes,
            mapping=mapping,
        )
        try:
            await self._receive(chunks, work)
            file = work.result()
        except BaseException:
            self._metrics.count("interrupted", started, work.received, 0)
            await work.discard()
            raise
        rejected = file.summary.error_count
        self._metrics.count("rejected" if rejected else "accepted", started, file.file_size, rejected)
        try:
            yield file
        except (DatabaseUnavailable, DeadlineExceeded):
            raise
        except Exception:
            await work.discard()
            raise

    async def _receive(self, chunks: AsyncIterator[bytes], work: _Work) -> None:
        batch = bytearray()
        async for chunk in chunks:
            batch += chunk
            if work.received + len(batch) > self._max_bytes:
                raise _too_large(self._max_bytes)
            if len(batch) >= BATCH_BYTES:
                data, batch = bytes(batch), bytearray()
                await work.take(data)
        await work.take(bytes(batch))
        await work.end()


class ImportMetrics:
    """Metrics of imports, by outcome: `accepted`, `rejected` (bad rows), `interrupted` (not read to the end)."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = metrics.histogram(
            "pipeline_import_duration_seconds",
            "Time from the first byte of an upload to its last row.",
            ["outcome"],
            buckets=DURATION_BUCKETS,
        )
        self._bytes = metrics.counter("pipeline_import_bytes_total", "Bytes of datasets received.")
        self._rejected = metrics.counter("pipeline_import_rejected_lines_total", "Errors in rows of datasets.")

    def count(self, outcome: str, started: float, size: int, rejected: int) -> None:
        """Counts an import of `size` bytes with `rejected` errors. `started`: of the monotonic clock."""
        self._seconds.labels(outcome).observe(time.monotonic() - started)
        self._bytes.inc(size)
        self._rejected.inc(rejected)


class _Work:
    """The steps of one import: one after another, each in a thread of the pool."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        turn: asyncio.Lock,
        storage: Storage,
        path: str,
        *,
        remaining_bytes: int,
        max_bytes: int,
        mapping: ColumnMapping | None,
    ) -> None:
        self.received = 0
        self._ingestion = Ingestion(mapping)
        self._threads = threads
        self._turn = turn
        self._storage = storage
        self._path = path
        self._remaining_bytes = remaining_bytes
        self._max_bytes = max_bytes
        self._writer = storage.writer(path)
        self._stored = 0
        self._running: Future[Any] | None = None

    async def take(self, data: bytes) -> None:
        """Reads the next bytes."""
        self.received += len(data)
        await self._run(self._ingestion.feed, data)
        await self._advance()

    async def end(self) -> None:
        """Reads the end of the file and commits the stored file."""
        await self._run(self._ingestion.end)
        await self._advance()
        await self._run(self._commit)

    def result(self) -> ImportedFile:
        """Returns the summary of the file, and where it is stored."""
        location = (self._storage.bucket, self._path) if self._stored else (None, None)
        return ImportedFile(self._ingestion.result(), self.received, self._stored, *location)

    async def discard(self) -> None:
        """Removes the stored file once the running step has ended."""

        def discard() -> None:
            if self._running is not None:
                wait([self._running])
            self._ingestion.close()
            self._writer.discard()

        await asyncio.wrap_future(self._threads.submit(discard))

    async def _advance(self) -> None:
        while await self._run(self._step):
            pass

    async def _run(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a step. If the caller is cancelled, the step still finishes, and `discard` waits for it."""
        async with self._turn:
            self._running = self._threads.submit(step, *arguments)
            return await asyncio.wrap_future(self._running)

    def _step(self) -> bool:
        """Reads a piece and stores its rows. Stores no rows after the first error: a file with bad rows is not kept."""
        more = self._ingestion.advance()
        if self._ingestion.content_size > self._max_bytes:
            raise _too_large(self._max_bytes)
        output = self._ingestion.output
        if output and not self._ingestion.errors.total:
            self._write(bytes(output))
        output.clear()
        return more

    def _commit(self) -> None:
        self._ingestion.close()
        if self._ingestion.errors.total:
            self._writer.discard()
            excerpt = self._ingestion.excerpt()
            self._writer, self._stored = self._storage.writer(self._path), len(excerpt)
            if excerpt:
                self._writer.write(excerpt)
        if self._stored:
            self._writer.commit()

    def _write(self, data: bytes) -> None:
        self._stored += len(data)
        if self._stored > self._remaining_bytes:
            raise StorageQuota(remaining_bytes=self._remaining_bytes)
        self._writer.write(data)


def _too_large(limit: int) -> TooLarge:
    return TooLarge("File too large", details=f"A dataset may have {limit} bytes at most, decompressed; split it.")

"""Datasets in Postgres with their files in storage: what a user may keep, what goes with it, and what nobody has any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import UUID

import structlog

from jobs_service.database.rows import Page, as_caller, as_json, page_of, reader
from jobs_service.datasets.importer import Imported
from jobs_service.datasets.model import Dataset, DatasetStatus
from jobs_service.datasets.storage import Storage
from jobs_service.errors import DatasetInUse, DatasetLimit, DatasetNotFound, StorageQuota
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.database.transaction import Transaction
from rpc.errors import ServiceError
from rpc.identity.model import SYSTEM, Identity
from rpc.process.background import repeat

SQL = load_queries("jobs_service.datasets", "queries.sql")
# An import takes half an hour at most; a file that nobody has after this long is nobody's.
UNCLAIMED = timedelta(hours=24)
# Files that are removed at once, and how long the next wait.
BATCH, SWEEP_SECONDS, SWEEP_TIMEOUT_SECONDS = 50, 60.0, 600.0

log = structlog.get_logger()


class DatasetStore:
    """Datasets and what is kept of them. All but the sweep acts as its caller, under row-level security."""

    def __init__(self, database: Database, storage: Storage, *, max_per_user: int, max_bytes_per_user: int) -> None:
        self._database = database
        self._storage = storage
        self._max = max_per_user
        self._max_bytes = max_bytes_per_user

    async def get(self, caller: Identity, dataset_id: UUID) -> Dataset:
        """Raises DatasetNotFound."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["get_dataset"], dataset_id)
        if row is None:
            raise DatasetNotFound
        found: Dataset = _dataset(row)
        return found

    async def list_all(
        self, caller: Identity, *, page: int, limit: int, status: str | None, search: str
    ) -> Page[Dataset]:
        """The caller's datasets, newest first; `search` is part of a name in any case."""
        statuses = [status] if status else [*DatasetStatus]
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(SQL["list_datasets"], statuses, limit, (page - 1) * limit, search)
        return page_of(rows, _dataset)

    @asynccontextmanager
    async def begun(self, caller: Identity, path: str) -> AsyncIterator[int]:
        """Writes down that a file is about to be, and leaves it to the sweep where its body made no dataset of it.

        Yields the bytes that it may have. Raises DatasetLimit, StorageQuota.
        """
        async with as_caller(self._database, caller) as connection:
            room = await self._room(connection)
            if room <= 0:
                raise StorageQuota(room=0)
            await connection.execute(SQL["begin_file"], path)
        try:
            yield room
        finally:
            # Where this fails the file is found all the same, a day later; and what the body did is done.
            with suppress(ServiceError):
                async with as_caller(self._database, caller) as connection:
                    await connection.execute(SQL["end_file"], path)

    async def create(
        self,
        caller: Identity,
        dataset_id: UUID,
        name: str,
        description: str | None,
        file_name: str | None,
        file: Imported,
    ) -> Dataset:
        """Records an imported file: `ready`, or `error` where it has bad lines. Raises DatasetLimit, StorageQuota."""
        status = DatasetStatus.ERROR if file.error_count else DatasetStatus.READY
        errors = [{"line": error.line, "reason": error.reason} for error in file.errors]
        async with as_caller(self._database, caller, SQL["lock_user"]) as connection:
            room = await self._room(connection)
            if file.storage_path is not None and file.file_size > room:
                raise StorageQuota(room=max(0, room))
            row = await connection.fetchrow(
                SQL["create_dataset"],
                dataset_id,
                name,
                description,
                file.format,
                status,
                file.training_pairs,
                file.validation_pairs,
                file.tokens,
                file.p50_tokens,
                file.p95_tokens,
                file.longest_tokens,
                as_json(file.token_histogram),
                file.storage_bucket,
                file.storage_path,
                file_name,
                file.file_size,
                as_json(errors),
                file.error_count,
            )
        created: Dataset = _dataset(row)
        return created

    async def _room(self, connection: Transaction) -> int:
        """Bytes that the caller may keep beside what is there. Raises DatasetLimit."""
        (kept,) = await connection.fetch(SQL["kept"])
        if kept["datasets"] >= self._max:
            raise DatasetLimit(limit=self._max)
        return self._max_bytes - int(kept["bytes"])

    async def delete(self, caller: Identity, dataset_id: UUID) -> None:
        """Deletes a dataset; a sweep removes its file. Raises DatasetNotFound, DatasetInUse."""
        async with as_caller(self._database, caller, SQL["lock_user"]) as connection:
            if await connection.fetchval(SQL["delete_dataset"], dataset_id, self._storage.bucket) is None:
                jobs = await connection.fetchval(SQL["open_jobs"], dataset_id)
                raise DatasetNotFound if jobs is None else DatasetInUse(jobs=jobs)

    async def run(self) -> None:
        """Removes files that no dataset has, until cancelled. A task of its own, because a storage may be slow."""
        await repeat("sweep_files", self._sweep, every_seconds=SWEEP_SECONDS, timeout_seconds=SWEEP_TIMEOUT_SECONDS)

    async def _sweep(self) -> None:
        while await self._remove_some() == BATCH:
            pass

    async def _remove_some(self) -> int:
        async with as_caller(self._database, SYSTEM) as connection:
            paths = [row["path"] for row in await connection.fetch(SQL["old_files"], UNCLAIMED, BATCH)]
        if paths:
            removed = await asyncio.to_thread(self._storage.remove, paths)
            async with as_caller(self._database, SYSTEM) as connection:
                await connection.execute(SQL["removed"], removed)
        return len(paths)


_dataset = reader(Dataset)

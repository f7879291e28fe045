"""Datasets as rows in Postgres, and the limits of a user. Files are in `storage.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from uuid import UUID

from jobs_service.database.rows import Page, as_caller, as_json, read_page, reader
from jobs_service.datasets.imports.importer import ImportedFile
from jobs_service.datasets.model import Dataset, DatasetStatus
from jobs_service.errors import DatasetInUse, DatasetLimit, DatasetNotFound, StorageQuota
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.database.transaction import Transaction
from rpc.errors import ServiceError
from rpc.identity.model import Identity

SQL = load_queries("jobs_service.datasets", "queries.sql")


class Usage(NamedTuple):
    """What counts toward a user's limits: datasets, with errors or not, and the bytes of the ready ones in storage."""

    datasets: int
    bytes: int


class DatasetStore:
    """Datasets of callers, under row-level security. `bucket`: the storage that new files are in."""

    def __init__(self, database: Database, *, bucket: str, max_per_user: int, max_bytes_per_user: int) -> None:
        self._database = database
        self._bucket = bucket
        self._max = max_per_user
        self._max_bytes = max_bytes_per_user

    async def get(self, caller: Identity, dataset_id: UUID) -> Dataset:
        """Raises DatasetNotFound."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["get_dataset"], dataset_id)
        if row is None:
            raise DatasetNotFound
        return _dataset(row)

    async def list_all(
        self, caller: Identity, *, page: int, limit: int, status: str | None, search: str
    ) -> Page[Dataset]:
        """Returns a page of the caller's datasets, newest first. `search`: part of a name, in any case."""
        statuses = [status] if status else [*DatasetStatus]
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(SQL["list_datasets"], statuses, limit, (page - 1) * limit, search)
        return read_page(rows, _dataset)

    @asynccontextmanager
    async def reserve_file(self, caller: Identity, path: str) -> AsyncIterator[int]:
        """Records that a file is about to be written, so that the sweeper removes it if the body creates no dataset with it.

        Yields the bytes that the file may have. Raises DatasetLimit, StorageQuota.
        """
        async with as_caller(self._database, caller) as connection:
            usage = await self._usage(connection)
            self._check_dataset_limit(usage)
            remaining_bytes = self._remaining_bytes(usage)
            if remaining_bytes <= 0:
                raise StorageQuota(remaining_bytes=0)
            await connection.execute(SQL["reserve_file"], path)
        try:
            yield remaining_bytes
        finally:
            # If this fails, the sweeper finds the file a day later; what the body did stays done.
            with suppress(ServiceError):
                async with as_caller(self._database, caller) as connection:
                    await connection.execute(SQL["release_file"], path)

    async def create(
        self,
        caller: Identity,
        dataset_id: UUID,
        name: str,
        description: str | None,
        file_name: str | None,
        file: ImportedFile,
    ) -> Dataset:
        """Creates the dataset of a file: `ready`, or `error` if it has bad rows. Raises DatasetLimit, StorageQuota."""
        summary = file.summary
        status = DatasetStatus.ERROR if summary.error_count else DatasetStatus.READY
        async with as_caller(self._database, caller, SQL["lock_user"]) as connection:
            usage = await self._usage(connection)
            self._check_dataset_limit(usage)
            remaining_bytes = self._remaining_bytes(usage)
            if status == DatasetStatus.READY and file.stored_size > remaining_bytes:
                raise StorageQuota(remaining_bytes=max(0, remaining_bytes))
            row = await connection.fetchrow(
                SQL["create_dataset"],
                dataset_id,
                name,
                description,
                summary.format,
                status,
                summary.training_pairs,
                0,
                summary.tokens,
                summary.p50_tokens,
                summary.p95_tokens,
                summary.longest_tokens,
                as_json(summary.token_histogram),
                file.storage_bucket,
                file.storage_path,
                file_name,
                file.file_size,
                as_json(summary.errors),
                summary.error_count,
                as_json(summary.warnings),
                summary.samples,
                file.stored_size,
                as_json(summary.script_tokens),
            )
        return _dataset(row)

    async def _usage(self, connection: Transaction) -> Usage:
        (row,) = await connection.fetch(SQL["usage"])
        return Usage(*row)

    def _check_dataset_limit(self, usage: Usage) -> None:
        if usage.datasets >= self._max:
            raise DatasetLimit(limit=self._max)

    def _remaining_bytes(self, usage: Usage) -> int:
        return self._max_bytes - usage.bytes

    async def delete(self, caller: Identity, dataset_id: UUID) -> None:
        """Deletes a dataset; the sweeper removes its file. Raises DatasetNotFound, DatasetInUse."""
        async with as_caller(self._database, caller, SQL["lock_user"]) as connection:
            if await connection.fetchval(SQL["delete_dataset"], dataset_id, self._bucket) is None:
                jobs = await connection.fetchval(SQL["open_jobs"], dataset_id)
                raise DatasetNotFound if jobs is None else DatasetInUse(jobs=jobs)


_dataset = reader(Dataset)

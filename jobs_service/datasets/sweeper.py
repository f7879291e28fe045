"""The background task that removes files without a dataset or result from the storage."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from jobs_service.database.rows import as_caller
from jobs_service.datasets.storage import Storage
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import SYSTEM
from rpc.process.background import repeat

SQL = load_queries("jobs_service.datasets", "queries.sql")
# An import takes at most half an hour: a file without a dataset after this time never gets one.
UNCLAIMED = timedelta(hours=24)
# Files removed at once, seconds between two passes, and the timeout of a pass.
BATCH, SWEEP_SECONDS, SWEEP_TIMEOUT_SECONDS = 50, 60.0, 600.0


class FileSweeper:
    """Removes the files of deleted datasets, and those that no dataset claimed in time."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage

    async def run(self) -> None:
        """Sweeps until cancelled. A task of its own, because a storage may be slow."""
        await repeat(
            "sweep_files",
            self._sweep,
            every_seconds=SWEEP_SECONDS,
            timeout_seconds=SWEEP_TIMEOUT_SECONDS,
            is_urgent=False,
        )

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

"""Files of results as rows in Postgres. The files themselves are in the storage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

from jobs_service.artifacts.model import Artifact, ArtifactFile, DatasetFile, StoredFile, Upload
from jobs_service.database.rows import as_caller
from jobs_service.errors import (
    ArtifactMismatch,
    ArtifactNotFound,
    ArtifactTooLarge,
    DatasetFileNotFound,
    JobNotFound,
    LeaseLost,
)
from jobs_service.jobs.model import LeaseRef
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.database.transaction import Transaction
from rpc.identity.model import SYSTEM, Identity
from rpc.process.background import repeat

SQL = load_queries("jobs_service.artifacts", "queries.sql")
MAX_FILES = 1_000
# Jobs whose files one transaction of the sweeper deletes.
BATCH = 100
SWEEP_SECONDS = 60.0


class ArtifactStore:
    """Files of results. Methods act as their caller, under row-level security; those of the sweeper as the system."""

    def __init__(self, database: Database, *, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes

    async def begin_upload(self, caller: Identity, lease: LeaseRef, name: str) -> Upload:
        """Records that a lease uploads a file. Raises LeaseLost, ArtifactTooLarge."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["lease_of_upload"], *lease, name)
            if row is None:
                raise LeaseLost
            if row["bytes"] >= self._max_bytes or row["files"] >= MAX_FILES:
                raise ArtifactTooLarge(limit=self._max_bytes)
            path = f"artifacts/{lease.job_id}/{uuid4().hex}-{name}"
            await connection.execute(SQL["begin_upload"], path, row["user_id"])
        return Upload(path, self._max_bytes - row["bytes"])

    async def keep_upload(self, caller: Identity, lease: LeaseRef, file: ArtifactFile, path: str) -> None:
        """Records that a file was uploaded; it replaces an earlier one of its name. Raises LeaseLost."""
        async with as_caller(self._database, caller) as connection:
            if await connection.fetchval(SQL["keep_upload"], *lease, *file, path) is None:
                raise LeaseLost

    async def drop_upload(self, path: str) -> None:
        """Marks the file of a failed upload for the sweeper."""
        async with as_caller(self._database, SYSTEM) as connection:
            await connection.execute(SQL["drop_upload"], path)

    async def get(self, caller: Identity, job_id: UUID) -> Artifact:
        """Returns the result of one of the caller's jobs. Raises JobNotFound, ArtifactNotFound."""
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(SQL["get_artifact"], job_id)
        if not rows:
            raise JobNotFound
        files = [StoredFile(row["name"], row["size"], row["sha256"], row["path"]) for row in rows if row["name"]]
        if not files:
            raise ArtifactNotFound
        return Artifact(files, rows[0]["step"], rows[0]["estimate"], rows[0]["completed_at"])

    async def delete(self, caller: Identity, job_id: UUID) -> None:
        """Deletes the result of one of the caller's jobs. Raises JobNotFound, ArtifactNotFound."""
        async with as_caller(self._database, caller) as connection:
            if await connection.fetchval(SQL["delete_artifact"], job_id) is None:
                rows = await connection.fetch(SQL["get_artifact"], job_id)
                raise ArtifactNotFound if rows else JobNotFound

    async def leased_dataset(self, caller: Identity, lease: LeaseRef, *, validation: bool) -> DatasetFile:
        """Returns the file of a lease's dataset, or of its validation dataset. Raises LeaseLost, DatasetFileNotFound."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["leased_dataset"], *lease, validation)
        if row is None:
            raise LeaseLost
        if row["bucket"] is None or row["path"] is None:
            raise DatasetFileNotFound
        return DatasetFile(row["bucket"], row["path"])

    async def sweep(self, retention: timedelta | None) -> int:
        """Deletes files of old results, and of jobs that ended without a result. Returns the number of jobs, up to BATCH."""
        async with as_caller(self._database, SYSTEM) as connection:
            ids = [row["id"] for row in await connection.fetch(SQL["old_artifacts"], retention, BATCH)]
            if ids:
                await connection.execute(SQL["drop_artifacts"], ids)
        return len(ids)

    async def run(self, retention: timedelta | None) -> None:
        """Sweeps until cancelled."""

        async def sweep() -> None:
            while await self.sweep(retention) == BATCH:
                pass

        await repeat(
            "sweep-artifacts", sweep, every_seconds=SWEEP_SECONDS, timeout_seconds=SWEEP_SECONDS, is_urgent=False
        )


async def set_result_files(connection: Transaction, job_id: UUID, files: Sequence[ArtifactFile]) -> None:
    """Makes uploaded files the result of a job that completes. Raises ArtifactMismatch if the lease uploaded others."""
    uploaded = {
        row["name"]: ArtifactFile(row["name"], row["size"], row["sha256"])
        for row in await connection.fetch(SQL["uploaded_files"], job_id)
    }
    wrong = [file.name for file in files if uploaded.get(file.name) != file]
    if wrong:
        raise ArtifactMismatch(files=wrong)
    await connection.execute(SQL["drop_files"], job_id, [file.name for file in files])

"""Uploads of trainers to the storage, and downloads from it. Calls of the storage block, so they run in threads."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from uuid import UUID

from jobs_service.artifacts.archive import archive, archive_size
from jobs_service.artifacts.model import ARCHIVE, Artifact, ArtifactFile, Download, StoredFile
from jobs_service.artifacts.store import ArtifactStore
from jobs_service.datasets.storage import Storage, Writer
from jobs_service.errors import ArtifactNotFound, ArtifactTooLarge, DatasetFileNotFound, StorageUnavailable
from jobs_service.jobs.model import LeaseRef
from rpc.errors import ServiceError, ValidationFailed
from rpc.identity.model import Identity

CHUNK_BYTES = 512 * 1024
# Calls of the storage at once; the others wait.
THREADS = 8
# Chunks of a stream to a trainer after which the lease is checked again.
CHUNKS_PER_CHECK = 32

# Time that signing a URL for a lease may take, seconds.
SIGN_SECONDS = 2.0

T = TypeVar("T")


class ArtifactFiles:
    """Receives and sends files. `store` checks whose they are."""

    def __init__(self, store: ArtifactStore, storage: Storage, threads: ThreadPoolExecutor) -> None:
        self._store = store
        self._storage = storage
        self._threads = threads

    @classmethod
    @asynccontextmanager
    async def open(cls, store: ArtifactStore, storage: Storage) -> AsyncIterator[ArtifactFiles]:
        """Opens its threads while the body runs."""
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifacts")
        try:
            yield cls(store, storage, threads)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def receive(self, caller: Identity, lease: LeaseRef, name: str, chunks: AsyncIterator[bytes]) -> ArtifactFile:
        """Stores a file that a lease uploads. Raises LeaseLost, ArtifactTooLarge, StorageUnavailable."""
        path, max_bytes = await self._store.begin_upload(caller, lease, name)
        writer = self._storage.writer(path)
        digest, size = hashlib.sha256(), 0
        is_stored = False
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise ArtifactTooLarge(limit=max_bytes)
                digest.update(chunk)
                await self._run(writer.write, chunk)
            if not size:
                await self._run(writer.write, b"")
            await self._run(writer.commit)
            file = ArtifactFile(name, size, digest.hexdigest())
            await self._store.keep_upload(caller, lease, file, path)
            is_stored = True
        finally:
            if not is_stored:
                # Shielded: the caller may be gone, and its task cancelled.
                await asyncio.shield(self._discard(writer, path))
        return file

    async def dataset(
        self, caller: Identity, lease: LeaseRef, offset: int, *, validation: bool
    ) -> tuple[int, AsyncIterator[bytes]]:
        """Returns the size of a lease's dataset, or of its validation dataset, and its bytes from an offset on.

        Raises LeaseLost, DatasetFileNotFound.
        """
        bucket, path = await self._store.leased_dataset(caller, lease, validation=validation)
        if bucket.rstrip("/") != self._storage.bucket:
            raise DatasetFileNotFound
        size = await self._run(self._storage.size, path)
        if offset > size:
            raise ValidationFailed([("offset", f"the file has {size} bytes")])

        async def chunks() -> AsyncIterator[bytes]:
            for number, start in enumerate(range(offset, size, CHUNK_BYTES), 1):
                yield await self._run(self._storage.read, path, start, min(size, start + CHUNK_BYTES))
                if number % CHUNKS_PER_CHECK == 0:
                    await self._store.leased_dataset(caller, lease, validation=validation)

        return size, chunks()

    async def dataset_url(self, bucket: str, path: str, file_name: str) -> str:
        """Returns a signed URL of a dataset's file; empty if the storage signs none, or not within SIGN_SECONDS."""
        if bucket.rstrip("/") != self._storage.bucket or not self._storage.signs:
            return ""
        try:
            async with asyncio.timeout(SIGN_SECONDS):
                return await self._run(self._storage.signed_url, path, file_name)
        except (TimeoutError, StorageUnavailable):
            return ""

    async def download(
        self, caller: Identity, job_id: UUID, name: str, offset: int, length: int, *, signed_url: bool
    ) -> tuple[Artifact, Download, AsyncIterator[bytes]]:
        """Returns a file of a result, or all as an archive, from an offset on. Raises JobNotFound, ArtifactNotFound.

        With `signed_url`, a URL replaces the bytes if the storage signs. An archive has no URL: it is made while it is sent.
        """
        artifact = await self._store.get(caller, job_id)
        if name == ARCHIVE:
            size = archive_size(artifact.files)
            tag = hashlib.sha256("".join(file.sha256 for file in artifact.files).encode()).hexdigest()
            source = self._archive(artifact, offset)
        else:
            file = next((file for file in artifact.files if file.name == name), None)
            if file is None:
                raise ArtifactNotFound
            if signed_url and self._storage.signs:
                url = await self._run(self._storage.signed_url, file.path, name)
                return artifact, Download(name, file.size, 0, 0, file.sha256, url), self._pulled(iter(()), 0)
            size, tag = file.size, file.sha256
            source = self._read(file, offset)
        if offset > size or (offset and offset == size):
            raise ValidationFailed([("offset", f"the file has {size} bytes")])
        rest = size - offset if size else 0
        length = min(length, rest) if length and rest else rest
        return artifact, Download(name, size, offset, length, tag), self._pulled(source, length)

    async def _pulled(self, source: Iterator[bytes], length: int) -> AsyncIterator[bytes]:
        """Yields the chunks of a blocking source, up to `length` bytes; all if that is 0."""
        rest = length
        while (chunk := await self._run(next, source, None)) is not None:
            if length and len(chunk) >= rest:
                yield chunk[:rest]
                return
            rest -= len(chunk)
            if chunk:
                yield chunk

    def _read(self, file: StoredFile, offset: int = 0) -> Iterator[bytes]:
        for start in range(offset, file.size, CHUNK_BYTES):
            yield self._storage.read(file.path, start, min(file.size, start + CHUNK_BYTES))

    def _archive(self, artifact: Artifact, offset: int) -> Iterator[bytes]:
        skip = offset
        for chunk in archive(artifact.files, self._read, artifact.completed_at):
            if skip < len(chunk):
                yield chunk[skip:]
            skip = max(0, skip - len(chunk))

    async def _discard(self, writer: Writer, path: str) -> None:
        await self._run(writer.discard)
        with suppress(ServiceError):  # the sweeper finds it a day later
            await self._store.drop_upload(path)

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

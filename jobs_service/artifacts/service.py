"""The RPCs of files: those of owners in JobsService, and those of trainers in WorkerService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.artifacts import wire
from jobs_service.artifacts.files import ArtifactFiles
from jobs_service.artifacts.store import ArtifactStore
from jobs_service.jobs.model import LeaseRef
from rpc.boundary import Call
from rpc.errors import ValidationFailed
from rpc.identity.model import Identity

# Writes a download of a job's artifact to the audit log.
RecordDownload = Callable[[Identity, UUID], Awaitable[None]]


class OwnedFiles:
    """RPCs for the owners of jobs, on the files of results."""

    def __init__(self, store: ArtifactStore, files: ArtifactFiles, record_download: RecordDownload) -> None:
        self._store = store
        self._files = files
        self._record_download = record_download

    async def GetJobArtifact(
        self, request: jobs_pb2.GetJobArtifactRequest, call: Call
    ) -> jobs_pb2.GetJobArtifactResponse:
        artifact = await self._store.get(call.identity, UUID(request.id))
        return jobs_pb2.GetJobArtifactResponse(artifact=wire.artifact(artifact))

    async def DownloadJobArtifact(
        self, request: jobs_pb2.DownloadJobArtifactRequest, call: Call
    ) -> AsyncGenerator[HttpBody, None]:
        artifact, part, chunks = await self._files.download(
            call.identity,
            UUID(request.id),
            request.name,
            request.offset,
            request.length,
            signed_url=request.signed_url,
        )
        # Parts of a file too: otherwise a download without the last byte would not be recorded.
        await self._record_download(call.identity, UUID(request.id))
        yield wire.first_part(artifact, part, request.id)
        async for chunk in chunks:
            yield HttpBody(data=chunk)

    async def DeleteJobArtifact(
        self, request: jobs_pb2.DeleteJobArtifactRequest, call: Call
    ) -> jobs_pb2.DeleteJobArtifactResponse:
        await self._store.delete(call.identity, UUID(request.id))
        return jobs_pb2.DeleteJobArtifactResponse()


class LeasedFiles:
    """RPCs for trainers, on the files of their leased jobs."""

    def __init__(self, files: ArtifactFiles) -> None:
        self._files = files

    async def add_signed_urls(self, lease: workers_pb2.Lease) -> None:
        """Adds a signed URL to each dataset of a lease, where the storage signs."""
        for dataset in (lease.dataset, lease.validation_dataset):
            if dataset.storage_path:
                file_name = dataset.storage_path.rpartition("/")[2]
                url = await self._files.dataset_url(dataset.storage_bucket, dataset.storage_path, file_name)
                if url:
                    dataset.signed_url = url

    async def ReadDataset(
        self, request: workers_pb2.ReadDatasetRequest, call: Call
    ) -> AsyncGenerator[workers_pb2.ReadDatasetResponse, None]:
        lease = LeaseRef(UUID(request.job_id), UUID(request.lease_token))
        size, chunks = await self._files.dataset(call.identity, lease, request.offset, validation=request.validation)
        yield workers_pb2.ReadDatasetResponse(file_size=size)
        async for chunk in chunks:
            yield workers_pb2.ReadDatasetResponse(chunk=chunk)

    async def UploadArtifact(
        self, requests: AsyncIterator[workers_pb2.UploadArtifactRequest], call: Call
    ) -> workers_pb2.UploadArtifactResponse:
        first = await anext(requests, None)
        if first is None or not (first.job_id and first.lease_token and first.name):
            raise ValidationFailed([("name", "the first message has job_id, lease_token and name")])
        lease = LeaseRef(UUID(first.job_id), UUID(first.lease_token))
        file = await self._files.receive(call.identity, lease, first.name, _chunks(first, requests))
        return workers_pb2.UploadArtifactResponse(file=wire.file(file))


async def _chunks(
    first: workers_pb2.UploadArtifactRequest, rest: AsyncIterator[workers_pb2.UploadArtifactRequest]
) -> AsyncIterator[bytes]:
    yield first.chunk
    async for request in rest:
        for name in ("job_id", "lease_token", "name"):
            if request.HasField(name):
                raise ValidationFailed([(name, "belongs in the first message only")])
        yield request.chunk

"""DatasetService: a few lines for each RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

from pipeline.datasets.v1 import datasets_pb2 as pb

from jobs_service.datasets import wire
from jobs_service.datasets.imports.importer import Importer
from jobs_service.datasets.preview import Previews
from jobs_service.datasets.store import DatasetStore
from jobs_service.errors import UploadTimeout
from jobs_service.wire import DEFAULT_LIMIT, page_of, pagination
from rpc.boundary import Call
from rpc.errors import TooManyUploads, ValidationFailed
from rpc.limits import FairLimit


class DatasetService:
    """Imports training data and shows it.

    A server takes `max_uploads` at once, `max_uploads_per_user` of one user. `silence_seconds`: how long an upload may send
    nothing.
    """

    def __init__(
        self,
        store: DatasetStore,
        importer: Importer,
        previews: Previews,
        *,
        max_uploads: int,
        max_uploads_per_user: int,
        silence_seconds: float,
    ) -> None:
        self._store = store
        self._importer = importer
        self._previews = previews
        self._max_per_user = max_uploads_per_user
        self._uploads = FairLimit(max_uploads, per_user=max_uploads_per_user)
        self._silence_seconds = silence_seconds

    async def ImportDataset(
        self, requests: AsyncIterator[pb.ImportDatasetRequest], call: Call
    ) -> pb.ImportDatasetResponse:
        with self._uploads.slot(call.identity.user_id, TooManyUploads(limit=self._max_per_user)):
            first = await _first(requests, self._silence_seconds)
            dataset_id, mapping = uuid4(), wire.mapping(first)
            path = f"datasets/{call.identity.user_id}/{dataset_id}.jsonl"
            chunks = _chunks(first, requests, self._silence_seconds)
            async with (
                self._store.reserve_file(call.identity, path) as remaining_bytes,
                self._importer.read(chunks, path, remaining_bytes=remaining_bytes, mapping=mapping) as file,
            ):
                dataset = await self._store.create(
                    call.identity, dataset_id, first.name, first.description or None, first.file_name or None, file
                )
        return pb.ImportDatasetResponse(dataset=wire.dataset(dataset))

    async def GetDataset(self, request: pb.GetDatasetRequest, call: Call) -> pb.GetDatasetResponse:
        dataset = await self._store.get(call.identity, UUID(request.id))
        return pb.GetDatasetResponse(dataset=wire.dataset(dataset))

    async def PreviewDataset(self, request: pb.PreviewDatasetRequest, call: Call) -> pb.PreviewDatasetResponse:
        dataset = await self._store.get(call.identity, UUID(request.id))
        line = request.line if request.HasField("line") else None
        rows, total = await self._previews.page(
            dataset, row=request.row or 1, line=line, limit=request.limit or DEFAULT_LIMIT
        )
        return pb.PreviewDatasetResponse(rows=map(wire.preview_row, rows), total_rows=total)

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, call: Call) -> pb.DeleteDatasetResponse:
        await self._store.delete(call.identity, UUID(request.id))
        return pb.DeleteDatasetResponse()

    async def ListDatasets(self, request: pb.ListDatasetsRequest, call: Call) -> pb.ListDatasetsResponse:
        status = wire.dataset_status(request)
        page = await self._store.list_all(call.identity, **page_of(request), status=status, search=request.search)
        datasets = [wire.dataset(dataset) for dataset in page.items]
        return pb.ListDatasetsResponse(datasets=datasets, pagination=pagination(request, page))


Requests = AsyncIterator[pb.ImportDatasetRequest]


async def _next(requests: Requests, silence_seconds: float) -> pb.ImportDatasetRequest | None:
    """Returns the next message of an upload, None at its end. Raises UploadTimeout."""
    try:
        async with asyncio.timeout(silence_seconds):
            return await anext(requests, None)
    except TimeoutError:
        raise UploadTimeout(seconds=silence_seconds) from None


async def _first(requests: Requests, silence_seconds: float) -> pb.ImportDatasetRequest:
    first = await _next(requests, silence_seconds)
    if first is None or not first.HasField("name"):
        raise ValidationFailed([("name", "value is required")])
    return first


async def _chunks(first: pb.ImportDatasetRequest, rest: Requests, silence_seconds: float) -> AsyncIterator[bytes]:
    yield first.chunk
    while (request := await _next(rest, silence_seconds)) is not None:
        late = [field.name for field, _ in request.ListFields() if field.name != "chunk"]
        if late:
            raise ValidationFailed([(name, "belongs in the first message only") for name in late])
        yield request.chunk

"""DatasetService: a few lines for each RPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

from pipeline.datasets.v1 import datasets_pb2

from jobs_service.datasets import wire
from jobs_service.datasets.importer import Importer
from jobs_service.datasets.store import DatasetStore
from jobs_service.wire import page_of, pagination
from rpc.boundary import Call
from rpc.errors import ValidationFailed


class DatasetService:
    """Takes in training data and shows what there is."""

    def __init__(self, store: DatasetStore, importer: Importer) -> None:
        self._store = store
        self._importer = importer

    async def ImportDataset(
        self, requests: AsyncIterator[datasets_pb2.ImportDatasetRequest], call: Call
    ) -> datasets_pb2.ImportDatasetResponse:
        first = await _first(requests)
        dataset_id = uuid4()
        path = f"datasets/{call.identity.user_id}/{dataset_id}.jsonl"
        async with (
            self._store.begun(call.identity, path) as room,
            self._importer.read(_chunks(first, requests), path, room=room) as file,
        ):
            dataset = await self._store.create(
                call.identity, dataset_id, first.name, first.description or None, first.file_name or None, file
            )
        return datasets_pb2.ImportDatasetResponse(dataset=wire.dataset(dataset))

    async def GetDataset(self, request: datasets_pb2.GetDatasetRequest, call: Call) -> datasets_pb2.GetDatasetResponse:
        dataset = await self._store.get(call.identity, UUID(request.id))
        return datasets_pb2.GetDatasetResponse(dataset=wire.dataset(dataset))

    async def DeleteDataset(
        self, request: datasets_pb2.DeleteDatasetRequest, call: Call
    ) -> datasets_pb2.DeleteDatasetResponse:
        await self._store.delete(call.identity, UUID(request.id))
        return datasets_pb2.DeleteDatasetResponse()

    async def ListDatasets(
        self, request: datasets_pb2.ListDatasetsRequest, call: Call
    ) -> datasets_pb2.ListDatasetsResponse:
        status = wire.dataset_status(request)
        found = await self._store.list_all(call.identity, **page_of(request), status=status, search=request.search)
        datasets = [wire.dataset(dataset) for dataset in found.items]
        return datasets_pb2.ListDatasetsResponse(datasets=datasets, pagination=pagination(request, found))


async def _first(requests: AsyncIterator[datasets_pb2.ImportDatasetRequest]) -> datasets_pb2.ImportDatasetRequest:
    first = await anext(requests, None)
    if first is None or not first.HasField("name"):
        raise ValidationFailed([("name", "value is required")])
    return first


async def _chunks(
    first: datasets_pb2.ImportDatasetRequest, rest: AsyncIterator[datasets_pb2.ImportDatasetRequest]
) -> AsyncIterator[bytes]:
    yield first.chunk
    async for request in rest:
        for name in ("name", "description", "file_name"):
            if request.HasField(name):
                raise ValidationFailed([(name, "belongs in the first message only")])
        yield request.chunk

"""Client streams that the server ends early."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from pipeline.datasets.v1 import datasets_pb2
from pipeline.datasets.v1.datasets_pb2_grpc import DatasetServiceStub

from jobs_service.errors import DatasetLimit
from rpc.channels import open_channel
from rpc.status import failure_of
from tests.conftest import metadata
from tests.rpc.conftest import boundary
from tests.serving import serving

SERVICE = datasets_pb2.DESCRIPTOR.services_by_name["DatasetService"]
MESSAGES = 40
CHUNK = b"x" * 32_768


class Uploads:
    """Reads `len(chunk)` messages of an upload whose name is that number, then refuses it."""

    async def ImportDataset(self, requests: AsyncIterator[Any], call: Any) -> Any:
        first = await anext(aiter(requests))
        for _ in range(int(first.name)):
            await anext(aiter(requests))
        raise DatasetLimit(limit=1)

    async def _unused(self, request: Any, call: Any) -> Any:
        raise AssertionError("not called here")

    GetDataset = ListDatasets = DeleteDataset = _unused

    def __getattr__(self, name: str) -> Any:
        return self._unused


async def messages(refused_after: int, chunk: bytes = CHUNK) -> AsyncIterator[Any]:
    """An upload."""
    yield datasets_pb2.ImportDatasetRequest(name=str(refused_after), file_name="a.jsonl")
    for _ in range(MESSAGES):
        yield datasets_pb2.ImportDatasetRequest(chunk=chunk)


async def upload(
    address: str, count: int, at_once: int, *, chunk: bytes = CHUNK, caller: Any = None, **options: Any
) -> Counter[str]:
    """Makes uploads that are refused after random numbers of messages; counts the reasons."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    points = random.Random(seed)
    async with open_channel(address, []) as channel:
        stub, reasons = DatasetServiceStub(channel), Counter[str]()

        async def some() -> None:
            for _ in range(count // at_once):
                call = stub.ImportDataset(
                    messages(points.randrange(1, MESSAGES), chunk), metadata=caller or metadata(), **options
                )
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                reasons[failure_of(caught.value).reason] += 1

        await asyncio.gather(*[some() for _ in range(at_once)])
    return reasons


@pytest.mark.slow
async def test_an_upload_that_is_refused_has_its_own_status() -> None:
    """X16: 2,000 uploads are refused at any point, while messages are on their way; each gets the status of its refusal."""
    async with serving({SERVICE: Uploads()}, boundary()) as address:
        assert await upload(address, 2_000, 8) == {"DATASET_LIMIT": 2_000}


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("DATASET_LIMIT", {}),
        ("TOO_LARGE", {"chunk": b"x" * 1_200_000}),
        ("TOKEN_INVALID", {"caller": [("authorization", "Bearer nonsense")]}),
        ("DEADLINE_EXCEEDED", {"timeout": 0.001}),
    ],
)
async def test_every_early_end_of_an_upload_has_its_own_reason(reason: str, options: Any) -> None:
    """X16: a limit, a size, a token and a deadline each end uploads with their own reason, never with INTERNAL."""
    async with serving({SERVICE: Uploads()}, boundary()) as address:
        assert await upload(address, 48, 4, **options) == {reason: 48}


async def test_an_upload_to_a_server_that_stops_can_be_tried_again() -> None:
    """X16: uploads that a stopping server ends are UNAVAILABLE to their caller, and the server does not wait for them."""
    reading = asyncio.Event()

    class Slow(Uploads):
        async def ImportDataset(self, requests: AsyncIterator[Any], call: Any) -> Any:
            async for _ in requests:
                reading.set()
                await asyncio.sleep(0.05)

    async with AsyncExitStack() as opened:
        address = await opened.enter_async_context(serving({SERVICE: Slow()}, boundary()))
        uploading = asyncio.create_task(upload(address, 4, 4))
        await reading.wait()
        await opened.aclose()
        assert await uploading == {"SERVICE_UNAVAILABLE": 4}

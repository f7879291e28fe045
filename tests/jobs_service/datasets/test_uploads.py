"""Limits on concurrent uploads, for each user and in all, and the timeout of silent ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import orjson
import pytest
from pipeline.datasets.v1 import datasets_pb2

from tests.conftest import Stack, metadata
from tests.door import refused
from tests.jobs_service.datasets.test_import import ANN, LINES, import_bytes
from tests.jobs_service.trainers import until

BOB = "bbbbbbbb-0000-4000-8000-000000000002"
LINE = orjson.dumps(LINES["messages"]) + b"\n"


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Three uploads of a user at once, and two seconds of silence."""
    return {"max_uploads_per_user": 3, "max_uploads": 8, "upload_silence_ms": 2_000}


async def upload(stack: Stack, user: str, go_on: asyncio.Event) -> datasets_pb2.Dataset:
    """An upload that stops after its first bytes until `go_on`."""

    async def requests() -> AsyncIterator[datasets_pb2.ImportDatasetRequest]:
        yield datasets_pb2.ImportDatasetRequest(name="slow", chunk=LINE)
        await go_on.wait()
        yield datasets_pb2.ImportDatasetRequest(chunk=LINE)

    return (await stack.datasets.ImportDataset(requests(), metadata=metadata(user))).dataset


async def test_a_user_has_few_uploads_at_once(stack: Stack, admin: asyncpg.Connection) -> None:
    """X03: an upload above the user's limit is refused; others are served, and the slot becomes free again."""
    go_on = asyncio.Event()
    value = [asyncio.create_task(upload(stack, ANN, go_on)) for _ in range(3)]

    async def begun() -> bool:
        return await admin.fetchval("select count(*) from unclaimed_files") == len(value)

    await until(begun)
    error = await refused(import_bytes(stack, LINE))
    assert (error.code, error.reason, error.metadata["limit"]) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_UPLOADS",
        "3",
    )
    go_on.set()
    assert (await upload(stack, BOB, go_on)).total_rows == 2
    assert [dataset.total_rows for dataset in await asyncio.gather(*value)] == [2, 2, 2]
    assert (await import_bytes(stack, LINE)).total_rows == 1


async def test_a_silent_upload_ends(stack: Stack) -> None:
    """A silent upload is ended, and its slot is free again."""
    never = asyncio.Event()
    error = await asyncio.gather(*(refused(upload(stack, ANN, never)) for _ in range(3)))
    assert {each.reason for each in error} == {"REQUEST_TIMEOUT"}
    assert (await import_bytes(stack, LINE)).total_rows == 1

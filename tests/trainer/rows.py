"""Datasets with a file in the storage, for tests of trainers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import orjson
from pipeline.datasets.v1 import datasets_pb2

from tests.conftest import Stack, metadata
from tests.jobs_service.jobs.test_create_job import ANN

CHUNK_BYTES = 512 * 1024


async def import_rows(stack: Stack, rows: Iterable[Any], user: str = ANN) -> datasets_pb2.Dataset:
    """Imports rows as JSON lines, and returns the dataset, which must be ready."""
    data = b"".join(orjson.dumps(row) + b"\n" for row in rows)

    async def requests() -> AsyncIterator[datasets_pb2.ImportDatasetRequest]:
        yield datasets_pb2.ImportDatasetRequest(name="Rows")
        for start in range(0, len(data), CHUNK_BYTES):
            yield datasets_pb2.ImportDatasetRequest(chunk=data[start : start + CHUNK_BYTES])

    dataset = (await stack.datasets.ImportDataset(requests(), metadata=metadata(user))).dataset
    assert dataset.training_ready, dataset.validation_errors
    return dataset

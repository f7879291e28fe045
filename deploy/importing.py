"""Imports a file by DatasetService.ImportDataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
from pipeline.datasets.v1 import datasets_pb2
from pipeline.datasets.v1.datasets_pb2_grpc import DatasetServiceStub

from deploy.processes import SetupError

CHUNK_BYTES = 256 * 1024
TIMEOUT_SECONDS = 1800.0


async def import_file(
    address: str, token: str, file: Path, *, name: str, description: str | None
) -> datasets_pb2.Dataset:
    """Imports a JSONL file as a dataset of the token's user. Raises SetupError."""

    def requests() -> Iterator[datasets_pb2.ImportDatasetRequest]:
        yield datasets_pb2.ImportDatasetRequest(name=name, description=description, file_name=file.name)
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                yield datasets_pb2.ImportDatasetRequest(chunk=chunk)

    try:
        async with grpc.aio.insecure_channel(address) as channel:
            answer = await DatasetServiceStub(channel).ImportDataset(
                requests(), metadata=[("authorization", f"Bearer {token}")], timeout=TIMEOUT_SECONDS
            )
            return answer.dataset
    except grpc.aio.AioRpcError as error:
        raise SetupError(f"the Jobs service at {address} says {error.code().name}: {error.details()}") from error
    except OSError as error:
        raise SetupError(f"{file}: {error.strerror}") from error

"""Imports a file with DatasetService.ImportDataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from pipeline.datasets.v1 import datasets_pb2
from pipeline.datasets.v1.datasets_pb2_grpc import DatasetServiceStub

from deploy.local.processes import SetupError
from rpc.channels import EarlyStatus
from rpc.status import failure_of

CHUNK_BYTES = 256 * 1024
TIMEOUT_SECONDS = 1800.0


async def import_file(
    address: str, token: str, file: Path, *, name: str, description: str | None = None, mapping: Sequence[str] = ()
) -> datasets_pb2.Dataset:
    """Imports a file as a dataset of the token's user; `mapping` has entries `column:role`. Raises SetupError."""

    def requests() -> Iterator[datasets_pb2.ImportDatasetRequest]:
        yield datasets_pb2.ImportDatasetRequest(
            name=name, description=description, file_name=file.name, mapping=mapping
        )
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                yield datasets_pb2.ImportDatasetRequest(chunk=chunk)

    try:
        async with grpc.aio.insecure_channel(address, interceptors=[EarlyStatus()]) as channel:
            response = await DatasetServiceStub(channel).ImportDataset(
                requests(), metadata=[("authorization", f"Bearer {token}")], timeout=TIMEOUT_SECONDS
            )
            return response.dataset
    except grpc.aio.AioRpcError as error:
        violations = "".join(f"; {field} {text}" for field, text in failure_of(error).violations)
        raise SetupError(
            f"the Jobs service at {address} says {error.code().name}: {error.details()}{violations}"
        ) from error
    except OSError as error:
        raise SetupError(f"{file}: {error.strerror}") from error

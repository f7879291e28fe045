"""Downloads of datasets and uploads of results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.common.v1 import files_pb2
from pipeline.workers.v1 import workers_pb2

from trainer.client.connection import Connection
from trainer.client.errors import TrainerError

CHUNK_BYTES = 512 * 1024
# Deadline of one transfer, as in the contract, seconds.
TRANSFER_SECONDS = 1800.0


def download_dataset(connection: Connection, lease: workers_pb2.Lease, file: Path, *, validation: bool) -> Path:
    """Downloads the dataset, or the validation dataset, from the end of `file` on. Raises grpc.RpcError, TrainerError."""
    offset = file.stat().st_size if file.exists() else 0
    request = workers_pb2.ReadDatasetRequest(
        job_id=lease.job_id, lease_token=lease.lease_token, offset=offset, validation=validation
    )
    file_size = 0
    with file.open("ab") as target:
        for response in connection.call("ReadDataset", request, TRANSFER_SECONDS):
            file_size = file_size or response.file_size
            target.write(response.chunk)
    if file.stat().st_size != file_size:
        raise TrainerError(f"the dataset has {file_size} bytes, and {file.stat().st_size} arrived")
    return file


def upload_file(connection: Connection, lease: workers_pb2.Lease, file: Path) -> files_pb2.StoredFile:
    """Uploads one file of the result, and checks its size and SHA-256. Raises grpc.RpcError, TrainerError."""
    digest = hashlib.sha256()

    def requests() -> Iterator[Any]:
        with file.open("rb") as source:
            header: dict[str, str] = {"job_id": lease.job_id, "lease_token": lease.lease_token, "name": file.name}
            chunk = source.read(CHUNK_BYTES)
            while header or chunk:
                digest.update(chunk)
                yield workers_pb2.UploadArtifactRequest(**header, chunk=chunk)
                header, chunk = {}, source.read(CHUNK_BYTES)

    uploaded = connection.call("UploadArtifact", requests(), TRANSFER_SECONDS).file
    if (uploaded.size, uploaded.sha256) != (file.stat().st_size, digest.hexdigest()):
        raise TrainerError(f"{file.name} changed while it was uploaded")
    return files_pb2.StoredFile(name=uploaded.name, size=uploaded.size, sha256=uploaded.sha256)

"""Files of results: from a trainer's upload to the owner's download."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pipeline.common.v1 import files_pb2
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.artifacts.store import ArtifactStore
from rpc.database.pool import Database
from tests.conftest import NewDataset, Stack, TestDatabase, metadata
from tests.door import refused
from tests.jobs_service.jobs.test_create_job import ANN, BOB
from tests.jobs_service.trainers import OTHER, TRAINER, complete, get, lapse, lease, queue, report, worker
from tests.trainer.rows import import_rows

FILES = {"adapter_model.safetensors": b"weights" * 200_000, "adapter_config.json": b"{}", "empty.txt": b""}


async def upload(
    stack: Stack, leased: workers_pb2.Lease, name: str, data: bytes, who: str = TRAINER, **fields: Any
) -> files_pb2.StoredFile:
    """Uploads a file in pieces."""

    async def requests() -> AsyncIterator[workers_pb2.UploadArtifactRequest]:
        first = {"job_id": leased.job_id, "lease_token": leased.lease_token, "name": name, **fields}
        yield workers_pb2.UploadArtifactRequest(**first)
        for start in range(0, len(data), 300_000):
            yield workers_pb2.UploadArtifactRequest(chunk=data[start : start + 300_000])

    return (await stack.workers.UploadArtifact(requests(), metadata=worker(who))).file


async def download(stack: Stack, job_id: str, name: str, user: str = ANN, **fields: Any) -> tuple[Any, bytes]:
    """Returns the first message of a download, and all its bytes."""
    request = jobs_pb2.DownloadJobArtifactRequest(id=job_id, name=name, **fields)
    messages = [message async for message in stack.jobs.DownloadJobArtifact(request, metadata=metadata(user))]
    part = files_pb2.Download()
    assert messages[0].extensions[0].Unpack(part)
    return part, b"".join(message.data for message in messages)


async def artifact(stack: Stack, job_id: str, user: str = ANN) -> jobs_pb2.JobArtifact:
    """The result of a job."""
    request = jobs_pb2.GetJobArtifactRequest(id=job_id)
    return (await stack.jobs.GetJobArtifact(request, metadata=metadata(user))).artifact


async def completed(stack: Stack, new_dataset: NewDataset) -> jobs_pb2.Job:
    """A job with FILES as its result."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    await complete(stack, leased, files=[await upload(stack, leased, name, data) for name, data in FILES.items()])
    return job


async def test_an_owner_downloads_what_a_trainer_uploaded(stack: Stack, new_dataset: NewDataset) -> None:
    """Files are downloaded unchanged: single, in part, and as an archive whose size is known beforehand."""
    job = await completed(stack, new_dataset)
    result = await artifact(stack, job.id)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert {file.name: file.sha256 for file in result.files} == digests
    assert result.size == (await get(stack, job.id)).artifact_size == sum(map(len, FILES.values()))
    assert (result.base_model, result.base_model_source) == ("mistral-7b", "mistralai/Mistral-7B-v0.3")
    assert result.step == job.total_steps
    for name, data in FILES.items():
        part, received = await download(stack, job.id, name)
        assert (received, part.size, part.etag) == (data, len(data), digests[name])
    weights = FILES["adapter_model.safetensors"]
    part, received = await download(stack, job.id, "adapter_model.safetensors", offset=700_001, length=600_000)
    assert received == weights[700_001:1_300_001]
    assert (part.offset, part.length, part.size) == (700_001, 600_000, len(weights))
    part, archive = await download(stack, job.id, "adapter.zip")
    assert part.size == len(archive)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == FILES
    _, rest = await download(stack, job.id, "adapter.zip", offset=1_000_000)
    assert rest == archive[1_000_000:]


@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_results_are_private(stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection) -> None:
    """Another user's job and one without files are NOT_FOUND; deleting a result removes its files from the storage."""
    job = await completed(stack, new_dataset)
    assert (await refused(artifact(stack, job.id, BOB))).reason == "JOB_NOT_FOUND"
    assert (await refused(download(stack, job.id, "adapter_config.json", BOB))).reason == "JOB_NOT_FOUND"
    assert (await refused(download(stack, job.id, "nothing.bin"))).reason == "ARTIFACT_NOT_FOUND"
    beyond = await refused(download(stack, job.id, "adapter_config.json", offset=3))
    assert list(beyond.violations) == ["offset"]
    waiting = await queue(stack, new_dataset)
    assert (await refused(artifact(stack, waiting.id))).reason == "ARTIFACT_NOT_FOUND"
    request = jobs_pb2.DeleteJobArtifactRequest(id=job.id)
    other = await refused(stack.jobs.DeleteJobArtifact(request, metadata=metadata(BOB)))
    assert other.reason == "JOB_NOT_FOUND"
    await stack.jobs.DeleteJobArtifact(request, metadata=metadata(ANN))
    assert (await refused(artifact(stack, job.id))).reason == "ARTIFACT_NOT_FOUND"
    assert not (await get(stack, job.id)).HasField("artifact_size")
    assert await admin.fetchval("select count(*) from unclaimed_files where since = '-infinity'") == len(FILES)
    again = await refused(stack.jobs.DeleteJobArtifact(request, metadata=metadata(ANN)))
    assert again.reason == "ARTIFACT_NOT_FOUND"


@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_an_expired_lease_cannot_use_files(
    stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """A trainer that lost its lease cannot read, upload, complete or overwrite, and its files are not in the result."""
    job = await queue(stack, new_dataset)
    (stale,) = await lease(stack)
    old = await upload(stack, stale, "adapter_config.json", b"old")
    await lapse(admin, job.id)

    async def again() -> list[workers_pb2.Lease]:
        return await lease(stack, OTHER, wait_ms=5_000)

    (value,) = await again()
    for call in (
        upload(stack, stale, "adapter_config.json", b"new"),
        complete(stack, stale, files=[old]),
        read_dataset(stack, stale),
    ):
        assert (await refused(call)).reason == "LEASE_LOST"
    assert (await refused(upload(stack, value, "x.bin", b"x", who=TRAINER))).reason == "LEASE_LOST"
    await report(stack, value, OTHER)
    new = await upload(stack, value, "adapter_config.json", b"mine", who=OTHER)
    request = workers_pb2.CompleteJobRequest(job_id=value.job_id, lease_token=value.lease_token, files=[new])
    await stack.workers.CompleteJob(request, metadata=worker(OTHER))
    assert (await download(stack, job.id, "adapter_config.json"))[1] == b"mine"
    kept = {path.read_bytes() for path in (tmp_path / "storage" / "artifacts").rglob("*") if path.is_file()}
    unclaimed = {row["path"] for row in await admin.fetch("select path from unclaimed_files")}
    assert len(unclaimed) >= 1
    assert b"mine" in kept


@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_a_job_completes_only_with_what_arrived(stack: Stack, new_dataset: NewDataset) -> None:
    """CompleteJob with missing or different files is refused and the lease continues; with the right files it succeeds."""
    await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    file = await upload(stack, leased, "adapter_config.json", b"{}")
    for wrong in (
        files_pb2.StoredFile(name="missing.bin", size=2, sha256=file.sha256),
        files_pb2.StoredFile(name=file.name, size=3, sha256=file.sha256),
        files_pb2.StoredFile(name=file.name, size=2, sha256="0" * 64),
    ):
        refusal = await refused(complete(stack, leased, files=[file, wrong] if wrong.name != file.name else [wrong]))
        assert (refusal.reason, refusal.metadata["files"]) == ("ARTIFACT_MISMATCH", wrong.name)
    again = await upload(stack, leased, "adapter_config.json", b"{ }")
    assert (await refused(complete(stack, leased, files=[file]))).reason == "ARTIFACT_MISMATCH"
    await complete(stack, leased, files=[again])
    await complete(stack, leased, files=[again])
    assert (await refused(complete(stack, leased, files=[]))).reason == "JOB_FINAL"


@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
@pytest.mark.parametrize("jobs_overrides", [{"max_artifact_bytes": 1_000}])
async def test_uploads_have_limits(stack: Stack, new_dataset: NewDataset, tmp_path: Path) -> None:
    """Too large results, names with folders, and messages out of order are refused, and nothing is stored."""
    await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    assert (await refused(upload(stack, leased, "big.bin", b"x" * 1_001))).reason == "ARTIFACT_TOO_LARGE"
    await upload(stack, leased, "most.bin", b"x" * 1_000)
    await upload(stack, leased, "most.bin", b"y" * 1_000)
    assert (await refused(upload(stack, leased, "more.bin", b"x"))).reason == "ARTIFACT_TOO_LARGE"
    for name in ("../x", "a/b", "", ".hidden", "x" * 101):
        assert (await refused(upload(stack, leased, name, b"x"))).reason == "VALIDATION_FAILED", name

    async def named_twice() -> AsyncIterator[workers_pb2.UploadArtifactRequest]:
        for _ in range(2):
            yield workers_pb2.UploadArtifactRequest(
                job_id=leased.job_id, lease_token=leased.lease_token, name="most.bin", chunk=b"z"
            )

    late = await refused(stack.workers.UploadArtifact(named_twice(), metadata=worker()))
    assert list(late.violations) == ["job_id"]
    files = [path.read_bytes() for path in (tmp_path / "storage" / "artifacts").rglob("*") if path.is_file()]
    assert b"y" * 1_000 in files
    assert not any(b"z" in data for data in files)


async def read_dataset(
    stack: Stack, leased: workers_pb2.Lease, offset: int = 0, *, validation: bool = False
) -> tuple[int, bytes]:
    """Size of a leased job's dataset, and its bytes from an offset on."""
    request = workers_pb2.ReadDatasetRequest(
        job_id=leased.job_id, lease_token=leased.lease_token, offset=offset, validation=validation
    )
    messages = [message async for message in stack.workers.ReadDataset(request, metadata=worker())]
    return messages[0].file_size, b"".join(message.chunk for message in messages)


async def test_a_trainer_reads_its_jobs_dataset(stack: Stack, new_dataset: NewDataset) -> None:
    """The stored file can be read from any byte on; a dataset without a file here is DATASET_FILE_NOT_FOUND."""
    dataset = await import_rows(stack, [{"prompt": "Hi " * 400, "completion": "Hello"}] * 1_000)

    async def imported(user: str) -> str:
        return dataset.id

    await queue(stack, imported)
    (leased,) = await lease(stack)
    size, data = await read_dataset(stack, leased)
    assert size == len(data) == leased.dataset.file_size > 1_000_000
    assert len(data.splitlines()) == 1_000
    assert await read_dataset(stack, leased, 600_001) == (size, data[600_001:])
    assert await read_dataset(stack, leased, size) == (size, b"")
    assert list((await refused(read_dataset(stack, leased, size + 1))).violations) == ["offset"]
    await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    assert (await refused(read_dataset(stack, leased))).reason in ("DATASET_FILE_NOT_FOUND", "STORAGE_UNAVAILABLE")


async def test_a_trainer_reads_the_validation_dataset(stack: Stack) -> None:
    """A lease contains it, its trainer can read it, and it cannot be deleted before the job is final."""
    datasets = [await import_rows(stack, [{"prompt": "Hi", "completion": text}] * 30) for text in ("Hello", "Bye")]

    async def imported(user: str) -> str:
        return datasets[0].id

    delete = datasets_pb2.DeleteDatasetRequest(id=datasets[1].id)
    job = await queue(stack, imported, base_model="llama-3.1-8b", training={"validation_dataset_id": datasets[1].id})
    assert job.training.validation_dataset_id == datasets[1].id
    (leased,) = await lease(stack)
    assert leased.plan.training.validation_dataset_id == leased.validation_dataset.id == datasets[1].id
    assert leased.validation_dataset.total_training_pairs == 30
    size, data = await read_dataset(stack, leased, validation=True)
    assert size == len(data) == leased.validation_dataset.file_size
    assert b"Bye" in data
    assert b"Hello" in (await read_dataset(stack, leased))[1]
    assert (await refused(stack.datasets.DeleteDataset(delete, metadata=metadata(ANN)))).reason == "DATASET_IN_USE"
    await report(stack, leased)
    await complete(stack, leased, artifact_uri="s3://a")
    await stack.datasets.DeleteDataset(delete, metadata=metadata(ANN))
    await queue(stack, imported)
    (leased,) = await lease(stack)
    assert not leased.HasField("validation_dataset")
    assert (await refused(read_dataset(stack, leased, validation=True))).reason == "DATASET_FILE_NOT_FOUND"


@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_old_results_are_deleted(
    stack: Stack, new_dataset: NewDataset, database: TestDatabase, admin: asyncpg.Connection
) -> None:
    """Files of results older than the retention, and of jobs that ended without a result, are left to the sweeper."""
    job = await completed(stack, new_dataset)
    await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await upload(stack, leased, "half.bin", b"half")
    cancel = jobs_pb2.CancelJobRequest(id=leased.job_id)
    await stack.jobs.CancelJob(cancel, metadata=metadata(ANN))
    async with Database.open(database.url, size=1) as pool:
        store = ArtifactStore(pool, max_bytes=1)
        await store.sweep(None)
        assert len((await artifact(stack, job.id)).files) == len(FILES)
        assert await admin.fetchval("select count(*) from job_artifact_files where name = 'half.bin'") == 0
        await store.sweep(timedelta(seconds=0))
    assert (await refused(artifact(stack, job.id))).reason == "ARTIFACT_NOT_FOUND"
    assert not (await get(stack, job.id)).HasField("artifact_size")

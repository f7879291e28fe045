"""Files of datasets: quotas, deletion, and removal of unclaimed files."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import orjson
import pytest
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import Stack, metadata
from tests.door import refusal, refused
from tests.jobs_service.datasets.test_import import ANN, LINES, STORED, files_in, import_bytes
from tests.jobs_service.jobs.test_create_job import new_request
from tests.jobs_service.trainers import until

BOB = "bbbbbbbb-0000-4000-8000-000000000002"
LINE = orjson.dumps(LINES["messages"]) + b"\n"
STORED_LINE = orjson.dumps({"row": 1, "line": 1, "pairs": 1, "tokens": 3, "messages": STORED}) + b"\n"


@pytest.fixture(autouse=True)
def sweep_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps files all the time."""
    monkeypatch.setattr("jobs_service.datasets.sweeper.SWEEP_SECONDS", 0.02)


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Limits of three files or five datasets."""
    return {"max_storage_bytes_per_user": 3 * len(STORED_LINE) + 1, "max_datasets_per_user": 5}


async def delete(stack: Stack, dataset_id: str, user: str = ANN) -> None:
    """Deletes a dataset."""
    await stack.datasets.DeleteDataset(datasets_pb2.DeleteDatasetRequest(id=dataset_id), metadata=metadata(user))


async def test_a_deleted_dataset_loses_its_file(stack: Stack, tmp_path: Path) -> None:
    """A deleted dataset is NOT_FOUND everywhere, and its file is removed soon after."""
    kept, gone = [await import_bytes(stack, LINE) for _ in range(2)]
    errors = [await refused(delete(stack, each, BOB)) for each in (gone.id, str(uuid.uuid4()))]
    assert errors[0].code is grpc.StatusCode.NOT_FOUND
    await delete(stack, gone.id)
    get = datasets_pb2.GetDatasetRequest(id=gone.id)
    for call in (
        stack.datasets.GetDataset(get, metadata=metadata(ANN)),
        stack.jobs.CreateJob(new_request(gone.id), metadata=metadata(ANN)),
        delete(stack, gone.id),
    ):
        assert (await refused(call)).reason == "DATASET_NOT_FOUND"
    listed = await stack.datasets.ListDatasets(datasets_pb2.ListDatasetsRequest(), metadata=metadata(ANN))
    assert [each.id for each in listed.datasets] == [kept.id]

    async def removed() -> bool:
        return files_in(tmp_path / "storage") == [Path(kept.storage_path).name]

    await until(removed)


async def test_a_dataset_in_use_stays(stack: Stack, tmp_path: Path) -> None:
    """A dataset of an open job cannot be deleted; afterwards it can, and the job keeps its name."""
    dataset = await import_bytes(stack, LINE)
    job = (await stack.jobs.CreateJob(new_request(dataset.id), metadata=metadata(ANN))).job
    error = await refused(delete(stack, dataset.id))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DATASET_IN_USE")
    assert error.metadata["jobs"] == "1"
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))
    await delete(stack, dataset.id)
    result = (await stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id), metadata=metadata(ANN))).job
    assert result.dataset.name == dataset.name


async def test_no_job_begins_on_a_deleted_dataset(stack: Stack, admin: asyncpg.Connection) -> None:
    """Of a concurrent deletion and CreateJob, exactly one succeeds, ten times."""
    for _ in range(10):
        dataset = await import_bytes(stack, LINE)
        calls = [stack.jobs.CreateJob(new_request(dataset.id), metadata=metadata(ANN)), delete(stack, dataset.id)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(each, grpc.aio.AioRpcError) for each in outcomes) == 1, outcomes
        await admin.execute("delete from job_events; delete from lora_training_jobs; delete from lora_datasets")


async def test_a_user_has_a_storage_quota(stack: Stack, tmp_path: Path) -> None:
    """A file above the quota is refused and not stored, also with concurrent uploads; deleting makes room."""
    (first, *_), refusals = await import_many(stack, 5)
    assert [(each.code, each.reason) for each in refusals] == [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_QUOTA")
    ] * 2
    assert {each.metadata["remaining_bytes"] for each in refusals} == {"1"}
    await until(lambda: counted(tmp_path, 3))
    error = await refused(import_bytes(stack, LINE))
    assert (error.reason, error.metadata["remaining_bytes"]) == ("STORAGE_QUOTA", "1")
    assert (await import_bytes(stack, b"{")).status == datasets_pb2.DATASET_STATUS_ERROR
    await delete(stack, first.id)
    await import_bytes(stack, LINE)


async def test_a_user_has_a_limit_of_datasets(stack: Stack) -> None:
    """A dataset above the limit is refused, also with concurrent uploads and bad files; deleting makes room."""
    datasets, refusals = await import_many(stack, 8, b"{")
    assert len(datasets) == 5
    assert {(each.code.name, each.reason, each.metadata["limit"]) for each in refusals} == {
        ("RESOURCE_EXHAUSTED", "DATASET_LIMIT", "5")
    }
    assert (await refused(import_bytes(stack, b"{"))).reason == "DATASET_LIMIT"
    await delete(stack, datasets[0].id)
    await import_bytes(stack, LINE)


async def import_many(stack: Stack, count: int, content: bytes = LINE) -> tuple[list[Any], list[Any]]:
    """Imports concurrently. Returns datasets and errors."""
    outcomes = await asyncio.gather(*[outcome(stack, content) for _ in range(count)])
    datasets = [each for each in outcomes if isinstance(each, datasets_pb2.Dataset)]
    return datasets, [each for each in outcomes if not isinstance(each, datasets_pb2.Dataset)]


async def outcome(stack: Stack, content: bytes) -> Any:
    """Returns a dataset, or the error."""
    try:
        return await import_bytes(stack, content)
    except grpc.aio.AioRpcError as error:
        return refusal(error)


async def counted(folder: Path, count: int) -> bool:
    """Whether so many files are kept."""
    return len(files_in(folder / "storage")) == count


async def test_unclaimed_files_are_removed_after_a_day(stack: Stack, admin: asyncpg.Connection, tmp_path: Path) -> None:
    """A file, complete or not, that no dataset claims is removed after a day, and not sooner."""
    dataset = await import_bytes(stack, LINE)
    folder = (tmp_path / "storage" / dataset.storage_path).parent
    old = "insert into unclaimed_files (path, user_id, since) values ($1, $2, now() - $3 * interval '1 hour')"
    for file, name, age in (("a", "a", 25), ("b.part", "b", 25), ("c", "c", 23)):
        (folder / file).write_bytes(LINE)
        await admin.execute(old, f"datasets/{ANN}/{name}", ANN, age)
    left = {Path(dataset.storage_path).name, "c"}

    async def removed() -> bool:
        return set(files_in(folder)) == left

    await until(removed)

    async def forgotten() -> bool:
        return [row["path"] for row in await admin.fetch("select path from unclaimed_files")] == [f"datasets/{ANN}/c"]

    await until(forgotten)


async def test_files_of_failed_imports_are_removed_soon(stack: Stack, admin: asyncpg.Connection) -> None:
    """Files of bad and interrupted imports are removed by the next sweep."""

    async def given_up() -> AsyncIterator[datasets_pb2.ImportDatasetRequest]:
        yield datasets_pb2.ImportDatasetRequest(name="Questions", chunk=LINE)
        yield datasets_pb2.ImportDatasetRequest(name="Again", chunk=LINE)

    assert (await import_bytes(stack, b"{")).status == datasets_pb2.DATASET_STATUS_ERROR
    assert (
        await refused(stack.datasets.ImportDataset(given_up(), metadata=metadata(ANN)))
    ).reason == "VALIDATION_FAILED"

    async def forgotten() -> bool:
        return await admin.fetchval("select count(*) from unclaimed_files") == 0

    await until(forgotten)


async def test_a_file_that_cannot_be_removed_blocks_no_other(
    stack: Stack, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """A file that cannot be removed is retried a day later and does not block others."""
    path, other = f"datasets/{ANN}/folder", f"datasets/{ANN}/file"
    (tmp_path / "storage" / path).mkdir(parents=True)
    (tmp_path / "storage" / other).write_bytes(LINE)
    for each in (path, other):
        await admin.execute("insert into unclaimed_files values ($1, $2, '-infinity')", each, ANN)

    async def left() -> bool:
        return [row["path"] for row in await admin.fetch("select path from unclaimed_files")] == [path]

    await until(left)
    assert not (tmp_path / "storage" / other).exists()

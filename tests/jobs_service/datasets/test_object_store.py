"""Datasets and results in a bucket: a real server of S3's protocol, from the door to its objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import fsspec
import grpc
import pytest
from moto.server import ThreadedMotoServer
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import Stack, metadata
from tests.jobs_service.artifacts.test_artifacts import FILES, download, read_dataset, upload
from tests.jobs_service.jobs.test_create_job import ANN, new_request
from tests.jobs_service.trainers import complete, lease, report, until
from tests.trainer.rows import import_rows

ROWS = [{"prompt": f"question {number}", "completion": "answer " * 40} for number in range(3_000)]
BUCKET = "training"


@pytest.fixture
def server() -> Iterator[ThreadedMotoServer]:
    """A server of S3's protocol."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket, which the environment names as an operator's would."""
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    made = boto3.resource("s3").Bucket(BUCKET)
    made.create()
    yield made
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def jobs_overrides(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The storage is in the bucket, and swept often."""
    monkeypatch.setattr("jobs_service.datasets.sweeper.SWEEP_SECONDS", 0.02)
    return {"storage_url": f"s3://{BUCKET}/pipeline"}


def keys(bucket: Any) -> dict[str, int]:
    """The objects of the bucket and their sizes."""
    return {each.key: each.size for each in bucket.objects.all()}


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_a_dataset_and_a_result_live_in_a_bucket(stack: Stack, bucket: Any) -> None:
    """What is uploaded is one object each, is read back byte for byte, and is gone once it is deleted."""
    dataset = await import_rows(stack, ROWS)
    ((key, size),) = keys(bucket).items()
    assert key == f"pipeline/datasets/{ANN}/{dataset.id}.jsonl"
    listed = await stack.datasets.ListDatasets(datasets_pb2.ListDatasetsRequest(), metadata=metadata(ANN))
    assert [each.id for each in listed.datasets] == [dataset.id]
    request = datasets_pb2.PreviewDatasetRequest(id=dataset.id, row=2_999, limit=2)
    preview = await stack.datasets.PreviewDataset(request, metadata=metadata(ANN))
    assert [row.line for row in preview.rows] == [2_999, 3_000]

    job = (await stack.jobs.CreateJob(new_request(dataset.id), metadata=metadata(ANN))).job
    (leased,) = await lease(stack)
    content = await read_dataset(stack, leased)
    assert content == (size, bucket.Object(key).get()["Body"].read())
    await report(stack, leased)
    await complete(stack, leased, files=[await upload(stack, leased, name, data) for name, data in FILES.items()])
    assert sorted(keys(bucket).values()) == sorted([size, *map(len, FILES.values())])
    for name, data in FILES.items():
        assert (await download(stack, job.id, name))[1] == data
    part, archive = await download(stack, job.id, "adapter.zip")
    assert part.size == len(archive)

    await stack.jobs.DeleteJobArtifact(jobs_pb2.DeleteJobArtifactRequest(id=job.id), metadata=metadata(ANN))
    await stack.datasets.DeleteDataset(datasets_pb2.DeleteDatasetRequest(id=dataset.id), metadata=metadata(ANN))

    async def is_empty() -> bool:
        return not keys(bucket)

    await until(is_empty)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_a_store_that_is_away_refuses_uploads(stack: Stack, server: ThreadedMotoServer) -> None:
    """An upload while the store does not answer is refused as such, and leaves no dataset."""
    server.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await import_rows(stack, ROWS)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    listed = await stack.datasets.ListDatasets(datasets_pb2.ListDatasetsRequest(), metadata=metadata(ANN))
    assert not listed.datasets

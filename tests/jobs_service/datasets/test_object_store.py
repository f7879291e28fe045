"""Datasets and results in a bucket of a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import boto3
import fsspec
import grpc
import pytest
from moto.server import ThreadedMotoServer
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.datasets.storage import Storage
from jobs_service.errors import StorageUnavailable
from tests.clients import http_client
from tests.conftest import Stack, metadata
from tests.door import refused
from tests.gateway.conftest import bearer, open_gateway
from tests.jobs_service.artifacts.test_artifacts import FILES, download, read_dataset, upload
from tests.jobs_service.jobs.test_create_job import ANN, BOB, new_request
from tests.jobs_service.trainers import complete, lease, report, until
from tests.trainer.rows import import_rows

ROWS = [{"prompt": f"question {number}", "completion": "answer " * 40} for number in range(3_000)]
BUCKET = "training"
WEIGHTS = "adapter_model.safetensors"


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
def signed_url_seconds() -> int:
    """How long signed URLs are valid; 0: none are signed."""
    return 90


@pytest.fixture
def jobs_overrides(bucket: Any, monkeypatch: pytest.MonkeyPatch, signed_url_seconds: int) -> dict[str, Any]:
    """The storage is in the bucket, and swept often."""
    monkeypatch.setattr("jobs_service.datasets.sweeper.SWEEP_SECONDS", 0.02)
    return {"storage_url": f"s3://{BUCKET}/pipeline", "signed_url_seconds": signed_url_seconds}


def keys(bucket: Any) -> dict[str, int]:
    """The objects of the bucket and their sizes."""
    return {each.key: each.size for each in bucket.objects.all()}


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_a_dataset_and_a_result_live_in_a_bucket(stack: Stack, bucket: Any) -> None:
    """Each upload is one object, which is read back unchanged and removed after deletion."""
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


async def completed(stack: Stack) -> tuple[jobs_pb2.Job, workers_pb2.Lease]:
    """A job with FILES as its result, and the lease that it had."""
    job = (await stack.jobs.CreateJob(new_request((await import_rows(stack, ROWS)).id), metadata=metadata(ANN))).job
    (leased,) = await lease(stack)
    await report(stack, leased)
    await complete(stack, leased, files=[await upload(stack, leased, name, data) for name, data in FILES.items()])
    return job, leased


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_files_are_read_by_signed_urls(stack: Stack, bucket: Any) -> None:
    """A lease has a signed URL of its dataset; a download returns one to the owner, valid as long as configured."""
    job, leased = await completed(stack)
    async with http_client() as anybody:
        stored = bucket.Object(f"pipeline/{leased.dataset.storage_path}")
        assert (await anybody.get(leased.dataset.signed_url)).content == stored.get()["Body"].read()
        part, streamed = await download(stack, job.id, WEIGHTS, signed_url=True)
        assert (streamed, part.size) == (b"", len(FILES[WEIGHTS]))
        query = parse_qs(urlsplit(part.signed_url).query)
        assert (query["X-Amz-Expires"], query["X-Amz-Algorithm"]) == (["90"], ["AWS4-HMAC-SHA256"])
        whole = await anybody.get(part.signed_url)
        assert whole.content == FILES[WEIGHTS]
        assert whole.headers["content-disposition"] == f'attachment; filename="{WEIGHTS}"'
    assert (await refused(download(stack, job.id, WEIGHTS, BOB, signed_url=True))).reason == "JOB_NOT_FOUND"
    assert (await refused(download(stack, job.id, "nothing.bin", signed_url=True))).reason == "ARTIFACT_NOT_FOUND"
    # An archive is made while it is sent, and callers over gRPC get bytes unless they ask for a URL.
    for name, fields in (("adapter.zip", {"signed_url": True}), (WEIGHTS, {})):
        part, streamed = await download(stack, job.id, name, **fields)
        assert (part.signed_url, len(streamed)) == ("", part.size)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_downloads_redirect_to_signed_urls(stack: Stack, admin: asyncpg.Connection) -> None:
    """Over HTTP a download redirects its owner, with a range as well, and is in the audit log; the client may decline."""
    job, _ = await completed(stack)
    path, data = f"/api/jobs/{job.id}/artifact/{WEIGHTS}", FILES[WEIGHTS]
    async with open_gateway(stack) as url, http_client(url, headers=bearer(ANN)) as ann:
        redirect = await ann.get(path)
        assert (redirect.status_code, redirect.headers["cache-control"]) == (307, "no-store")
        logged = "select count(*) from audit_events where action = 'artifact_downloaded'"
        assert await admin.fetchval(logged) == 1
        assert (await ann.get(path, follow_redirects=True)).content == data
        part = await ann.get(path, headers={"range": "bytes=5-14"}, follow_redirects=True)
        assert (part.status_code, part.content) == (206, data[5:15])
        itself = await ann.get(path, params={"signed_url": "false"}, headers={"range": "bytes=5-14"})
        assert (itself.status_code, itself.content) == (206, data[5:15])
        assert (await ann.head(path)).status_code == 200
        archive = await ann.get(f"/api/jobs/{job.id}/artifact/adapter.zip")
        assert (archive.status_code, archive.headers["content-length"]) == (200, str(len(archive.content)))
        other = await ann.get(path, headers=bearer(BOB))
        assert (other.status_code, other.json()["reason"]) == (404, "JOB_NOT_FOUND")


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
@pytest.mark.parametrize("signed_url_seconds", [0])
async def test_a_private_store_signs_nothing(stack: Stack) -> None:
    """With PIPELINE_SIGNED_URL_SECONDS=0 leases have no URL, and downloads come through the gateway, in part as well."""
    job, leased = await completed(stack)
    assert not leased.dataset.HasField("signed_url")
    async with open_gateway(stack) as url, http_client(url, headers=bearer(ANN)) as ann:
        path = f"/api/jobs/{job.id}/artifact/{WEIGHTS}"
        assert (await ann.get(path)).content == FILES[WEIGHTS]
        part = await ann.get(path, headers={"range": "bytes=5-14"})
        assert (part.status_code, part.content) == (206, FILES[WEIGHTS][5:15])


@pytest.mark.slow
def test_a_missing_bucket_is_not_created(bucket: Any) -> None:
    """Uploads to a missing bucket are refused, and the bucket is not created."""
    writer = Storage("s3://missing/pipeline").writer("datasets/file")
    writer.write(b"a row")
    with pytest.raises(StorageUnavailable):
        writer.commit()
    assert [each.name for each in boto3.resource("s3").buckets.all()] == [BUCKET]


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_uploads_are_refused_while_the_store_is_down(stack: Stack, server: ThreadedMotoServer) -> None:
    """An upload while the store does not respond is STORAGE_UNAVAILABLE, and creates no dataset."""
    server.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await import_rows(stack, ROWS)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    listed = await stack.datasets.ListDatasets(datasets_pb2.ListDatasetsRequest(), metadata=metadata(ANN))
    assert not listed.datasets

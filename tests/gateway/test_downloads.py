"""Files of results over HTTP: whole, in part, and as an archive."""

from __future__ import annotations

import hashlib
import io
import uuid
import zipfile

import httpx
from pipeline.workers.v1 import workers_pb2

from tests.conftest import NewDataset, Stack
from tests.gateway.conftest import new_request
from tests.jobs_service.artifacts.test_artifacts import upload
from tests.jobs_service.trainers import worker

WEIGHTS = b"0123456789" * 90_000


async def completed(api: httpx.AsyncClient, stack: Stack, dataset: str) -> str:
    """A job with two files as its result, done by a trainer that takes what waits; returns its id."""
    job = (await api.post("/api/jobs", json=new_request(dataset, preset_id="balanced"))).json()["data"]
    trainer = str(uuid.uuid4())
    offers = [workers_pb2.GpuOffer(type="A100-80GB", count=10_000)]
    request = workers_pb2.LeaseJobsRequest(max_jobs=100, gpus=offers)
    leases = (await stack.workers.LeaseJobs(request, metadata=worker(trainer))).leases
    (leased,) = (lease for lease in leases if lease.job_id == job["id"])
    named = {"job_id": leased.job_id, "lease_token": leased.lease_token}
    await stack.workers.ReportProgress(workers_pb2.ReportProgressRequest(**named, step=1), metadata=worker(trainer))
    files = [
        await upload(stack, leased, name, data, who=trainer)
        for name, data in (("adapter_model.safetensors", WEIGHTS), ("README.md", b"# Adapter"))
    ]
    done = workers_pb2.CompleteJobRequest(**named, files=files)
    await stack.workers.CompleteJob(done, metadata=worker(trainer))
    return str(job["id"])


async def test_a_result_is_downloaded_in_any_part(
    api: httpx.AsyncClient, shared_stack: Stack, new_dataset: NewDataset, me: str
) -> None:
    """A file has its size, name and tag; a range is answered with 206, one beyond the end with 416."""
    job = await completed(api, shared_stack, await new_dataset(me))
    listed = (await api.get(f"/api/jobs/{job}/artifact")).json()["data"]
    assert {file["name"]: file["size"] for file in listed["files"]} == {
        "README.md": 9,
        "adapter_model.safetensors": len(WEIGHTS),
    }
    path = f"/api/jobs/{job}/artifact/adapter_model.safetensors"
    whole = await api.get(path)
    tag = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, WEIGHTS, tag)
    assert whole.headers["content-length"] == str(len(WEIGHTS))
    assert whole.headers["content-disposition"] == 'attachment; filename="adapter_model.safetensors"'
    for span, expected in (
        ("5-14", WEIGHTS[5:15]),
        (f"{len(WEIGHTS) - 3}-", b"789"),
        ("700000-9999999", WEIGHTS[700_000:]),
    ):
        part = await api.get(path, headers={"range": f"bytes={span}"})
        start = int(span.partition("-")[0])
        assert (part.status_code, part.content) == (206, expected), span
        assert part.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(WEIGHTS)}"
    for ignored in ("bytes=-5", "bytes=9-5", "lines=1-2", "bytes=1-2,4-5"):
        assert (await api.get(path, headers={"range": ignored})).status_code == 200, ignored
    changed = await api.get(path, headers={"range": "bytes=1-2", "if-range": '"old"'})
    assert (changed.status_code, len(changed.content)) == (200, len(WEIGHTS))
    same = await api.get(path, headers={"range": "bytes=1-2", "if-range": tag})
    assert (same.status_code, same.content) == (206, b"12")
    beyond = await api.get(path, headers={"range": f"bytes={len(WEIGHTS)}-"})
    assert (beyond.status_code, beyond.json()["reason"]) == (416, "RANGE_NOT_SATISFIABLE")
    archive = await api.get(f"/api/jobs/{job}/artifact/adapter.zip")
    assert archive.headers["content-type"] == "application/zip"
    assert archive.headers["content-length"] == str(len(archive.content))
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        assert opened.read("adapter_model.safetensors") == WEIGHTS
    rest = await api.get(f"/api/jobs/{job}/artifact/adapter.zip", headers={"range": "bytes=1000-"})
    assert archive.content[1000:] == rest.content
    missing = await api.get(f"/api/jobs/{job}/artifact/nothing.bin")
    assert (missing.status_code, missing.json()["reason"]) == (404, "ARTIFACT_NOT_FOUND")
    assert (await api.delete(f"/api/jobs/{job}/artifact")).status_code == 200
    assert (await api.get(path)).status_code == 404

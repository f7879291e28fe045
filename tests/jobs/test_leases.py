"""Leases: jobs are taken, reported on and finished by trainers, and nothing is lost, doubled or moved backwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import grpc
import pytest
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from tests.conftest import NewDataset, Stack, metadata
from tests.jobs.test_create_job import ANN, asked, reason_of

TRAINER, OTHER = "eeeeeeee-0000-4000-8000-000000000001", "eeeeeeee-0000-4000-8000-000000000002"
GPUS = [workers_pb2.GpuOffer(type="A100-80GB", count=1000)]


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Leases short enough to wait for."""
    return {"lease_ms": 400, "renew_ms": 100, "sweep_ms": 30, "max_attempts": 2, "watch_poll_ms": 20}


def worker(user_id: str = TRAINER) -> list[tuple[str, str]]:
    """Metadata of a signed-in trainer."""
    return metadata(user_id, role="worker")


async def lease(stack: Stack, who: str = TRAINER, **fields: Any) -> list[workers_pb2.Lease]:
    """What a trainer gets when it asks."""
    request = workers_pb2.LeaseJobsRequest(**{"max_jobs": 1, "gpus": GPUS, "trainer": "tests", **fields})
    return list((await stack.workers.LeaseJobs(request, metadata=worker(who))).leases)


async def report(stack: Stack, held: workers_pb2.Lease, who: str = TRAINER, **fields: Any) -> Any:
    """A report on a lease."""
    request = workers_pb2.ReportProgressRequest(
        **{"job_id": held.job_id, "lease_token": held.lease_token, "epoch": 1, "step": 1, **fields}
    )
    return await stack.workers.ReportProgress(request, metadata=worker(who))


async def complete(stack: Stack, held: workers_pb2.Lease, **fields: Any) -> None:
    """The result of a lease."""
    request = workers_pb2.CompleteJobRequest(job_id=held.job_id, lease_token=held.lease_token, **fields)
    await stack.workers.CompleteJob(request, metadata=worker())


async def fail(stack: Stack, held: workers_pb2.Lease, message: str = "out of memory", **fields: Any) -> None:
    """The error of a lease."""
    request = workers_pb2.FailJobRequest(
        job_id=held.job_id, lease_token=held.lease_token, error_message=message, **fields
    )
    await stack.workers.FailJob(request, metadata=worker())


async def release(stack: Stack, held: workers_pb2.Lease) -> None:
    """A lease given back."""
    request = workers_pb2.ReleaseJobRequest(job_id=held.job_id, lease_token=held.lease_token)
    await stack.workers.ReleaseJob(request, metadata=worker())


async def queue(stack: Stack, new_dataset: NewDataset, user: str = ANN, **fields: Any) -> jobs_pb2.Job:
    """A new job."""
    return (await stack.jobs.CreateJob(asked(await new_dataset(user), **fields), metadata=metadata(user))).job


async def get(stack: Stack, job_id: str, user: str = ANN) -> jobs_pb2.Job:
    """The job as it is."""
    return (await stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id), metadata=metadata(user))).job


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 5) -> Any:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not (found := await what()):
        assert time.monotonic() < end, "never came true"
        await asyncio.sleep(0.01)
    return found


async def refused(call: Awaitable[Any]) -> str:
    """Code and reason of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return f"{error.value.code().name} {reason_of(error.value).reason}"


async def notices(admin: asyncpg.Connection, job_id: str) -> list[str]:
    """Kinds of notifications about a job, oldest first."""
    rows = await admin.fetch(
        "select type from lora_notifications where metadata ->> 'job_id' = $1 order by created_at, type", job_id
    )
    return [row["type"] for row in rows]


async def test_a_job_is_trained_to_the_end(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """From the queue through a trainer to `completed`, with its costs, metrics, events and notifications."""
    job = await queue(stack, new_dataset)
    assert (job.queue_position, job.waiting_reason.code) == (1, jobs_pb2.WAITING_CODE_NO_TRAINER)
    (held,) = await lease(stack)
    assert (held.job_id, held.attempt, held.total_steps, held.dataset.name) == (job.id, 1, 3750, "Questions")
    assert (held.lease_epoch, held.gpu_config.count, held.hyperparameters.rank) == (1, 2, 16)
    now = await get(stack, job.id)
    assert (now.status, now.trainer, now.is_final) == (jobs_pb2.JOB_STATUS_INITIALIZING, "tests", False)
    assert not now.HasField("queue_position")
    await report(stack, held, epoch=0, step=0, stage="loading model")
    assert (await get(stack, job.id)).status == jobs_pb2.JOB_STATUS_INITIALIZING
    points = [{"step": step, "epoch": 1, "values": {"loss": 1 / step}} for step in range(1, 6)]
    await report(stack, held, step=1875, metrics=points, log_lines=["half way"])
    now = await get(stack, job.id)
    assert (now.status, now.progress, now.current_metrics["loss"]) == (jobs_pb2.JOB_STATUS_RUNNING, 50, 0.2)
    assert now.current_cost >= 0
    await complete(stack, held, artifact_uri="file:///adapter")
    now = await get(stack, job.id)
    assert (now.status, now.progress, now.is_final) == (jobs_pb2.JOB_STATUS_COMPLETED, 100, True)
    assert (now.artifact_uri, list(now.allowed_actions)) == ("file:///adapter", [])
    cost = await admin.fetchrow("select * from cost_records")
    assert (cost["outcome"], cost["attempt"], str(cost["job_id"])) == ("completed", 1, job.id)
    assert await admin.fetchval("select final_cost from lora_training_jobs") == cost["cost_usd"] > 0
    assert float(cost["cost_usd"]) == pytest.approx(cost["billed_seconds"] * 7 / 3600)
    request = jobs_pb2.ListJobEventsRequest(id=job.id, limit=100)
    events = (await stack.jobs.ListJobEvents(request, metadata=metadata(ANN))).events
    kinds = [jobs_pb2.JobEventType.Name(event.type).removeprefix("JOB_EVENT_TYPE_") for event in reversed(events)]
    assert kinds == ["QUEUED", "LEASED", "PROGRESS", "STARTED", "COMPLETED"]
    assert [event.revision for event in reversed(events)] == [1, 2, 3, 4, 5]
    assert events[1].log_lines == ["half way"]
    asking = jobs_pb2.ListJobMetricsRequest(id=job.id, max_points=3)
    metrics = await stack.jobs.ListJobMetrics(asking, metadata=metadata(ANN))
    assert ([point.step for point in metrics.points], metrics.total_points) == ([1, 3, 5], 5)
    assert await notices(admin, job.id) == ["job_queued", "job_started", "job_completed"]

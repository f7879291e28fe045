"""Calls of trainers and owners that tests of jobs share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.events.store import EventStore
from jobs_service.queue.metrics import QueueMetrics
from jobs_service.queue.sweeper import Sweeper
from rpc.database.pool import Database
from rpc.telemetry.metrics import Metrics
from tests.conftest import NewDataset, Stack, metadata
from tests.jobs_service.jobs.test_create_job import ANN, new_request

TRAINER, OTHER = "eeeeeeee-0000-4000-8000-000000000001", "eeeeeeee-0000-4000-8000-000000000002"
GPUS = [workers_pb2.GpuOffer(type="A100-80GB", count=1000)]


def worker(user_id: str = TRAINER) -> list[tuple[str, str]]:
    """Metadata of a signed-in trainer."""
    return metadata(user_id, role="worker")


async def lease(stack: Stack, who: str = TRAINER, **fields: Any) -> list[workers_pb2.Lease]:
    """Leases jobs."""
    request = workers_pb2.LeaseJobsRequest(**{"max_jobs": 1, "gpus": GPUS, "trainer": "tests", **fields})
    return list((await stack.workers.LeaseJobs(request, metadata=worker(who))).leases)


async def report(stack: Stack, leased: workers_pb2.Lease, who: str = TRAINER, **fields: Any) -> Any:
    """A report on a lease."""
    request = workers_pb2.ReportProgressRequest(
        **{"job_id": leased.job_id, "lease_token": leased.lease_token, "epoch": 1, "step": 1, **fields}
    )
    return await stack.workers.ReportProgress(request, metadata=worker(who))


async def complete(stack: Stack, leased: workers_pb2.Lease, who: str = TRAINER, **fields: Any) -> None:
    """The result of a lease."""
    request = workers_pb2.CompleteJobRequest(job_id=leased.job_id, lease_token=leased.lease_token, **fields)
    await stack.workers.CompleteJob(request, metadata=worker(who))


async def fail(stack: Stack, leased: workers_pb2.Lease, message: str = "out of memory", **fields: Any) -> None:
    """The error of a lease."""
    request = workers_pb2.FailJobRequest(
        job_id=leased.job_id, lease_token=leased.lease_token, error_message=message, **fields
    )
    await stack.workers.FailJob(request, metadata=worker())


async def release(stack: Stack, leased: workers_pb2.Lease, who: str = TRAINER) -> None:
    """A lease given back."""
    request = workers_pb2.ReleaseJobRequest(job_id=leased.job_id, lease_token=leased.lease_token)
    await stack.workers.ReleaseJob(request, metadata=worker(who))


async def queue(stack: Stack, new_dataset: NewDataset, user: str = ANN, **fields: Any) -> jobs_pb2.Job:
    """A new job."""
    return (await stack.jobs.CreateJob(new_request(await new_dataset(user), **fields), metadata=metadata(user))).job


async def get(stack: Stack, job_id: str, user: str = ANN) -> jobs_pb2.Job:
    """The job as it is."""
    return (await stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id), metadata=metadata(user))).job


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 5) -> Any:
    """Waits until something is true. Looks every 10 ms, every 50 where it may take long."""
    end, pause = time.monotonic() + seconds, 0.05 if seconds > 30 else 0.01
    while not (result := await what()):
        assert time.monotonic() < end, "never came true"
        await asyncio.sleep(pause)
    return result


async def until_job(
    stack: Stack, job: jobs_pb2.Job, condition: Callable[[jobs_pb2.Job], Any], seconds: float
) -> jobs_pb2.Job:
    """The job once a condition holds of it, which must be before it ends otherwise."""

    async def look() -> jobs_pb2.Job | None:
        now = await get(stack, job.id)
        assert not now.is_final or condition(now), (now.status, now.error_message)
        return now if condition(now) else None

    result: jobs_pb2.Job = await until(look, seconds)
    return result


async def notices(admin: asyncpg.Connection, job_id: str) -> list[str]:
    """Kinds of notifications about a job, oldest first."""
    rows = await admin.fetch(
        "select type from lora_notifications where metadata ->> 'job_id' = $1 order by created_at, type", job_id
    )
    return [row["type"] for row in rows]


def sweeper(pool: Database) -> Sweeper:
    """A sweeper of a process of its own."""
    return Sweeper(pool, EventStore(pool), QueueMetrics(Metrics()), every_seconds=60, retention=timedelta(days=7))


async def lapse(admin: asyncpg.Connection, job_id: str) -> None:
    """Makes a lease expire, as time or a clock that jumps ahead (K11) does."""
    await admin.execute(
        "update lora_training_jobs set lease_expires_at = lease_expires_at - interval '1 hour' where id = $1", job_id
    )


async def trained_for(admin: asyncpg.Connection, job_id: str, seconds: float) -> None:
    """Moves the end of the first step and the billing of a job back."""
    await admin.execute(
        "update lora_training_jobs set measured_since = measured_since - $2 * interval '1 second', "
        "billed_from = billed_from - $2 * interval '1 second' where id = $1",
        job_id,
        seconds,
    )


async def set_clock_back(admin: asyncpg.Connection, job_id: str) -> None:
    """Moves the times of a lease an hour ahead, as a database's clock that is set back does."""
    columns = (
        "updated_at", "started_at", "lease_started_at", "lease_expires_at", "billed_from", "running_since", "measured_since",
    )  # fmt: skip
    later = ", ".join(f"{column} = {column} + interval '1 hour'" for column in columns)
    await admin.execute(f"update lora_training_jobs set {later} where id = $1", job_id)


async def in_queue(stack: Stack, job_id: str) -> jobs_pb2.Job:
    """Waits until a job is in the queue again."""

    async def look() -> jobs_pb2.Job | None:
        job = await get(stack, job_id)
        return job if job.status == jobs_pb2.JOB_STATUS_QUEUED else None

    return await until(look)

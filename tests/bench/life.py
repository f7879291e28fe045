"""Takes jobs from a queue as fast as trainers can, and tells 500 watchers what happens.

`python -m tests.bench.life` starts a PostgreSQL and a Jobs server. Claims: trainers that take twenty at a time from the
queue of fifty users. Watchers: five hundred streams of fifty users, whose jobs are reported on; the time is from the
event's own, set by the database as it is written, to its arrival in the client.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import grpc
from pipeline.jobs.v1 import jobs_pb2
from pipeline.jobs.v1.jobs_pb2_grpc import JobsServiceStub
from pipeline.workers.v1 import workers_pb2
from pipeline.workers.v1.workers_pb2_grpc import WorkerServiceStub

from jobs_service.queue.claims import Claims
from jobs_service.queue.metrics import QueueMetrics
from jobs_service.queue.model import LeaseRequest
from rpc.database.pool import Database
from rpc.identity.model import Identity
from rpc.telemetry.metrics import Metrics
from tests.bench.scratch import migrated, scratch_database
from tests.conftest import metadata
from tests.databases import in_database
from tests.processes import environment, running

USERS = [str(uuid.UUID(int=0xAAAAAAAA_0000_4000_8000_000000000000 + number)) for number in range(50)]
TRAINERS, BATCH, QUEUED = 8, 20, 30_000
WATCHERS, REPORTS_A_SECOND, SECONDS = 500, 50, 20
FEW, MANY, CLAIMS = 10_000, 1_000_000, 200
GPUS = [workers_pb2.GpuOffer(type="H100", count=100_000)]
FILL = """
with dataset as (
    insert into lora_datasets (user_id, name, status, training_ready)
    select u, 'Questions', 'ready', true from unnest($1::uuid[]) u
    returning id, user_id
)
insert into lora_training_jobs (
    user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs, total_steps, estimated_total_cost,
    hourly_rate, revision
)
select
    d.user_id, d.id, 'fast', '{"batch_size": 4, "epochs": 3, "learning_rate": 0.00005, "rank": 16}',
    '{"type": "H100", "count": 1}', 3, 100000, 6.03, 7, 1
from dataset d cross join generate_series(1, $2::bigint)
"""

FINISHED = """
insert into lora_training_jobs (
    user_id, dataset_id, preset_id, hyperparameters, gpu_config, status, total_epochs, total_steps, estimated_total_cost,
    hourly_rate, completed_at, final_cost
)
select
    user_id, id, 'fast', '{}', '{"type": "H100", "count": 1}', 'completed', 1, 1, 1, 1, now(), 0
from (select distinct on (user_id) user_id, id from lora_datasets) d cross join generate_series(1, $1::bigint)
"""


@dataclass(frozen=True)
class Measured:
    """Jobs taken a second; milliseconds a claim with few and with many finished jobs; milliseconds from event to client."""

    claims_per_second: float
    few_ms: float
    many_ms: float
    events: int
    p50_ms: float
    p99_ms: float

    @property
    def ratio(self) -> float:
        """How much longer a claim takes with many."""
        return self.many_ms / self.few_ms

    def __str__(self) -> str:
        return (
            f"claims of {BATCH} by {TRAINERS} trainers: {self.claims_per_second:,.0f} jobs/s; a claim with {FEW:,} finished "
            f"jobs {self.few_ms:.2f} ms, with {MANY:,} {self.many_ms:.2f} ms, ratio {self.ratio:.2f}; {WATCHERS} watchers, "
            f"{self.events:,} events told: p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms"
        )


def credentials_of(user: str, **claims: Any) -> list[tuple[str, str]]:
    """Metadata of a caller for as long as this takes."""
    return metadata(user, exp=int(time.time()) + 3_600, **claims)


async def claims(workers: WorkerServiceStub, admin: asyncpg.Connection) -> float:
    """Jobs taken a second until the queue is empty."""
    await admin.execute(FILL, USERS, QUEUED // len(USERS))
    await admin.execute("vacuum analyze lora_training_jobs")
    request = workers_pb2.LeaseJobsRequest(max_jobs=BATCH, gpus=GPUS)

    async def train(number: int) -> int:
        caller, taken = credentials_of(str(uuid.UUID(int=number + 1)), role="worker"), 0
        while leases := (await workers.LeaseJobs(request, metadata=caller)).leases:
            taken += len(leases)
        return taken

    started = time.perf_counter()
    taken = await asyncio.gather(*[train(number) for number in range(TRAINERS)])
    took = time.perf_counter() - started
    assert sum(taken) == QUEUED, taken
    return QUEUED / took


async def finished(urls: list[tuple[str, str]]) -> tuple[float, float]:
    """Median milliseconds a claim where few jobs are finished and where many are, claimed from in turn."""
    took: list[list[float]] = [[], []]
    caller, expected = Identity(str(uuid.UUID(int=7)), "worker", 0), LeaseRequest(BATCH, {"H100": 100_000}, "")
    async with AsyncExitStack() as opened:
        stores = []
        for (admin_url, url), rows in zip(urls, (FEW, MANY), strict=True):
            admin = await asyncpg.connect(admin_url, command_timeout=3600)
            await admin.execute(FILL, USERS, CLAIMS * BATCH // len(USERS) + BATCH)
            await admin.execute(FINISHED, rows // len(USERS))
            await admin.execute("vacuum analyze")
            await admin.close()
            pool = await opened.enter_async_context(Database.open(url, size=1))
            stores.append(Claims(pool, lease_time=timedelta(hours=1), metrics=QueueMetrics(Metrics())))
        for _ in range(CLAIMS):
            for claims, times in zip(stores, took, strict=True):
                started = time.perf_counter()
                assert len(await claims.claim(caller, expected)) == BATCH
                times.append((time.perf_counter() - started) * 1e3)
    few, many = (statistics.median(times[CLAIMS // 4 :]) for times in took)
    return few, many


async def watches(jobs: JobsServiceStub, workers: WorkerServiceStub, admin: asyncpg.Connection) -> list[float]:
    """Milliseconds from event to client, of each event that each watcher was told."""
    await admin.execute(FILL, USERS, 1)
    trainer = credentials_of(str(uuid.UUID(int=99)), role="worker")
    request = workers_pb2.LeaseJobsRequest(max_jobs=100, gpus=GPUS)
    leases = (await workers.LeaseJobs(request, metadata=trainer)).leases
    owners = dict(await admin.fetch("select id::text, user_id::text from lora_training_jobs where lease_epoch = 1"))
    took: list[float] = []
    ready = asyncio.Semaphore(0)

    async def watch(number: int) -> None:
        lease = leases[number % len(leases)]
        asking = jobs_pb2.WatchJobRequest(id=lease.job_id)
        last = 0
        async for message in jobs.WatchJob(asking, metadata=credentials_of(owners[lease.job_id])):
            if message.HasField("snapshot"):
                ready.release()
            elif message.HasField("event"):
                took.append((time.time() - message.event.created_at.ToNanoseconds() / 1e9) * 1e3)
                assert not last or message.event.revision == last + 1
                last = message.event.revision

    watchers = [asyncio.create_task(watch(number), name="watcher") for number in range(WATCHERS)]
    for _ in watchers:
        await ready.acquire()
    started = time.perf_counter()
    for step in range(1, REPORTS_A_SECOND * SECONDS + 1):
        lease = leases[step % len(leases)]
        report = workers_pb2.ReportProgressRequest(
            job_id=lease.job_id, lease_token=lease.lease_token, epoch=1, step=step
        )
        await workers.ReportProgress(report, metadata=trainer)
        await asyncio.sleep(max(0, started + step / REPORTS_A_SECOND - time.perf_counter()))
    for lease in leases:
        done = workers_pb2.CompleteJobRequest(job_id=lease.job_id, lease_token=lease.lease_token)
        await workers.CompleteJob(done, metadata=trainer)
    await asyncio.gather(*watchers)
    reports = REPORTS_A_SECOND * SECONDS + len(leases)
    assert len(took) == reports * WATCHERS / len(leases)
    return took


async def measure() -> Measured:
    """Both, one after the other."""
    async with AsyncExitStack() as opened:
        cluster = opened.enter_context(scratch_database())
        servers = []
        urls = []
        for name in ("few", "many"):
            admin = await asyncpg.connect(cluster)
            await admin.execute(f"create database {name}")
            await admin.close()
            url = in_database(cluster, name)
            urls.append((url, await migrated(url)))
        few, many = await finished(urls)
        for name in ("claims", "watches"):
            admin = await asyncpg.connect(cluster)
            await admin.execute(f"create database {name}")
            await admin.close()
            url = in_database(cluster, name)
            settings = environment(await migrated(url), PIPELINE_LEASE_MS="600000")
            server = await opened.enter_async_context(running("jobs_service", settings))
            await server.logged("database", lambda line: bool(line["healthy"]))
            channel = await opened.enter_async_context(grpc.aio.insecure_channel(await server.address()))
            servers.append((channel, await asyncpg.connect(url)))
        (channel, admin), (other, other_admin) = servers
        rate = await claims(WorkerServiceStub(channel), admin)
        took = await watches(JobsServiceStub(other), WorkerServiceStub(other), other_admin)
        for _, connection in servers:
            await connection.close()
        ordered = statistics.quantiles(took, n=100)
        return Measured(rate, few, many, len(took), ordered[49], ordered[98])


if __name__ == "__main__":
    print(asyncio.run(measure()))

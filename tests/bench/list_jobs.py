"""Asks for the jobs of a user who has ten, where the table has ten thousand rows and where it has a million.

`python -m tests.bench.list_jobs` starts a PostgreSQL and a Jobs server for each; the two are asked in turn.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg
import grpc
from pipeline.jobs.v1 import jobs_pb2
from pipeline.jobs.v1.jobs_pb2_grpc import JobsServiceStub

from tests.bench.scratch import migrated, scratch_database
from tests.conftest import metadata
from tests.databases import in_database
from tests.processes import environment, running

ANN = "aaaaaaaa-0000-4000-8000-000000000001"
HELD = metadata(ANN, exp=int(time.time()) + 3_600)
FEW, MANY = 10_000, 1_000_000
JOBS_OF_OTHERS = 100
WARM_UP, CALLS = 200, 1_500
# One dataset a user, and every tenth of their jobs long done.
FILL_DATASETS = """
insert into lora_datasets (id, user_id, name, status, training_ready)
select u, u, 'Questions', 'ready', true from (select gen_random_uuid() as u from generate_series(1, $1::bigint)) users
union all select $2::uuid, $2::uuid, 'Questions', 'ready', true
"""
FILL_JOBS = """
insert into lora_training_jobs (
    user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs, total_steps, estimated_total_cost,
    hourly_rate, status, completed_at, created_at
)
select
    d.id, d.id, 'fast', '{"batch_size": 4, "epochs": 3, "learning_rate": 0.00005, "rank": 16}',
    '{"type": "H100", "count": 1}', 3, 100, 6.03, 7,
    case when n % 10 = 0 then 'queued' else 'completed' end, case when n % 10 = 0 then null else now() end,
    now() - n * interval '1 minute'
from lora_datasets d cross join generate_series(1, $1::bigint) n
where (d.id = $2) = $3
"""


@dataclass(frozen=True)
class Compared:
    """Median milliseconds a call with few rows and with many."""

    few_ms: float
    many_ms: float

    @property
    def ratio(self) -> float:
        """How much longer it takes with many."""
        return self.many_ms / self.few_ms

    def __str__(self) -> str:
        return (
            f"ListJobs, 10 of {FEW:,} rows: {self.few_ms:.2f} ms; 10 of {MANY:,} rows: {self.many_ms:.2f} ms; "
            f"ratio {self.ratio:.2f}"
        )


async def fill(url: str, rows: int) -> None:
    """A table of that many jobs, ten of them Ann's."""
    connection = await asyncpg.connect(url, command_timeout=3600)
    await connection.execute("set synchronous_commit = off")
    await connection.execute(FILL_DATASETS, rows // JOBS_OF_OTHERS, ANN)
    await connection.execute(FILL_JOBS, JOBS_OF_OTHERS, ANN, False)
    await connection.execute(FILL_JOBS, 10, ANN, True)
    await connection.execute("vacuum analyze lora_datasets, lora_training_jobs")
    assert await connection.fetchval("select count(*) from lora_training_jobs") == rows + 10
    await connection.close()


async def compare() -> Compared:
    """Asks both servers in turn, call by call."""
    async with AsyncExitStack() as opened:
        cluster = opened.enter_context(scratch_database())
        stubs = []
        for rows in (FEW, MANY):
            admin = await asyncpg.connect(cluster)
            await admin.execute(f"create database rows_{rows}")
            await admin.close()
            url = in_database(cluster, f"rows_{rows}")
            service_url = await migrated(url)
            await fill(url, rows)
            server = await opened.enter_async_context(running("jobs_service", environment(service_url)))
            await server.logged("database", lambda line: bool(line["healthy"]))
            channel = await opened.enter_async_context(grpc.aio.insecure_channel(await server.address()))
            stubs.append(JobsServiceStub(channel))
        took: list[list[float]] = [[], []]
        for number in range(WARM_UP + CALLS):
            for stub, times in zip(stubs, took, strict=True):
                milliseconds = await ask(stub)
                if number >= WARM_UP:
                    times.append(milliseconds)
        return Compared(*map(statistics.median, took))


async def ask(stub: JobsServiceStub) -> float:
    """How long one call takes, in milliseconds."""
    started = time.perf_counter()
    answer = await stub.ListJobs(jobs_pb2.ListJobsRequest(), metadata=HELD)
    took = (time.perf_counter() - started) * 1e3
    assert (len(answer.jobs), answer.pagination.total) == (10, 10)
    return took


if __name__ == "__main__":
    print(asyncio.run(compare()))

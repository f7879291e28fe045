"""Faults of PostgreSQL itself (group 15): it is down, comes back, or refuses logins."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pipeline.estimator.v1 import estimator_pb2
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub
from pipeline.jobs.v1 import jobs_pb2
from pipeline.jobs.v1.jobs_pb2_grpc import JobsServiceStub

from deploy.local.postgres import Postgres
from jobs_service.database.migrate import migrate
from tests.conftest import NewDataset, Stack, metadata
from tests.databases import SERVICE_PASSWORD
from tests.door import Refusal, refusal, refused
from tests.jobs_service.jobs.test_create_job import new_request
from tests.processes import Server, environment, running

ANN = "aaaaaaaa-0000-4000-8000-000000000001"
RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}
NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING


class Cluster:
    """A separate PostgreSQL, to be stopped and started."""

    def __init__(self, server: Postgres, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self.admin_url = server.url
        self.url = server.url.replace("postgres:@", f"pipeline_service:{SERVICE_PASSWORD}@", 1)

    async def crash(self) -> None:
        """Kills it."""
        process = self._server._process
        assert process is not None
        process.send_signal(signal.SIGQUIT)
        async with asyncio.timeout(30):
            while process.poll() is None:
                await asyncio.sleep(0.02)

    def start(self) -> None:
        """Starts it again on the same data. In this thread: it ends with the thread that started it."""
        self._server.start()

    async def execute(self, statement: str) -> str:
        """Runs a statement as its administrator."""
        connection = await asyncpg.connect(self.admin_url)
        try:
            return str(await connection.execute(statement))
        finally:
            await connection.close()

    def log(self) -> str:
        """What it has logged."""
        return (self._folder / "log").read_text()

    async def ask_for_passwords(self) -> None:
        """Services sign in with a password from now on."""
        rules = "local all postgres trust\nlocal all all scram-sha-256\n"
        await asyncio.to_thread((self._folder / "pg_hba.conf").write_text, rules)
        await self.execute("select pg_reload_conf()")


@pytest.fixture
async def own_cluster() -> AsyncIterator[Cluster]:
    """A migrated PostgreSQL."""
    folder = Path("/tmp") / f"pipeline-faults-{os.getpid()}"
    folder.mkdir()
    server = Postgres(folder / "data")
    try:
        server.start()
        await migrate(server.url, passwords={"service": SERVICE_PASSWORD})
        yield Cluster(server, folder / "data")
    finally:
        server.close()
        shutil.rmtree(folder)


class Served:
    """Both servers as processes, with a stub for each."""

    def __init__(self, estimator: Server, jobs: Server, channels: list[grpc.aio.Channel]) -> None:
        self.servers = [estimator, jobs]
        self.channels = channels
        self.estimator = EstimatorServiceStub(channels[0])
        self.jobs = JobsServiceStub(channels[1])

    async def healths(self) -> list[int]:
        """Returns the health of both servers."""
        answers = [
            await health_pb2_grpc.HealthStub(each).Check(health_pb2.HealthCheckRequest()) for each in self.channels
        ]
        return [answer.status for answer in answers]

    async def become(self, status: int, *, seconds: float = 30) -> float:
        """Waits until both have this health. Returns the seconds."""
        started = time.monotonic()
        async with asyncio.timeout(seconds):
            while await self.healths() != [status, status]:
                await asyncio.sleep(0.05)
        return time.monotonic() - started


@pytest.mark.slow
async def test_postgres_never_receives_a_password(own_cluster: Cluster) -> None:
    """The migration sets the services' passwords without sending them to Postgres, whose logs never have them."""
    await own_cluster.ask_for_passwords()
    await own_cluster.execute("alter system set log_statement = 'all'")
    await own_cluster.execute("select pg_reload_conf()")
    password = "a new password: 'quoted' \\ and $spaced$"
    await migrate(own_cluster.admin_url, passwords={"service": password})
    connection = await asyncpg.connect(own_cluster.admin_url, user="pipeline_service", password=password)
    await connection.close()
    log = own_cluster.log()
    assert "alter role pipeline_service" in log
    assert "quoted" not in log


@pytest.fixture
async def served(own_cluster: Cluster, tmp_path: Path) -> AsyncIterator[Served]:
    """Both servers, without a running database."""
    await own_cluster.crash()
    async with AsyncExitStack() as opened:
        variables = environment(own_cluster.url, PIPELINE_STORAGE_URL=f"file://{tmp_path}", PIPELINE_DRAIN_SECONDS="1")
        estimator = await opened.enter_async_context(running("estimator_service", variables))
        address = await estimator.address()
        variables["PIPELINE_ESTIMATOR_ADDRESS"] = address
        jobs = await opened.enter_async_context(running("jobs_service", variables))
        channels = [
            await opened.enter_async_context(grpc.aio.insecure_channel(each))
            for each in (address, await jobs.address())
        ]
        yield Served(estimator, jobs, channels)


async def new_dataset(cluster: Cluster) -> str:
    """A dataset of Ann's."""
    dataset = str(uuid.uuid4())
    await cluster.execute(
        "insert into lora_datasets (id, user_id, name, status, training_ready, total_training_pairs, total_tokens)"
        f" values ('{dataset}', '{ANN}', 'Questions', 'ready', true, 5000, 1250000)"
    )
    return dataset


def question(dataset: str) -> estimator_pb2.EstimateCostRequest:
    """An EstimateCost request."""
    job = new_request(dataset)
    return estimator_pb2.EstimateCostRequest(
        dataset_id=dataset, gpu_config=job.gpu_config, hyperparameters=job.hyperparameters
    )


async def without_a_database(served: Served, dataset: str) -> dict[str, Refusal]:
    """Returns the errors of the Estimator's other RPCs that need the database."""
    job, llama, estimator = new_request(dataset), "llama-3.1-8b", served.estimator
    configured = {"dataset_id": dataset, "gpu_config": job.gpu_config, "hyperparameters": job.hyperparameters}
    grid = {"dataset_id": dataset, "gpu_counts": [1, 2], "preset_ids": [1, 2]}
    questions = {
        "forecast": (estimator.EstimateCost, estimator_pb2.EstimateCostRequest(**configured, base_model=llama)),
        "comparison": (estimator.CompareConfigurations, estimator_pb2.CompareConfigurationsRequest(**grid)),
        "forecasts": (
            estimator.CompareConfigurations,
            estimator_pb2.CompareConfigurationsRequest(**grid, base_model=llama),
        ),
        "new quote": (estimator.CreateQuote, estimator_pb2.CreateQuoteRequest(**configured)),
        "quote": (estimator.GetQuote, estimator_pb2.GetQuoteRequest(id=str(uuid.uuid4()))),
        "accuracy": (estimator.GetEstimateAccuracy, estimator_pb2.GetEstimateAccuracyRequest()),
    }
    return {
        name: await refused(call(question, metadata=metadata(ANN), timeout=10))
        for name, (call, question) in questions.items()
    }


@pytest.mark.slow
async def test_a_database_that_stops_and_starts(own_cluster: Cluster, served: Served) -> None:
    """S01, S02 and E08: without a database servers run, say so, and answer UNAVAILABLE; with it they are well at once.

    What was acknowledged before a crash of PostgreSQL under load is there after it, and no estimate is older than it may be.
    """
    # S01: down at start.
    assert await served.healths() == [NOT_SERVING, NOT_SERVING]
    refusal_status = await refused(served.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(ANN), timeout=10))
    assert (refusal_status.code, refusal_status.reason, refusal_status.retryable) == (
        grpc.StatusCode.UNAVAILABLE,
        "DATABASE_UNAVAILABLE",
        True,
    )
    own_cluster.start()
    await served.become(SERVING)
    assert [server.process.returncode for server in served.servers] == [None, None]

    # S02: a crash under load.
    dataset = await new_dataset(own_cluster)
    credentials = metadata(ANN)
    acknowledged: list[str] = []
    codes: set[grpc.StatusCode] = set()
    recovered = asyncio.Event()

    async def create() -> None:
        while not recovered.is_set():
            request = new_request(dataset, request_id=str(uuid.uuid4()))
            try:
                acknowledged.append((await served.jobs.CreateJob(request, metadata=credentials, timeout=10)).job.id)
            except grpc.aio.AioRpcError as error:
                codes.add(refusal(error).code)
                await asyncio.sleep(0.05)

    creating = [asyncio.create_task(create()) for _ in range(4)]
    async with asyncio.timeout(60):
        while len(acknowledged) < 20:
            await asyncio.sleep(0.02)
    await own_cluster.crash()
    stopped = time.monotonic()
    # E08: a figure may be as old as the cache may hold it, and then there is none.
    while True:
        asked_at = time.monotonic()
        try:
            await served.estimator.EstimateCost(question(dataset), metadata=credentials, timeout=10)
        except grpc.aio.AioRpcError as error:
            away = refusal(error)
            break
        assert asked_at - stopped < 1
    assert away.code is grpc.StatusCode.UNAVAILABLE
    for name, refusal_status in (await without_a_database(served, dataset)).items():
        assert (refusal_status.code, refusal_status.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"), (
            name
        )
    await served.become(NOT_SERVING)
    before = len(acknowledged)
    own_cluster.start()
    started = time.monotonic()
    async with asyncio.timeout(60):
        while len(acknowledged) < before + 5:
            await asyncio.sleep(0.02)
    took = time.monotonic() - started
    await served.become(SERVING)
    recovered.set()
    await asyncio.gather(*creating)
    print(f"recovered in {took:.2f} s; {len(acknowledged)} acknowledged, refusals: {codes}")
    assert took < 5
    assert codes <= RETRYABLE
    connection = await asyncpg.connect(own_cluster.admin_url)
    rows = {str(row[0]) for row in await connection.fetch("select id from lora_training_jobs")}
    told_of = await connection.fetchval("select count(*) from lora_notifications where type = 'job_queued'")
    await connection.close()
    assert set(acknowledged) <= rows
    assert told_of == len(rows)

    # S13: another password, then no login at all.
    await own_cluster.ask_for_passwords()
    for change, back in [
        ("alter role pipeline_service password 'another-one-altogether'", f"password '{SERVICE_PASSWORD}'"),
        ("alter role pipeline_service nologin", "login"),
    ]:
        lines = [len(server.lines) for server in served.servers]
        await own_cluster.execute(change)
        await own_cluster.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pipeline_service'"
        )
        await served.become(NOT_SERVING)
        for server, seen in zip(served.servers, lines, strict=True):
            alarm = next(line for line in server.lines[seen:] if line["event"] == "database" and not line["healthy"])
            assert alarm["level"] == "error"
        refusal_status = await refused(
            served.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(ANN), timeout=10)
        )
        assert refusal_status.code is grpc.StatusCode.UNAVAILABLE
        await own_cluster.execute(f"alter role pipeline_service {back}")
        await served.become(SERVING)
    for server in served.servers:
        assert any("Error: password authentication failed" in str(line.get("error")) for line in server.lines)
        assert SERVICE_PASSWORD not in server.text
        assert "another-one-altogether" not in server.text


async def test_backends_that_are_killed_are_retryable(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """S03: while backends are terminated at random, every call succeeds or gets a retryable error."""
    random = Random(3)
    dataset = await new_dataset(ANN)
    credentials, done, answered, codes = metadata(ANN), asyncio.Event(), [0], set()

    async def call() -> None:
        while not done.is_set():
            try:
                # Well below the limit on open jobs, however fast this is.
                if answered[0] < 300:
                    await stack.jobs.CreateJob(new_request(dataset), metadata=credentials, timeout=10)
                await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=credentials, timeout=10)
                answered[0] += 1
            except grpc.aio.AioRpcError as error:
                codes.add(refusal(error).code)

    calling = [asyncio.create_task(call()) for _ in range(6)]
    backends = "select pid from pg_stat_activity where usename = 'pipeline_service' and datname = current_database()"
    for _ in range(15):
        pids = [row[0] for row in await admin.fetch(backends)]
        if pids:
            await admin.execute("select pg_terminate_backend($1)", random.choice(pids))
        await asyncio.sleep(0.2)
    before = answered[0]
    try:
        async with asyncio.timeout(20):
            while answered[0] < before + 10:
                await asyncio.sleep(0.02)
    finally:
        done.set()
        await asyncio.gather(*calling)
    assert codes <= RETRYABLE
    jobs = await admin.fetchval("select count(*) from lora_training_jobs")
    assert jobs == await admin.fetchval("select count(*) from lora_notifications where type = 'job_queued'")

"""Callers that disconnect, deadlines at the worst moment, and broken connections to the database and the servers."""

from __future__ import annotations

import asyncio
import random
import re
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from pipeline.jobs.v1 import jobs_pb2
from pipeline.jobs.v1.jobs_pb2_grpc import JobsServiceStub
from pipeline.workers.v1 import workers_pb2

from gateway.__main__ import JOBS
from rpc.boundary import Boundary
from rpc.channels import open_channel
from rpc.database.pool import Database
from rpc.identity.tokens import SharedSecret, Verifier
from tests.clients import http_client
from tests.conftest import AUDIENCE, ISSUER, SECRET, NewDataset, Stack, TestDatabase, metadata, open_stack
from tests.gateway.conftest import bearer, open_gateway
from tests.jobs_service.events.test_watch import watching
from tests.jobs_service.jobs.test_create_job import ANN, new_request
from tests.jobs_service.trainers import get, lease, queue, report, until
from tests.proxy import Proxy, proxy
from tests.serving import SETTINGS, serving

ONE_WAY = pytest.mark.parametrize("stack", ["grpc"], indirect=True)


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Leases that outlast a slow machine."""
    return {"lease_ms": 60_000, "watch_poll_ms": 20, "max_open_jobs": 100_000}


async def jobs_of(admin: asyncpg.Connection, request_id: str) -> tuple[int, int]:
    """Returns the number of jobs of an idempotency key, and of their notifications."""
    row = await admin.fetchrow(
        "select count(distinct j.id), count(n.id) from lora_training_jobs j"
        " left join lora_notifications n on n.metadata ->> 'job_id' = j.id::text where idempotency_key = $1",
        uuid.UUID(request_id),
    )
    return tuple(row)


@ONE_WAY
async def test_a_caller_that_disconnects_finds_its_job(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """D02, I07: whenever a caller disconnects, retrying with the same key gives one job with one notification."""
    dataset = await new_dataset(ANN)
    for _ in range(40):
        request = new_request(dataset, request_id=str(uuid.uuid4()))
        leaving = stack.jobs.CreateJob(request, metadata=metadata(ANN))
        await asyncio.sleep(random.uniform(0, 0.03))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        job = (await stack.jobs.CreateJob(request, metadata=metadata(ANN))).job
        assert await jobs_of(admin, request.request_id) == (1, 1)
        assert job.status == jobs_pb2.JOB_STATUS_QUEUED


SLOW_COMMIT = """
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.6); return null; end $$;
create constraint trigger slow after insert on lora_training_jobs deferrable initially deferred
for each row execute function slow();
"""


@ONE_WAY
async def test_a_deadline_inside_the_commit(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """D03, D05: a deadline during the commit is DEADLINE_EXCEEDED, and a retry is safe."""
    request = new_request(await new_dataset(ANN), request_id=str(uuid.uuid4()))
    await admin.execute(SLOW_COMMIT)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stack.jobs.CreateJob(request, metadata=metadata(ANN), timeout=0.4)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await admin.execute("drop trigger slow on lora_training_jobs")
    await stack.jobs.CreateJob(request, metadata=metadata(ANN))
    assert await jobs_of(admin, request.request_id) == (1, 1)


@ONE_WAY
@pytest.mark.parametrize("calls", [60, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_a_deadline_as_long_as_the_work(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, calls: int
) -> None:
    """D04: with a deadline about as long as the work, a job is created with everything or not at all."""
    dataset, credentials = await new_dataset(ANN), metadata(ANN)
    took = []
    for _ in range(5):
        started = time.perf_counter()
        await stack.jobs.CreateJob(new_request(dataset), metadata=credentials)
        took.append(time.perf_counter() - started)
    outcomes = []
    for _ in range(calls):
        request = new_request(dataset, request_id=str(uuid.uuid4()))
        try:
            timeout = random.uniform(0.3, 1.3) * sorted(took)[2]
            await stack.jobs.CreateJob(request, metadata=credentials, timeout=timeout)
            expected = {(1, 1)}
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            expected = {(1, 1), (0, 0)}
        outcomes.append(expected)
        assert await jobs_of(admin, request.request_id) in expected


@ONE_WAY
@pytest.mark.parametrize("calls", [300, pytest.param(3_000, marks=pytest.mark.slow)])
async def test_cancelled_calls_leave_nothing(
    stack: Stack, database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset, calls: int
) -> None:
    """D06, D01: 500 cancelled calls a second leave no task, watch or connection."""
    job = await queue(stack, new_dataset)
    await get(stack, job.id)
    before = len(asyncio.all_tasks())

    async def leave(number: int) -> None:
        call: Any
        if number % 3 == 0:
            call = stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(ANN))
        elif number % 3 == 1:
            call = stack.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job.id), metadata=metadata(ANN))
        else:
            offer = [workers_pb2.GpuOffer(type="H100", count=1)]
            request = workers_pb2.LeaseJobsRequest(max_jobs=1, gpus=offer, wait_ms=20_000)
            call = stack.workers.LeaseJobs(request, metadata=metadata(ANN, role="worker"))
        await asyncio.sleep(random.uniform(0, 0.02))
        call.cancel()

    for start in range(0, calls, 50):
        pace = asyncio.sleep(0.1)
        await asyncio.gather(pace, *[leave(number) for number in range(start, start + 50)])

    async def quiet() -> bool:
        return len(asyncio.all_tasks()) <= before + 2

    await until(quiet, 15)
    open_transactions = """
        select count(*) from pg_stat_activity
        where datname = current_database() and usename = 'pipeline_service' and state <> 'idle'
    """
    await until(partial(_none, admin, open_transactions))
    assert (await get(stack, job.id)).status == jobs_pb2.JOB_STATUS_QUEUED
    async with watching(stack, job.id) as watcher:
        await watcher.has("snapshot")


async def _none(admin: asyncpg.Connection, counted: str) -> bool:
    return await admin.fetchval(counted) == 0


@ONE_WAY
async def test_an_open_transaction_delays_no_claim(
    stack: Stack, database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """S10: an open transaction delays events but no claims and reports; pings have the delay."""
    job = await queue(stack, new_dataset)
    idle = await asyncpg.connect(database.admin_url)
    opened = idle.transaction()
    await opened.start()
    await idle.execute("insert into disabled_users (user_id) values (gen_random_uuid())")
    async with watching(stack, job.id) as watcher:
        await watcher.has("snapshot")
        (leased,) = await lease(stack)
        await report(stack, leased)
        assert (await get(stack, job.id)).status == jobs_pb2.JOB_STATUS_RUNNING
        ping = await watcher.has("ping")
        assert watcher.kinds() == ["snapshot"]
        assert ping.ping.behind_seconds > 0
        await opened.rollback()
        await watcher.has("event", 2)
        assert watcher.revisions(job.id) == [2, 3]
    await idle.close()


@pytest.fixture
async def to_database(database: TestDatabase) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of the database, and the services' URL through it."""
    folder = re.search(r"host=([^&]+)", database.url)
    assert folder is not None
    socket = f"{folder[1]}/.s.PGSQL.5432"
    async with proxy(partial(asyncio.open_unix_connection, socket)) as way:
        yield way, database.url.replace("@/", f"@127.0.0.1:{way.port}/", 1).split("?")[0] + "?sslmode=disable"


@pytest.mark.parametrize("broken", ["stalls", "breaks"])
async def test_a_lost_connection_to_the_database(
    to_database: tuple[Proxy, str],
    admin: asyncpg.Connection,
    new_dataset: NewDataset,
    tmp_path: Path,
    jobs_overrides: dict[str, Any],
    broken: str,
) -> None:
    """S04, S05: deadlines hold while the database does not respond; watches then continue without a gap."""
    way, url = to_database
    async with open_stack("grpc", url, tmp_path, **jobs_overrides) as stack:
        job = await queue(stack, new_dataset)
        async with watching(stack, job.id) as watcher:
            await watcher.has("snapshot")
            (leased,) = await lease(stack)
            way.stall()
            for _ in range(3):
                started = time.monotonic()
                with pytest.raises(grpc.aio.AioRpcError) as late:
                    await stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id), metadata=metadata(ANN), timeout=1)
                assert late.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
                assert time.monotonic() - started < 2
            if broken == "breaks":
                way.reset()
            way.go_on()

            async def reported() -> bool:
                try:
                    await report(stack, leased)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                        raise
                    return False
                return True

            await until(reported, 10)
            await watcher.has("event", 2)
            messages = watcher.revisions(job.id)
            assert messages == list(range(2, 2 + len(messages)))


@ONE_WAY
@pytest.mark.parametrize("fault", ["reset", "stall", "delay"])
async def test_a_broken_connection_to_the_server(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, fault: str
) -> None:
    """N03, N04: a broken response is a complete 503 or 504, a slow one arrives, and no call hangs."""
    job = await queue(stack, new_dataset)
    host, _, port = stack.jobs_address.partition(":")
    async with proxy(partial(asyncio.open_connection, host, int(port))) as way:
        channel = open_channel(f"127.0.0.1:{way.port}", JOBS)
        async with (
            channel,
            open_gateway(replace(stack, jobs_channel=channel)) as url,
            http_client(url, timeout=20, headers=bearer(ANN)) as client,
        ):
            assert (await client.get(f"/api/jobs/{job.id}")).status_code == 200
            if fault == "reset":
                asking = [asyncio.create_task(client.get(f"/api/jobs/{job.id}")) for _ in range(50)]
                for _ in range(5):
                    await asyncio.sleep(0.01)
                    way.reset()
                answers = await asyncio.gather(*asking)
            elif fault == "stall":
                way.stall()
                answers = [await client.get(f"/api/jobs/{job.id}", headers={"grpc-timeout": "500m"})]
                assert answers[0].status_code == 504
                way.go_on()
            else:
                way.delay_seconds = 0.3
                answers = [await client.get(f"/api/jobs/{job.id}")]
                assert answers[0].status_code == 200
            for answer in answers:
                body = answer.json()
                assert answer.status_code in (200, 503, 504)
                if answer.status_code == 200:
                    assert body["data"]["id"] == job.id
                else:
                    assert set(body) == {"error", "details", "code", "reason", "request_id"}
            way.delay_seconds = 0

            async def well() -> bool:
                return (await client.get(f"/api/jobs/{job.id}")).status_code == 200

            await until(well, 5)


@ONE_WAY
async def test_one_of_two_servers_dies(stack: Stack, database: TestDatabase, new_dataset: NewDataset) -> None:
    """N06: with one of two servers dead, all idempotent calls succeed on the other."""
    job = await queue(stack, new_dataset)
    services = {service: servicer for service, (_, servicer) in stack.services.items() if service in JOBS}
    async with Database.open(database.url, size=2) as pool:
        verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE, is_disabled=pool.is_disabled)
        boundary = Boundary(SETTINGS, verifier)
        async with serving(services, boundary) as second:
            channel = open_channel(f"ipv4:{stack.jobs_address},{second}", JOBS)
            jobs = JobsServiceStub(channel)
            for _ in range(20):
                await jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id), metadata=metadata(ANN))
        for _ in range(10):
            asking = [jobs.GetJob(jobs_pb2.GetJobRequest(id=job.id), metadata=metadata(ANN)) for _ in range(20)]
            assert {answer.job.id for answer in await asyncio.gather(*asking)} == {job.id}
        await channel.close()

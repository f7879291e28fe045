"""Watches survive a crash of PostgreSQL without a gap."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from pipeline.jobs.v1 import jobs_pb2

from deploy.local.postgres import Postgres, PostgresError
from jobs_service.database.migrate import migrate
from tests.conftest import Stack, insert_dataset, metadata, open_stack
from tests.databases import SERVICE_PASSWORD
from tests.jobs_service.jobs.test_create_job import ANN, new_request


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A PostgreSQL of the test's own, to be killed."""
    with tempfile.TemporaryDirectory(prefix="pipeline-", dir="/tmp") as folder:
        server = Postgres(Path(folder) / "data")
        server.start()
        try:
            yield server
        finally:
            server.close()


def crash(server: Postgres) -> None:
    """Kills the server and starts it again, once what it left is gone."""
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()
    until = time.monotonic() + 20
    while True:
        try:
            server.start()
            return
        except PostgresError:
            assert time.monotonic() < until


async def create(stack: Stack, dataset: str) -> str:
    """A new job, once the database answers again."""
    while True:
        try:
            return (await stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN))).job.id
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.05)


async def first_event(stream: Any) -> str:
    """The job that the next event is about."""
    async with asyncio.timeout(10):
        while (message := await stream.read()).WhichOneof("update") != "event":
            pass
    return str(message.event.job_id)


@pytest.mark.slow
async def test_a_crash_hides_no_event(server: Postgres, tmp_path: Path) -> None:
    """S02, S15: events of transactions that reuse numbers after a crash reach watchers."""
    await migrate(server.url, passwords={"service": SERVICE_PASSWORD})
    admin = await asyncpg.connect(server.url)
    # What is rolled back stays in memory alone for as long as the test needs.
    await admin.execute("alter system set wal_writer_delay = '10s'")
    await admin.execute("select pg_reload_conf()")
    dataset = await insert_dataset(admin, ANN)
    url = server.url.replace("postgres:@", f"pipeline_service:{SERVICE_PASSWORD}@", 1)
    credentials = metadata(ANN)
    async with open_stack("local", url, tmp_path, watch_poll_ms=10, watch_ping_ms=50) as stack:
        await create(stack, dataset)
        for _ in range(50):
            await admin.execute("begin; select pg_current_xact_id(); rollback")
        number = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        before = await admin.fetchval(number)
        stream = stack.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(), metadata=credentials)
        messages = [await stream.read() for _ in range(3)]
        assert [message.WhichOneof("update") for message in messages] == ["snapshot", "ping", "ping"]
        await asyncio.to_thread(crash, server)
        admin.terminate()
        admin = await asyncpg.connect(server.url)
        assert await admin.fetchval(number) < before
        await admin.close()
        job = await create(stack, dataset)
        assert await first_event(stream) == job
        stream.cancel()
        for message in messages:
            again = stack.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(last_event_id=message.id), metadata=credentials)
            assert await first_event(again) == job
            again.cancel()

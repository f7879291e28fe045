"""The services behind PgBouncer in transaction mode, and URLs of a database as ORMs write them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from pipeline.jobs.v1 import jobs_pb2

from deploy.local.postgres import SYSTEM_USER
from jobs_service.database.migrate import NotDirect, migrate
from rpc.database.errors import ConnectionRefused
from rpc.database.pool import SESSION_SETTINGS, Database
from tests import debian
from tests.conftest import Stack, TestDatabase, insert_dataset, metadata, open_stack
from tests.databases import SERVICE_PASSWORD
from tests.jobs_service.jobs.test_create_job import ANN, BOB, new_request
from tests.jobs_service.trainers import complete, get, lease, report
from tests.processes import environment, run

# Two sessions for everybody: each transaction may have another one.
CONFIGURATION = """
[databases]
* = host={postgres}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 2
{options}
"""
SETTINGS_IGNORED = "ignore_startup_parameters = " + ", ".join(SESSION_SETTINGS)


@asynccontextmanager
async def pgbouncer(database: TestDatabase, folder: Path, options: str = "") -> AsyncIterator[str]:
    """Runs PgBouncer before a database; yields the services' URL of it, without parameters."""
    port = debian.free_port()
    parts = urlsplit(database.admin_url)
    (postgres,) = parse_qs(parts.query)["host"]
    if os.geteuid() == 0:
        # It does not run as root, and PostgreSQL's socket is its user's alone.
        options += f"\nuser = {SYSTEM_USER}"
    (folder / "users.txt").write_text(f'"pipeline_service" "{SERVICE_PASSWORD}"\n"postgres" ""\n')
    file = folder / "pgbouncer.ini"
    file.write_text(CONFIGURATION.format(postgres=postgres, port=port, folder=folder, options=options))
    async with debian.listening("pgbouncer", "-q", str(file), port=port):
        yield f"postgresql://pipeline_service@127.0.0.1:{port}{parts.path}"


async def check(url: str) -> None:
    """Checks a database as a server does at its start."""
    async with Database.open(url, size=2) as database:
        await database.check()


async def sees_own_jobs(stack: Stack, user: str, expected: set[str]) -> None:
    """Lists a user's jobs, and compares."""
    page = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(user))
    assert {job.id for job in page.jobs} == expected


@debian.needs("pgbouncer")
@pytest.mark.slow
@pytest.mark.parametrize("options", ["", SETTINGS_IGNORED])
async def test_jobs_live_behind_a_pooler(
    database: TestDatabase, admin: asyncpg.Connection, tmp_path: Path, options: str
) -> None:
    """Case 70: with `pgbouncer=true` concurrent calls act as their own callers, and a job runs to its result."""
    async with (
        pgbouncer(database, tmp_path, options) as url,
        open_stack("grpc", f"{url}?pgbouncer=true&schema=public&connection_limit=5&sslmode=prefer", tmp_path) as stack,
    ):
        jobs: dict[str, set[str]] = {}
        for user in (ANN, BOB):
            request = new_request(await insert_dataset(admin, user))
            jobs[user] = {(await stack.jobs.CreateJob(request, metadata=metadata(user))).job.id for _ in range(2)}
        await asyncio.gather(*(sees_own_jobs(stack, user, jobs[user]) for _ in range(25) for user in jobs))
        watch = stack.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(), metadata=metadata(ANN))
        messages = aiter(watch)
        assert (await anext(messages)).HasField("snapshot")
        for _ in range(4):
            (leased,) = await lease(stack)
            await report(stack, leased)
            await complete(stack, leased)
        events = []
        while len(events) < 6:
            message = await anext(messages)
            events += [message.event] if message.HasField("event") else []
        watch.cancel()
        assert {event.job_id for event in events} == jobs[ANN]
        for user, ids in jobs.items():
            for each in ids:
                assert (await get(stack, each, user)).status == jobs_pb2.JOB_STATUS_COMPLETED


@debian.needs("pgbouncer")
@pytest.mark.slow
@pytest.mark.parametrize("options", ["", SETTINGS_IGNORED])
async def test_an_undeclared_pooler_is_reported_at_start(database: TestDatabase, tmp_path: Path, options: str) -> None:
    """Case 70: without `pgbouncer=true` a server ends with a message that says what to add."""
    async with pgbouncer(database, tmp_path, options) as url:
        code, output = await run("jobs_service", environment(url))
        assert code == 2
        assert "add pgbouncer=true to its parameters" in output.splitlines()[-1]


@debian.needs("pgbouncer")
@pytest.mark.slow
async def test_what_a_pooler_cannot_do_is_reported(
    database: TestDatabase, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """Case 70: migrations behind a pooler are refused, and so are servers whose login lacks the session settings."""
    login = f"alter role pipeline_service in database {urlsplit(database.admin_url).path[1:]}"
    async with pgbouncer(database, tmp_path) as url:
        with pytest.raises(NotDirect, match="not a pooler"):
            await migrate(url.replace("pipeline_service", "postgres"), passwords={})
        # As for a proxy that keeps sessions: nothing else is done at once here.
        assert await migrate(f"{url.replace('pipeline_service', 'postgres')}?pgbouncer=false", passwords={}) == []
        await admin.execute(f"{login} set statement_timeout = '1h'")
        try:
            with pytest.raises(ConnectionRefused, match=r"jobs_service migrate.*statement_timeout = 10s"):
                await check(f"{url}?pgbouncer=true")
        finally:
            await admin.execute(f"{login} reset statement_timeout")


@debian.needs("pgbouncer")
@pytest.mark.slow
async def test_a_database_that_is_down_behind_a_pooler_is_waited_for(database: TestDatabase, tmp_path: Path) -> None:
    """Case 70: servers survive PgBouncer's errors while PostgreSQL is down."""
    away = replace(database, admin_url=database.admin_url.replace("host=", "host=/nowhere"))
    async with pgbouncer(away, tmp_path, "query_wait_timeout = 1") as url:
        with pytest.raises(asyncpg.ProtocolViolationError):
            await check(f"{url}?pgbouncer=true")


@pytest.mark.parametrize(
    "parameters",
    [
        "schema=public",
        "pgbouncer=true",
        "pgbouncer=false&connection_limit=5&pool_timeout=10&connect_timeout=3",
        "sslmode=disable",
        "options=-c%20search_path%3Dpublic&application_name=mine",
    ],
)
async def test_parameters_of_orms_are_understood(database: TestDatabase, parameters: str) -> None:
    """Case 70: URLs with parameters of ORMs work."""
    await check(f"{database.url}&{parameters}")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("channel_binding=require", "channel_binding"),
        ("sslmode=required", "sslmode"),
        ("ssl=true", "ssl"),
        ("options=--nonsense", "nonsense"),
        ("work_mem=much", "work_mem"),
    ],
)
async def test_unknown_parameters_are_named(database: TestDatabase, parameters: str, reason: str) -> None:
    """Case 70: an unknown URL parameter ends the start with its name."""
    with pytest.raises(ConnectionRefused, match=f"PIPELINE_DATABASE_URL: .*{reason}"):
        await check(f"{database.url}&{parameters}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "reason"),
    [("schema=app", "schema must be public"), ("pgbouncer=yes", "pgbouncer must be true or false")],
)
async def test_unsupported_parameters_are_refused(parameters: str, reason: str) -> None:
    """Case 70: another schema, and a value that is neither true nor false, are configuration errors."""
    code, output = await run("jobs_service", environment(f"postgresql://pipeline_jobs@localhost/pipeline?{parameters}"))
    assert (code, output) == (2, f"configuration: PIPELINE_DATABASE_URL: {reason}{output.partition(reason)[2]}")
    assert "Traceback" not in output

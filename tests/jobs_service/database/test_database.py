"""Faults in the database (group 15): query plans, statements after a migration, timeouts and deadlocks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import grpc
import pytest
from pipeline.datasets.v1 import datasets_pb2
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2

from jobs_service.database import migrate as migrations
from jobs_service.database.migrate import ROUTINES, SCHEMA, WrongSchema, migrate
from jobs_service.database.rows import as_json
from jobs_service.datasets import store as dataset_store
from jobs_service.jobs import store
from jobs_service.notifications import store as notification_store
from rpc.database.pool import SESSION_SETTINGS, Database
from rpc.database.queries import SQL as SESSION_SQL
from rpc.errors import Conflict, DatabaseUnavailable, DeadlineExceeded, NotOwner
from rpc.identity.model import Identity
from tests.conftest import NewDataset, Stack, TestDatabase, metadata
from tests.databases import SERVICE_PASSWORD
from tests.door import refused
from tests.jobs_service.jobs.test_create_job import new_request
from tests.jobs_service.rows import job_row, new_job
from tests.processes import environment, run

ANN = "aaaaaaaa-0000-4000-8000-000000000001"
CALLER = Identity(ANN, "user", 0)
SQL = {**dataset_store.SQL, **notification_store.SQL, **store.SQL}
# Lists of datasets that wait for a lock. The services' own tasks may wait for it as well.
WAITING = """
select count(*) from pg_stat_activity
where wait_event_type = 'Lock' and datname = current_database() and query like '%strpos(lower(name)%'
"""

# What the services have begun and not ended.
OPEN = """
select query, state, xact_start from pg_stat_activity
where datname = current_database() and usename = 'pipeline_service' and (state <> 'idle' or xact_start is not null)
"""


async def test_every_page_uses_its_owners_index(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """Every list reads its page and total from an index that begins with the owner."""
    await admin.execute(
        "insert into lora_datasets (id, user_id, name) select u, case when n % 50 = 0 then u else v end, 'x' from"
        " (select gen_random_uuid() u, n, gen_random_uuid() v from generate_series(1, 10000) n) s"
    )
    await admin.execute(
        "insert into lora_training_jobs (user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs,"
        """ total_steps, estimated_total_cost, hourly_rate) select id, id, 'fast', '{"batch_size": 4}',"""
        """ '{"type": "H100", "count": 1}', 1, 1, 1, 1 from lora_datasets, generate_series(1, 100) where id = user_id"""
    )
    await admin.execute(
        "insert into lora_notifications (user_id, type, title, message, read)"
        " select user_id, 'job_queued', 'a', 'b', true from lora_training_jobs"
    )
    await admin.execute("vacuum analyze lora_datasets, lora_training_jobs, lora_notifications")
    lists = [
        ("list_datasets", "lora_datasets", [["ready"], 10, 0, ""]),
        ("list_datasets", "lora_datasets", [["ready"], 10, 0, "question"]),
        ("list_notifications", "lora_notifications", [False, 10, 0]),
        ("list_notifications", "lora_notifications", [True, 10, 0]),
    ]
    async with Database.open(database.url, size=1) as pool, pool.as_caller(CALLER) as connection:
        plans = [
            (table, [line[0] for line in await connection.fetch("explain " + SQL[name], *arguments)])
            for name, table, arguments in lists
        ]
        for table, plan in plans:
            text = "\n".join(plan)
            assert len(re.findall(rf"Index .*{table}_(list|unread)_idx", text)) >= 2, text
            assert text.count("Index Cond: (user_id = ") >= 2, text
            assert f"Seq Scan on {table}" not in text, text


USUAL = ["queued", "completed"], [], None, "", "created", False, 10, 0
FILTERED = ["queued", "completed"], ["a"], "llama-3.1-8b", "x", "cost", True, 10, 20


async def test_lists_and_creation_do_not_read_all_jobs(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """With 1,000 own jobs and 10,000 of others, listing and creating jobs read at most a page outside of the owner's index."""
    await admin.execute(
        "insert into lora_datasets (id, user_id, name, status, training_ready) select id, id, 'x', 'ready', true from"
        f" (select '{ANN}'::uuid union all select gen_random_uuid() from generate_series(1, 100)) u (id)"
    )
    await admin.execute(
        "insert into lora_training_jobs (user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs,"
        " total_steps, estimated_total_cost, hourly_rate, status, completed_at, labels, base_model, model_family,"
        """ forecast_seconds) select id, id, 'fast', '{"batch_size": 4}', '{"type": "H100", "count": 1}', 1, 1, 1, 1,"""
        " case when n % 100 = 0 then 'queued' else 'completed' end, case when n % 100 = 0 then null else now() end, '{a}',"
        " 'llama-3.1-8b', 'x', 1"
        f" from lora_datasets, generate_series(1, 1000) n where id = '{ANN}' or n <= 100"
    )
    await admin.execute("vacuum analyze lora_datasets, lora_training_jobs")
    job = as_json(new_job(ANN))
    for name, arguments in (("list_jobs", USUAL), ("list_jobs", FILTERED), ("create_job", (job, 1000, ""))):
        # The sixth time, PostgreSQL may use a plan that serves any argument.
        for _ in range(6):
            plan = "\n".join(await plans_inside(admin, SQL[name], ANN, *arguments))
        assert "Seq Scan on lora_training_jobs" not in plan, plan
        assert "Index Cond: (user_id = " in plan, plan
        assert max(int(loops) for loops in re.findall(r"loops=(\d+)", plan)) <= 30, plan


async def plans_inside(admin: asyncpg.Connection, statement: str, *arguments: Any) -> list[str]:
    """The plans of what a function runs, as the services' login runs it."""
    plans: list[str] = []

    def keep(_: Any, message: Any) -> None:
        plans.append(message.message)

    admin.add_log_listener(keep)
    await admin.execute("load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_analyze = on")
    await admin.execute("set auto_explain.log_nested_statements = on; set client_min_messages = log")
    await admin.execute("set session authorization pipeline_service")
    try:
        await admin.fetch(statement, *arguments)
    finally:
        admin.remove_log_listener(keep)
        await admin.execute("reset session authorization; set auto_explain.log_min_duration = -1")
    return plans


@pytest.mark.parametrize(
    "statement",
    [
        """job_events (job_id, user_id, revision, type, status, data)
        values (gen_random_uuid(), (select caller_id()), 1, 'queued', 'queued', '{}')""",
        """lora_notifications (user_id, type, title, message, metadata)
        values ((select caller_id()), 'x', 'x', 'x', jsonb_build_object('job_id', gen_random_uuid()))""",
    ],
    ids=["event", "notification"],
)
async def test_a_policy_finds_a_job_by_its_id(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset, statement: str
) -> None:
    """Policies check a row about a job with one index look-up, also before a table has statistics."""
    dataset = await new_dataset(ANN)
    for _ in range(2):
        async with Database.open(database.url, size=1) as pool, pool.as_caller(Identity(ANN, "user", 0)) as connection:
            plan = "\n".join(row[0] for row in await connection.fetch(f"explain insert into {statement}"))
        assert "lora_training_jobs_pkey on lora_training_jobs" in plan, plan
        for _ in range(200):
            await job_row(admin, dataset, ANN, "queued")


# A change of a queued job that breaks each condition of check_job.sql, by the condition's name.
BROKEN_JOBS = {
    "request": "idempotency_key = gen_random_uuid()",
    "preset": "preset_id = 'x'",
    "priority": "priority = 10",
    "limits": "max_cost_usd = 'NaN'",
    "status": "status = 'x'",
    "reason": "status_reason = 'x'",
    "attempt": "attempt = max_attempts + 1",
    "position": "current_step = total_steps + 1, progress = 101",
    "progress": "progress = 101",
    "final": "completed_at = now()",
    "lease": "lease_expires_at = now()",
    "money": "estimated_total_cost = 'NaN'",
    "final_cost": "final_cost = 1",
    "peak_memory": "peak_memory_gib = 0",
    "checkpoint": "checkpoint_uri = 'x'",
    "result": "result_step = total_steps + 1",
    "forecast": "forecast_seconds = 1",
    "reforecast": "reforecast = '[]'",
    "slopes": "forecast_slopes = array_fill(1, array[101])",
    "label": "labels = array_fill('x'::text, array[21])",
    "deleted": "deleted_at = now()",
}


async def test_no_job_breaks_a_condition(admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """Each condition refuses inserts and updates that break it, with its name."""
    text = Path(migrations.__file__).parent.joinpath("routines", "check_job.sql").read_text()
    assert re.findall(r"then '(\w+)'", text) == list(BROKEN_JOBS)
    dataset = await new_dataset(ANN)
    job = await job_row(admin, dataset, ANN, "queued")
    await admin.execute("alter table lora_training_jobs disable trigger change_job")
    for name, change in BROKEN_JOBS.items():
        with pytest.raises(asyncpg.CheckViolationError) as error:
            await admin.execute(f"update lora_training_jobs set {change} where id = $1", job)
        assert error.value.constraint_name == f"lora_training_jobs_{name}_check"
    with pytest.raises(asyncpg.CheckViolationError):
        await job_row(admin, dataset, ANN, "queued", priority=10)


@pytest.mark.slow
async def test_a_database_of_an_unreleased_version_is_refused(
    admin: asyncpg.Connection, database: TestDatabase
) -> None:
    """A database made from other schema files is refused in one line that says what to do."""
    command = ["migrate"]
    variables = environment(database.admin_url, PIPELINE_SERVICE_PASSWORD=SERVICE_PASSWORD, PIPELINE_LOG_LEVEL="error")
    await admin.execute("update pipeline_internal.steps set digest = 'x' where name = 'schema/jobs'")
    code, said = await run("jobs_service", variables, *command)
    assert (code, said.count("\n")) == (2, 1), said
    assert "schema/jobs.sql" in said
    assert ".pipeline" in said
    await admin.execute("create table pipeline_internal.migrations (number int)")
    code, said = await run("jobs_service", variables, *command)
    assert (code, said.count("\n")) == (2, 1), said
    assert "unreleased version" in said
    assert ".pipeline" in said


async def test_a_database_of_a_newer_version_is_refused(admin: asyncpg.Connection, database: TestDatabase) -> None:
    """A database with unknown steps is not changed."""
    await admin.execute("insert into pipeline_internal.steps (name, digest) values ('schema/later', 'x')")
    try:
        with pytest.raises(WrongSchema, match="newer version, with schema/later"):
            await migrate(database.admin_url, passwords={})
    finally:
        # The next test may get this database.
        await admin.execute("delete from pipeline_internal.steps where name = 'schema/later'")


async def test_migrate_applies_what_is_missing(admin: asyncpg.Connection, database: TestDatabase) -> None:
    """Missing schema files are applied, then the routines; a second run changes nothing."""
    await admin.execute(
        "drop table lora_quotes cascade; delete from pipeline_internal.steps where name = 'schema/quotes'"
    )
    assert await migrate(database.admin_url, passwords={"service": SERVICE_PASSWORD}) == ["schema/quotes", "routines"]
    assert await migrate(database.admin_url, passwords={"service": SERVICE_PASSWORD}) == []
    await admin.execute("update pipeline_internal.steps set digest = 'older' where name = 'routines'")
    assert await migrate(database.admin_url, passwords={"service": SERVICE_PASSWORD}) == ["routines"]


async def test_idle_transactions_have_a_timeout(database: TestDatabase) -> None:
    """The migration sets a timeout for idle transactions of all sessions, and keeps an existing one."""

    async def limit() -> str:
        connection = await asyncpg.connect(database.admin_url)
        try:
            return str(await connection.fetchval("show idle_in_transaction_session_timeout"))
        finally:
            await connection.close()

    await migrate(database.admin_url, passwords={})
    assert await limit() == SESSION_SETTINGS["idle_in_transaction_session_timeout"] == "30s"
    connection = await asyncpg.connect(database.admin_url)
    name = await connection.fetchval("select current_database()")
    await connection.execute(f"alter database {name} set idle_in_transaction_session_timeout = '5s'")
    await connection.close()
    await migrate(database.admin_url, passwords={})
    assert await limit() == "5s"


async def test_every_schema_file_is_applied() -> None:
    """The lists of schema files and routines are complete."""
    for folder, names in (("schema", SCHEMA), ("routines", ROUTINES)):
        assert sorted(path.stem for path in Path(migrations.__file__).parent.joinpath(folder).glob("*.sql")) == sorted(
            names
        )


async def test_servers_survive_a_migration(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """S12: servers with prepared statements serve every call after a column was added."""
    dataset = await new_dataset(ANN)
    job = new_request(dataset)
    question = estimator_pb2.EstimateCostRequest(
        dataset_id=dataset, gpu_config=job.gpu_config, hyperparameters=job.hyperparameters
    )
    calls: list[Callable[[], Any]] = [
        lambda: stack.jobs.CreateJob(job, metadata=metadata(ANN)),
        lambda: stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(ANN)),
        lambda: stack.datasets.GetDataset(datasets_pb2.GetDatasetRequest(id=dataset), metadata=metadata(ANN)),
        lambda: stack.datasets.ListDatasets(datasets_pb2.ListDatasetsRequest(), metadata=metadata(ANN)),
        lambda: stack.notifications.ListNotifications(
            notifications_pb2.ListNotificationsRequest(), metadata=metadata(ANN)
        ),
        lambda: stack.estimator.EstimateCost(question, metadata=metadata(ANN)),
    ]
    for number in range(3):
        for call in calls:
            await call()
        for table in ("lora_datasets", "lora_training_jobs", "lora_notifications"):
            await admin.execute(f"alter table {table} add column later_{number} text default 'x'")
        for call in calls:
            await call()


async def test_only_a_first_statement_is_run_again(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """S12: a stale statement later in a transaction rolls it back, and the caller gets CONFLICT."""
    statement = "select * from lora_notifications"
    write = "insert into lora_notifications (user_id, type, title, message) values ($1, 'a', 'b', 'c')"
    async with Database.open(database.url, size=1) as pool:
        async with pool.as_caller(CALLER) as connection:
            await connection.fetch(statement)
        await admin.execute("alter table lora_notifications add column later text")
        with pytest.raises(Conflict):
            async with pool.as_caller(CALLER) as connection:
                await connection.execute(write, ANN)
                await connection.fetch(statement)
        assert await admin.fetchval("select count(*) from lora_notifications") == 0
        async with pool.as_caller(CALLER) as connection:
            await connection.execute(write, ANN)
            assert len(await connection.fetch(statement)) == 1


@pytest.mark.parametrize(
    ("setting", "error", "row"),
    [("statement_timeout", DeadlineExceeded, "S07 statement"), ("lock_timeout", Conflict, "S07 lock")],
)
async def test_statements_and_locks_have_timeouts(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset, setting: str, error: type, row: str
) -> None:
    """S07: a statement or a lock that takes too long ends with a clear error."""
    assert {"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} <= set(SESSION_SETTINGS)
    await new_dataset(ANN)
    async with Database.open(database.url, size=1) as pool, admin.transaction():
        # A server has compared the policies before it serves, which waits for such a lock.
        await pool.check()
        await admin.execute("lock table lora_notifications")
        with pytest.raises(error):
            async with pool.as_caller(CALLER) as connection:
                await connection.execute(f"set local {setting} = '50ms'")
                await connection.fetch("select * from lora_notifications")


async def test_a_deadlock_and_a_race_are_conflicts(database: TestDatabase, new_dataset: NewDataset) -> None:
    """S07: the transaction that Postgres aborts gets CONFLICT; the other one commits."""
    await new_dataset(ANN)
    met, outcomes = asyncio.Barrier(2), []

    async def lock(pool: Database, first: int, second: int) -> None:
        try:
            async with pool.as_caller(CALLER) as connection:
                await connection.execute("set local deadlock_timeout = '100ms'") if first == 0 else None
                await connection.execute(f"select pg_advisory_xact_lock({first})")
                await met.wait()
                await connection.execute(f"select pg_advisory_xact_lock({second})")
            outcomes.append("ok")
        except Conflict:
            outcomes.append("conflict")

    async with Database.open(database.url, size=2) as pool:
        await asyncio.gather(lock(pool, 1, 2), lock(pool, 2, 1))
    assert sorted(outcomes) == ["conflict", "ok"]


@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_a_call_that_loses_a_deadlock_is_repeated(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """S07: the server repeats a call whose transaction lost a deadlock, and exactly one job is created."""
    dataset = await new_dataset(ANN)
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    before = await admin.fetchval(deadlocks)
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    async with asyncio.timeout(20):
        # Whoever looks first is ended, and that shall be the server.
        await admin.execute("set deadlock_timeout = '10s'; begin")
        await admin.execute("select from lora_datasets where id = $1 for update", dataset)
        creating = asyncio.ensure_future(stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN)))
        while not await admin.fetchval(waiting):
            await admin.execute("select pg_stat_clear_snapshot()")
        await admin.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"jobs of {ANN}")
        await admin.execute("commit")
        await creating
        while await admin.fetchval(deadlocks) == before:
            await asyncio.sleep(0.05)
    assert await admin.fetchval("select count(*) from lora_training_jobs") == 1
    assert await admin.fetchval("select count(*) from lora_notifications") == 1


async def test_an_empty_pool_is_unavailable_in_time(
    database: TestDatabase, new_dataset: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L03: a call that gets no connection in time is UNAVAILABLE, also at sign-in; the next one is served."""
    monkeypatch.setattr("rpc.database.pool.ACQUIRE_TIMEOUT_SECONDS", 0.2)
    async with Database.open(database.url, size=1) as pool:
        async with pool.as_caller(CALLER):
            with pytest.raises(DatabaseUnavailable):
                async with pool.as_caller(CALLER):
                    raise AssertionError("a second connection of one")
            with pytest.raises(DatabaseUnavailable):
                await pool.is_disabled(ANN)
        assert not await pool.is_disabled(ANN)


async def test_a_busy_pool_is_no_unavailable_database(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """S06: the health check waits for a connection while calls use all of them."""
    monkeypatch.setattr("rpc.database.pool.HEALTH_INTERVAL_SECONDS", 0.05)
    result: asyncio.Queue[bool] = asyncio.Queue()
    async with Database.open(database.url, size=1) as pool, asyncio.timeout(20):
        watching = asyncio.create_task(pool.watch(result.put))
        assert await result.get()
        async with pool.as_caller(CALLER):
            for _ in range(4):
                with monkeypatch.context() as impatient, pytest.raises(DatabaseUnavailable):
                    impatient.setattr("rpc.database.pool.ACQUIRE_TIMEOUT_SECONDS", 0.05)
                    await pool.is_disabled(ANN)
        assert not await pool.is_disabled(ANN)
        assert result.empty()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_connection_is_used_again_without_a_round_trip(
    database: TestDatabase, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is reset only after a failed call; the next call gets a clean connection."""
    resets: list[str] = []
    execute = asyncpg.Connection.execute

    async def counted(connection: Any, statement: str, *arguments: Any, **options: Any) -> Any:
        resets.append(statement)
        return await execute(connection, statement, *arguments, **options)

    async with Database.open(database.url, size=1) as pool:
        await pool.check()
        monkeypatch.setattr(asyncpg.Connection, "execute", counted)
        assert not await pool.is_disabled(ANN)
        assert resets == []
        with pytest.raises(asyncpg.DivisionByZeroError):
            await pool.fetch_as_service("select 1 / 0")
        assert resets == [SESSION_SQL["settle"]]
        with pytest.raises(ZeroDivisionError):
            async with pool.as_caller(CALLER):
                raise ZeroDivisionError
        assert resets[-1] == SESSION_SQL["rollback"]
        assert await admin.fetch(OPEN) == []


async def test_a_connection_that_postgres_ended_is_replaced(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """S02: PostgreSQL ends a session between two calls; the second call gets another session."""
    async with Database.open(database.url, size=1) as pool, asyncio.timeout(10):
        [row] = await pool.fetch_as_service("select pg_backend_pid() pid")
        assert await admin.fetchval("select pg_terminate_backend($1)", row["pid"])
        while pool._pool.get_size():
            await asyncio.sleep(0.01)
        [other] = await pool.fetch_as_service("select pg_backend_pid() pid")
        assert other["pid"] != row["pid"]


async def test_a_statement_that_was_only_prepared_leaves_nothing_open(
    database: TestDatabase, admin: asyncpg.Connection
) -> None:
    """D06: a call cancelled between preparing and running a statement leaves no lock and no old now()."""
    async with Database.open(database.url, size=1) as pool:
        await pool.check()
        with pytest.raises(asyncpg.DataError):
            await pool.is_disabled("no UUID, which shows once the statement's parameters are known")
        assert await admin.fetch(OPEN) == []


async def test_a_query_ends_with_its_caller(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """D01: when a caller disconnects, its query is cancelled on Postgres and the connection is reused."""
    await new_dataset(ANN)
    async with admin.transaction():
        await admin.execute("lock table lora_datasets")
        calls = [
            asyncio.ensure_future(
                _answer(stack.datasets.ListDatasets(datasets_pb2.ListDatasetsRequest(), metadata=metadata(ANN)))
            )
            for _ in range(2)
        ]
        async with asyncio.timeout(10):
            while await admin.fetchval(WAITING) < 2:
                await asyncio.sleep(0.02)
                await admin.execute("select pg_stat_clear_snapshot()")
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        async with asyncio.timeout(5):
            while await admin.fetchval(WAITING):
                await asyncio.sleep(0.02)
                await admin.execute("select pg_stat_clear_snapshot()")
        # Their connections are free again while the table is still locked.
        answers = [
            stack.notifications.ListNotifications(
                notifications_pb2.ListNotificationsRequest(), metadata=metadata(ANN), timeout=5
            )
            for _ in range(2)
        ]
        assert len(await asyncio.gather(*map(_answer, answers))) == 2


async def _answer(call: Any) -> Any:
    return await call


async def test_a_deadline_ends_the_query_too(stack: Stack, admin: asyncpg.Connection) -> None:
    """D01, G09: at a call's deadline its query is cancelled on Postgres."""
    request = datasets_pb2.ListDatasetsRequest()
    await stack.datasets.ListDatasets(request, metadata=metadata(ANN))
    async with admin.transaction():
        await admin.execute("lock table lora_datasets")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stack.datasets.ListDatasets(request, metadata=metadata(ANN), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            while await admin.fetchval(WAITING):
                await asyncio.sleep(0.02)
                await admin.execute("select pg_stat_clear_snapshot()")


async def test_an_unknown_constraint_error_is_internal(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """An unknown constraint error is INTERNAL, without the constraint's name or the statement."""
    dataset = await new_dataset(ANN)
    await admin.execute("alter table lora_training_jobs add constraint surprise check (gpu_count <> 2)")
    error = await refused(stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN)))
    assert (error.code, error.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "surprise" not in str(error)


@pytest.mark.parametrize(
    ("first", "role"), [("pipeline_service", "user"), ("pipeline_jobs", "user"), ("pipeline_estimator", "quoter")]
)
async def test_a_second_login_has_the_same_access(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset, first: str, role: str
) -> None:
    """A member role of a login has the same access, so passwords can be rotated."""
    login = f"second_{uuid4().hex}"
    await admin.execute(f"create role {login} login password 'another-password' in role {first}")
    parts = urlsplit(database.url)
    url = parts._replace(netloc=f"{login}:another-password@{parts.netloc.rpartition('@')[2]}").geturl()
    await new_dataset(CALLER.user_id)
    await new_dataset(str(uuid4()))
    try:
        async with Database.open(url, size=1) as pool:
            await pool.check()
            assert not await pool.is_disabled(CALLER.user_id)
            async with pool.as_caller(CALLER, role=role) as connection:
                assert await connection.fetchval("select count(id) from lora_datasets") == 1
            with pytest.raises(NotOwner):
                await pool.fetch_as_service("select id from lora_datasets")
    finally:
        await admin.execute(f"drop role {login}")

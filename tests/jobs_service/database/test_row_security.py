"""Row-level security: callers see and change only their own rows, whatever the services do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from jobs_service.database.rows import as_json
from jobs_service.jobs.store import SQL
from rpc.database.errors import GuardError
from rpc.database.pool import Database
from rpc.database.transaction import Transaction
from rpc.errors import DatabaseUnavailable, DeadlineExceeded, NotOwner
from rpc.identity.model import Identity
from tests.conftest import NewDataset, TestDatabase
from tests.jobs_service.rows import job_row, new_job
from tests.processes import environment, run

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


# Queued jobs, newest first.
PAGE = ["queued"], [], None, "", "created", False, 10, 0


async def guard(database: TestDatabase) -> None:
    """Runs the check that every server runs before it serves."""
    async with Database.open(database.url, size=1) as pool:
        await pool.check()


async def test_every_table_is_guarded(database: TestDatabase) -> None:
    """Z12: every table forces row-level security, and every policy has a WITH CHECK."""
    await guard(database)


HARM = [
    "alter table lora_training_jobs no force row level security",
    "alter table lora_datasets disable row level security",
    "create table lora_extra (id int)",
    "create policy open on lora_datasets for update to pipeline_user using (true)",
    "alter table lora_notifications owner to pipeline_service",
    "alter role pipeline_service bypassrls",
    "drop policy own_jobs on lora_training_jobs",
    "create view everything as select * from lora_datasets",
    "create materialized view everything as select * from lora_datasets",
    "create function everything() returns bigint language sql security definer as 'select count(*) from lora_datasets'",
]


@pytest.fixture(autouse=True)
async def roles(admin: asyncpg.Connection) -> AsyncIterator[None]:
    """Restores roles after a test: they belong to the cluster."""
    yield
    await admin.execute("alter role pipeline_service nobypassrls")


@pytest.mark.parametrize("harm", HARM)
async def test_no_server_starts_on_a_database_that_leaks(
    database: TestDatabase, admin: asyncpg.Connection, harm: str
) -> None:
    """Z12: a table without forced row-level security, a policy without a check or an owner's login is refused."""
    await admin.execute(harm)
    with pytest.raises(GuardError):
        await guard(database)


async def test_an_administrator_is_not_a_login_for_services(database: TestDatabase) -> None:
    """Z12: a login that row-level security does not bind is refused."""
    async with Database.open(database.admin_url, size=1) as pool:
        with pytest.raises(GuardError):
            await pool.check()


@pytest.mark.parametrize("claims", ["", "{}", "null", "[]", "no json", '{"sub":"x"}', '{"sub":null}'])
async def test_malformed_claims_see_nothing(database: TestDatabase, new_dataset: NewDataset, claims: str) -> None:
    """Z07: claims without a user give no rows or an error."""
    await new_dataset(ANN)
    connection = await asyncpg.connect(database.url)
    try:
        async with connection.transaction():
            await connection.execute("select set_config('role', 'pipeline_user', true)")
            await connection.execute("select set_config('request.jwt.claims', $1, true)", claims)
            assert await connection.fetch("select * from lora_datasets") == []
    except asyncpg.DataError:
        pass
    finally:
        await connection.close()


async def test_a_row_cannot_change_its_owner(database: TestDatabase, new_dataset: NewDataset) -> None:
    """Z10: a caller can neither insert a row for another user nor give a row to one."""
    await new_dataset(ANN)
    async with Database.open(database.url, size=1) as pool:
        for statement in (
            f"insert into lora_notifications (user_id, type, title, message) values ('{BOB}', 'a', 'b', 'c')",
            f"update lora_training_jobs set user_id = '{BOB}'",
        ):
            with pytest.raises(NotOwner):
                async with pool.as_caller(Identity(ANN, "user", 0)) as connection:
                    try:
                        await connection.execute(statement)
                    except asyncpg.InsufficientPrivilegeError as error:
                        raise NotOwner(str(error)) from error


async def error(connection: Transaction) -> None:
    """A bug."""
    raise ZeroDivisionError


async def bad_statement(connection: Transaction) -> None:
    """A statement that Postgres refuses."""
    await connection.fetch("select no_such_column from lora_datasets")


async def rolled_back(connection: Transaction) -> None:
    """Rolled back by hand."""
    await connection.execute("rollback")


async def cancelled(connection: Transaction) -> None:
    """Its caller went away."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.05, task.cancel)
    try:
        await connection.fetch("select pg_sleep(30)")
    finally:
        task.uncancel()


async def timed_out(connection: Transaction) -> None:
    """Its caller waits no longer."""
    async with asyncio.timeout(0.05):
        await connection.fetch("select pg_sleep(30)")


async def statement_timed_out(connection: Transaction) -> None:
    """Postgres waits no longer."""
    await connection.execute("set local statement_timeout = '50ms'")
    await connection.fetch("select pg_sleep(30)")


async def fine(connection: Transaction) -> None:
    """It commits."""
    await connection.fetch("select 1")


@pytest.mark.parametrize(
    "how",
    [error, bad_statement, rolled_back, cancelled, timed_out, statement_timed_out, fine],
    ids=lambda how: how.__name__,
)
async def test_no_caller_survives_its_transaction(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset, how: Callable[[Transaction], Any]
) -> None:
    """Z08, D01: however a transaction ends, its query ends and its connection has no caller and is reused."""
    await new_dataset(ANN)
    async with Database.open(database.url, size=1) as pool:
        try:
            async with pool.as_caller(Identity(ANN, "user", 0)) as connection:
                assert await connection.fetchval("select count(*) from lora_datasets") == 1
                first = await connection.fetchval("select pg_backend_pid()")
                await how(connection)
        except (
            ZeroDivisionError,
            asyncpg.UndefinedColumnError,
            asyncio.CancelledError,
            DatabaseUnavailable,
            DeadlineExceeded,
        ):
            pass
        assert (
            await admin.fetchval(
                "select count(*) from pg_stat_activity where query like '%pg_sleep(30)' and state = 'active'"
            )
            == 0
        )
        async with pool._connection() as connection:
            assert await connection.fetchval("select current_user") == "pipeline_service"
            assert not await connection.fetchval("select current_setting('request.jwt.claims', true)")
            assert await connection.fetchval("select pg_backend_pid()") == first
        async with pool.as_caller(Identity(BOB, "user", 0)) as connection:
            assert await connection.fetchval("select count(*) from lora_datasets") == 0


async def test_functions_that_set_the_caller_obey_the_policies(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Z08: functions that set the caller obey its policies, and the caller ends with the transaction."""
    dataset = await new_dataset(ANN)
    await job_row(admin, dataset, ANN, "queued")
    page = SQL["list_jobs"], *PAGE
    async with Database.open(database.url, size=1) as pool:

        async def is_nobodys() -> None:
            async with pool._connection() as connection:
                assert await connection.fetchval("select current_user") == "pipeline_service"
                assert not await connection.fetchval("select current_setting('request.jwt.claims', true)")

        for user, counts in ((ANN, '{"queued": 1}'), (BOB, None), (ANN, '{"queued": 1}')):
            (row, *_) = await pool.call_as(Identity(user, "user", 0), *page)
            assert row["status_counts"] == counts
            await is_nobodys()
        with pytest.raises(asyncpg.CheckViolationError):
            job = as_json(new_job(dataset, preset_id="no preset"))
            await pool.call_as(Identity(ANN, "user", 0), SQL["create_job"], job, 10, "")
        await is_nobodys()
        await admin.execute("drop policy own_jobs on lora_training_jobs")
        (row,) = await pool.call_as(Identity(ANN, "user", 0), *page)
        assert (row["status_counts"], row["id"]) == (None, None)


async def test_a_login_without_the_callers_role_sees_nothing(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Z09: a login without a caller's role cannot begin a transaction as that caller."""
    await new_dataset(ANN)
    async with Database.open(database.url, size=1) as pool:
        await pool.check()
        await admin.execute("revoke pipeline_user from pipeline_jobs")
        try:
            with pytest.raises(GuardError):
                async with pool.as_caller(Identity(ANN, "user", 0)):
                    raise AssertionError("the body was run")
            with pytest.raises(GuardError):
                await pool.call_as(Identity(ANN, "user", 0), SQL["list_jobs"], *PAGE)
        finally:
            await admin.execute("grant pipeline_user to pipeline_jobs")
        async with pool.as_caller(Identity(ANN, "user", 0)) as connection:
            assert await connection.fetchval("select count(*) from lora_datasets") == 1


@pytest.mark.parametrize("harm", HARM)
async def test_nothing_is_served_before_the_database_is_checked(
    database: TestDatabase, admin: asyncpg.Connection, harm: str
) -> None:
    """Z12: the first transaction of a process checks the database, even before the periodic check."""
    await admin.execute(harm)
    async with Database.open(database.url, size=1) as pool:
        with pytest.raises(GuardError):
            async with pool.as_caller(Identity(ANN, "user", 0)):
                raise AssertionError("the body was run")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["estimator_service", "jobs_service"])
async def test_a_server_refuses_to_start_on_a_database_that_leaks(
    database: TestDatabase, admin: asyncpg.Connection, module: str
) -> None:
    """Z12: an owner's login, and a table without forced row-level security, end the process with code 2 and one line."""
    code, said = await run(module, environment(database.admin_url, PIPELINE_LOG_LEVEL="error"))
    assert (code, said) == (2, f"{module}: row-level security does not apply to the login of PIPELINE_DATABASE_URL\n")
    await admin.execute(HARM[0])
    code, said = await run(module, environment(database.url, PIPELINE_LOG_LEVEL="error"))
    assert (code, said.count("\n"), "lora_training_jobs" in said) == (2, 1, True), said


async def test_a_trainer_has_the_access_that_leasing_needs(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """A trainer sees queued jobs and its own ones, and writes only about its own."""
    trainer = Identity("eeeeeeee-0000-4000-8000-000000000001", "worker", 0)
    dataset = await new_dataset(ANN)
    queued, theirs, done = [await job_row(admin, dataset, ANN, state) for state in ("queued", "running", "completed")]
    mine = await job_row(admin, dataset, ANN, "running")
    await admin.execute("update lora_training_jobs set worker_id = $1 where id = $2", trainer.user_id, mine)
    event = (
        "insert into job_events (job_id, user_id, revision, type, status, data)"
        " values ('{}', '{}', 0, 'progress', 'running', '{{}}')"
    )
    note = (
        "insert into lora_notifications (user_id, type, title, message, metadata)"
        " values ('{1}', 'a', 'b', 'c', '{{\"job_id\": \"{0}\"}}')"
    )
    async with Database.open(database.url, size=1) as pool:
        async with pool.as_caller(trainer) as connection:
            seen = await connection.fetch("select id from lora_training_jobs")
            assert {row["id"] for row in seen} == {queued, mine}
            assert len(await connection.fetch("select id, name from lora_datasets")) == 1
            await connection.execute(event.format(mine, ANN))
            await connection.execute(note.format(mine, ANN))
            changed = await connection.execute("update lora_training_jobs set progress = 1 where id = $1", theirs)
            assert changed == "UPDATE 0"
        for statement in (
            event.format(queued, ANN),
            event.format(theirs, ANN),
            event.format(mine, BOB),
            note.format(theirs, ANN),
            note.format(mine, BOB),
            f"update lora_training_jobs set worker_id = gen_random_uuid() where id = '{mine}'",
            f"update lora_training_jobs set user_id = '{BOB}' where id = '{mine}'",
            f"update lora_training_jobs set hourly_rate = 0 where id = '{mine}'",
            "select client_estimated_cost from lora_training_jobs",
            "select * from lora_notifications",
            "select * from job_events",
            "select storage_path, description from lora_datasets",
            f"delete from lora_training_jobs where id = '{mine}'",
        ):
            with pytest.raises(NotOwner):
                async with pool.as_caller(trainer) as connection:
                    await connection.execute(statement)
    assert done


async def test_an_owner_can_only_cancel_a_job(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """With any statement, an owner's role can neither complete a job, change its cost nor act as a trainer."""
    running = await job_row(admin, await new_dataset(ANN), ANN, "running")
    await admin.execute("update lora_training_jobs set current_step = 5")
    ann = Identity(ANN, "user", 0)
    async with Database.open(database.url, size=1) as pool:
        for statement, error in (
            ("status = 'completed', completed_at = now(), lease_expires_at = null", asyncpg.CheckViolationError),
            ("status = 'queued', lease_expires_at = null", asyncpg.CheckViolationError),
            ("hourly_rate = 0", NotOwner),
            ("max_cost_usd = 1e9", NotOwner),
            ("lease_token = gen_random_uuid()", NotOwner),
            ("worker_id = gen_random_uuid()", NotOwner),
            ("user_id = gen_random_uuid()", NotOwner),
        ):
            with pytest.raises(error):
                async with pool.as_caller(ann) as connection:
                    await connection.execute(f"update lora_training_jobs set {statement} where id = '{running}'")
        async with pool.as_caller(Identity(BOB, "user", 0)) as connection:
            for table in ("lora_training_jobs", "job_events", "job_metrics", "cost_records", "job_details"):
                assert await connection.fetch(f"select * from {table}") == [], table
        with pytest.raises(NotOwner):
            async with pool.as_caller(ann) as connection:
                await connection.fetch("select * from trainer_offers")


async def test_no_token_has_the_system_role() -> None:
    """No token can have the system role, and no RPC allows it."""
    from rpc.identity.tokens import ROLES

    for role in ("system", "sender"):
        assert role not in ROLES
        assert role not in ROLES.values()


@pytest.mark.parametrize(
    ("login", "roles"),
    [
        ("estimator", {"quoter"}),
        ("jobs", {"user", "worker", "system"}),
        ("webhooks", {"sender"}),
        ("service", {"user", "quoter", "worker", "system", "sender"}),
    ],
)
async def test_a_login_has_the_roles_that_its_process_needs(
    admin: asyncpg.Connection, login: str, roles: set[str]
) -> None:
    """The Estimator's login cannot act on jobs, webhooks and keys, and no login can act as the triggers' role."""
    await admin.execute(f"set session authorization pipeline_{login}")
    possible = set()
    for role in ("user", "quoter", "worker", "system", "sender", "outbox"):
        try:
            await admin.execute(f"set role pipeline_{role}")
            possible.add(role)
        except asyncpg.InsufficientPrivilegeError:
            pass
    await admin.execute("reset session authorization")
    assert possible == roles


async def test_only_the_services_call_functions_that_set_the_caller(admin: asyncpg.Connection) -> None:
    """Other logins cannot call the functions that act as any user."""
    rows = await admin.fetch(
        r"""
        select p.proname, r.rolname, has_function_privilege(r.oid, p.oid, 'execute') as may
        from pg_proc p, pg_roles r
        where p.proname in ('list_jobs', 'create_job', 'get_dataset') and r.rolname like 'pipeline\_%'
        """
    )
    assert {(row["proname"], row["rolname"]) for row in rows if row["may"]} == {
        *((function, "pipeline_service") for function in ("list_jobs", "create_job", "get_dataset")),
        ("list_jobs", "pipeline_jobs"),
        ("create_job", "pipeline_jobs"),
        ("get_dataset", "pipeline_estimator"),
    }

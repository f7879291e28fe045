"""Row-level security: whatever the code above does, rows are their owner's."""

from __future__ import annotations

import asyncpg
import pytest

from rpc.database import Database, GuardError
from rpc.errors import NotOwner
from rpc.identity import Identity
from tests.conftest import NewDataset, TestDatabase

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


async def guard(database: TestDatabase) -> None:
    """What every server asks before it serves."""
    async with Database.open(database.url, size=1) as pool:
        await pool.check()


async def test_every_table_is_guarded(database: TestDatabase) -> None:
    """Z12: on the migrated database, every table forces row-level security and every policy checks what is written."""
    await guard(database)


@pytest.mark.parametrize(
    "harm",
    [
        "alter table lora_training_jobs no force row level security",
        "alter table lora_datasets disable row level security",
        "create table lora_extra (id int)",
        "create policy open on lora_datasets for update to pipeline_user using (true)",
        "alter table lora_notifications owner to pipeline_service",
    ],
)
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
async def test_odd_claims_see_nothing(database: TestDatabase, new_dataset: NewDataset, claims: str) -> None:
    """Z07: claims that name nobody give no row or an error, never all rows."""
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


async def test_a_row_cannot_change_hands(database: TestDatabase, new_dataset: NewDataset) -> None:
    """Z10: neither inserting for another nor moving a row to another owner is let through."""
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


async def test_no_identity_survives_its_transaction(database: TestDatabase, new_dataset: NewDataset) -> None:
    """Z08: after an error or a commit, the same connection is nobody's again."""
    await new_dataset(ANN)
    async with Database.open(database.url, size=1) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.as_caller(Identity(ANN, "user", 0)) as connection:
                assert await connection.fetchval("select count(*) from lora_datasets") == 1
                raise ZeroDivisionError
        async with pool.as_caller(Identity(BOB, "user", 0)) as connection:
            assert await connection.fetchval("select count(*) from lora_datasets") == 0
        async with pool._pool.acquire() as connection:
            assert await connection.fetchval("select current_user") == "pipeline_service"
            assert not await connection.fetchval("select current_setting('request.jwt.claims', true)")


async def test_a_page_uses_the_owners_index(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """A page and its total come from an index led by the owner, however many rows others have."""
    from jobs_service.store import SQL

    await admin.execute(
        "insert into lora_datasets (id, user_id, name) select u, u, 'x' from"
        " (select gen_random_uuid() u from generate_series(1, 200)) s"
    )
    await admin.execute(
        "insert into lora_training_jobs (user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs,"
        " total_steps, estimated_total_cost, hourly_rate)"
        " select id, id, 'fast', '{}', '{}', 1, 1, 1, 1 from lora_datasets, generate_series(1, 100)"
    )
    await admin.execute("vacuum analyze lora_training_jobs")
    async with (
        Database.open(database.url, size=1) as pool,
        pool.as_caller(Identity(ANN, "user", 0)) as connection,
    ):
        plan = await connection.fetch("explain " + SQL["list_jobs"], ["queued"], 10, 0)
    text = "\n".join(line[0] for line in plan)
    assert text.count("lora_training_jobs_list_idx") == 2, text
    assert text.count("Index Cond: (user_id = ") >= 2, text
    assert "Seq Scan on lora_training_jobs" not in text, text

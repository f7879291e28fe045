"""The recorded access of each role is the actual one, and changes of policies and grants are detected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import asyncpg
import pytest

from jobs_service.database.migrate import AccessChanged, migrate
from rpc.database.errors import GuardError
from rpc.database.pool import Database, access_differences
from tests.conftest import TestDatabase
from tests.databases import Databases
from tests.jobs_service.database.access import CALLERS, FILE, Access, described

POLICIES = """
select
    polrelid::regclass::text as table_name, quote_ident(polname) as name, polcmd::text as command, polpermissive as permissive,
    (select string_agg(r::regrole::text, ', ') from unnest(polroles) r) as roles,
    pg_get_expr(polqual, polrelid) as using, pg_get_expr(polwithcheck, polrelid) as checked
from pg_policy order by 1, 2
"""
# The number of policies that there were when this was written: an empty list would pass every test here.
MIN_POLICIES = 60
OTHER_HARM = (
    "alter table job_events no force row level security",
    "alter role pipeline_outbox bypassrls",
    "alter role pipeline_jobs inherit",
    "grant pipeline_system to pipeline_user",
    "grant pipeline_system to pipeline_estimator",
    "grant execute on function create_job to pipeline_user",
    "grant select on lora_training_jobs to public",
    "grant select on lora_training_jobs to pipeline_user with grant option",
    "alter function create_job security definer",
    "alter table lora_training_jobs disable trigger change_job",
    "drop trigger audit_job_created on lora_training_jobs",
    "create or replace function caller_id() returns uuid language sql stable as $$ select null::uuid $$",
    "create or replace view own_queue with (security_invoker = true) as select id, 0::bigint own_jobs_ahead from lora_datasets",
    "create function everything() returns bigint language sql as 'select count(*) from lora_datasets'",
)


@pytest.fixture
async def access(admin: asyncpg.Connection) -> AsyncIterator[Access]:
    """What each role reaches in a database as the schema files make it."""
    async with Access.open(admin) as opened:
        yield opened


def mutants(policy: asyncpg.Record) -> dict[str, str]:
    """Statements that weaken a policy or take it away."""
    table, name = policy["table_name"], policy["name"]
    statements = {
        "dropped": f"drop policy {name} on {table}",
        "for everybody": f"alter policy {name} on {table} to public",
    }
    for clause, expression in (("using", policy["using"]), ("with check", policy["checked"])):
        if expression not in (None, "true"):
            statements[f"{clause} (true)"] = f"alter policy {name} on {table} {clause} (true)"
    if policy["command"] != "*" and policy["permissive"]:
        expression = policy["using"] or policy["checked"]
        statements["for all"] = (
            f"drop policy {name} on {table};"
            f"create policy {name} on {table} to {policy['roles']} using ({expression}) with check ({expression})"
        )
    if not policy["permissive"]:
        del statements["for everybody"]
    return statements


async def test_each_role_has_the_recorded_access(admin: asyncpg.Connection) -> None:
    """The columns and rows that each role can access in each table are exactly those in access.txt."""
    assert await described(admin) == FILE.read_text()


async def test_every_table_is_tried(access: Access, admin: asyncpg.Connection) -> None:
    """No table is left out of access.txt."""
    rows = await admin.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
    )
    assert {row["relname"] for row in rows} == {*access.tables}


@pytest.mark.slow
async def test_each_change_of_a_policy_is_detected(access: Access, admin: asyncpg.Connection) -> None:
    """Dropping or widening any policy changes a role's access, and the check at start names the policy."""
    policies = await admin.fetch(POLICIES)
    assert len(policies) >= MIN_POLICIES
    survivors = []
    async with access.granted():
        before = {(table, role): await access.reach([table], [role]) for table in access.tables for role in CALLERS}

        async def is_changed(table: str, roles: Iterable[str]) -> bool:
            """Tries one role after another, up to the first that reaches other rows than before."""
            for role in roles:
                if await access.reach([table], [role]) != before[table, role]:
                    return True
            return False

        for policy in policies:
            table, roles = policy["table_name"], policy["roles"].split(", ")
            for mutant, statement in mutants(policy).items():
                async with access.undone():
                    await admin.execute(statement)
                    is_named = any(policy["name"] in line for line in await access_differences(admin))
                    # Roles without a caller get nothing from a policy for callers: the guard alone sees it.
                    if not is_named or (mutant != "for everybody" and not await is_changed(table, roles)):
                        survivors.append(f"{policy['name']} on {table}: {mutant}")
        assert survivors == []
        for table in access.tables:
            async with access.undone():
                await admin.execute(f"alter table {table} disable row level security")
                assert await is_changed(table, CALLERS), table
                assert any(table in line for line in await access_differences(admin)), table


@pytest.mark.slow
async def test_each_changed_grant_is_detected(access: Access, admin: asyncpg.Connection) -> None:
    """The check at start detects every privilege on a table that a role gains or loses."""
    for table in access.tables:
        before = await access.grants([table])
        for role in CALLERS:
            for privilege in ("select", "insert", "update", "delete"):
                prefix = f"{table} | {role} | {privilege} | "
                is_granted = any(line.startswith(prefix) for line in before)
                statements = [f"revoke {privilege} on {table} from {role}"] if is_granted else []
                if f"{prefix}all columns" not in before:
                    statements.append(f"grant {privilege} on {table} to {role}")
                for statement in statements:
                    async with access.undone():
                        await admin.execute(statement)
                        assert await access.grants([table]) != before, statement
                        assert any(table in line for line in await access_differences(admin)), statement


@pytest.mark.parametrize("harm", OTHER_HARM)
async def test_the_guard_compares_the_database_with_its_last_migration(admin: asyncpg.Connection, harm: str) -> None:
    """Roles, functions, views and triggers that decide who may do what are compared too."""
    assert await access_differences(admin) == []
    transaction = admin.transaction()
    await transaction.start()
    try:
        await admin.execute(harm)
        assert await access_differences(admin)
    finally:
        await transaction.rollback()


@pytest.mark.parametrize(
    "harm", ["alter policy own_events on job_events using (true)", "grant pipeline_user to pipeline_estimator"]
)
async def test_a_migration_does_not_record_changed_access(
    database: TestDatabase, admin: asyncpg.Connection, harm: str
) -> None:
    """Access is recorded from the files: a migration of a changed database does not record the changes."""
    await admin.execute(harm)
    try:
        await admin.execute("update pipeline_internal.steps set digest = 'older' where name in ('routines', 'access')")
        with pytest.raises(AccessChanged, match="unexpected: "):
            await migrate(database.admin_url, passwords={})
        assert await access_differences(admin)
    finally:
        await admin.execute("revoke pipeline_user from pipeline_estimator")


async def test_roles_of_other_databases_do_not_matter(
    database: TestDatabase, admin: asyncpg.Connection, databases: Databases
) -> None:
    """Roles of other databases in the cluster do not matter."""
    async with databases.one() as other:
        neighbour = await asyncpg.connect(other.admin_url)
        await neighbour.execute("create role pipeline_neighbour; grant select on lora_datasets to pipeline_neighbour")
        try:
            assert await access_differences(neighbour)
            assert await access_differences(admin) == []
            await migrate(database.admin_url, passwords={})
        finally:
            await neighbour.execute("drop owned by pipeline_neighbour; drop role pipeline_neighbour")
            await neighbour.close()


async def test_the_estimators_login_has_no_access_to_jobs(admin: asyncpg.Connection) -> None:
    """Its caller's role can read datasets and finished jobs and write quotes, and nothing else."""
    await admin.execute("set session authorization pipeline_estimator; set role pipeline_quoter")
    for table in ("job_events", "webhooks", "api_keys", "lora_notifications", "audit_events"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await admin.fetch(f"select from {table}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await admin.execute("update lora_training_jobs set status = 'cancelled'")


async def test_a_server_names_a_changed_policy(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """A server does not start on a database with a policy that allows everything, and names the policy."""
    await admin.execute("alter policy own_events on job_events using (true)")
    async with Database.open(database.url, size=1) as pool:
        with pytest.raises(
            GuardError, match=r"unexpected: permissive policy own_events on job_events .* using \(true\)"
        ):
            await pool.check()

"""Who may do what with which row of which table, found out by trying it as each role.

`python -m tests.jobs_service.database.access` writes access.txt anew.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from tests.databases import Databases, postgres
from tests.jobs_service.database.access_rows import ANN, BOB, TRAINER, rows

FILE = Path(__file__).with_suffix(".txt")
HEADER = "# Table, role, command, columns: what is granted."
ROWS = """\
# Table, role, command, rows: what policies let through where everything is granted. ann is the caller as pipeline_user
# and pipeline_quoter, the trainer as pipeline_worker, bob as any other role. Rows are in access_rows.py; "2 of 8 to x": an
# update reaches 2 rows and may make them x."""
# Roles with the claims of the caller that tries. Those that have no caller get bob's: policies for callers are not theirs.
CALLERS: Mapping[str, Mapping[str, str]] = {
    "pipeline_user": {"sub": ANN, "role": "user"},
    "pipeline_quoter": {"sub": ANN, "role": "user"},
    "pipeline_worker": {"sub": TRAINER, "role": "worker"},
    "pipeline_system": {"sub": BOB},
    "pipeline_sender": {"sub": BOB},
    "pipeline_outbox": {"sub": BOB},
    "pipeline_estimator": {"sub": BOB},
    "pipeline_jobs": {"sub": BOB},
    "pipeline_webhooks": {"sub": BOB},
}
# A change of each table that the policies which let a row be changed let through.
CHANGES = {
    "api_keys": "last_used_at = default",
    "audit_events": "address = default",
    "cost_records": "storage_usd = default",
    "disabled_users": "disabled_at = default",
    "job_artifact_files": "created_at = default",
    "job_events": "created_at = default",
    "job_metrics": "created_at = default",
    "lora_datasets": "description = default",
    "lora_notifications": "priority = default",
    "lora_quotes": "created_at = default",
    "lora_training_jobs": f"worker_id = '{TRAINER}'",
    "trainer_offers": "simulated = default",
    "unclaimed_files": "since = default",
    "webhook_attempts": "response = default",
    "webhook_deliveries": "attempt_count = default",
    "webhook_uses": "uses = default",
    "webhooks": "description = default",
    "withdrawn_workers": "withdrawn_at = default",
}
# The column that only the database writes.
IDENTITY = ("audit_events", "id")
# Tries statements as the current role, undoes each, and returns the rows that it touched.
TRY = """
create function public.try(statements text[]) returns text[] language plpgsql as $$
declare
    statement text;
    touched bigint;
    outcomes text[] := '{}';
begin
    foreach statement in array statements loop
        begin
            execute statement;
            get diagnostics touched = row_count;
            raise exception using errcode = 'PT000', message = touched::text;
        exception
            when sqlstate 'PT000' then outcomes := outcomes || sqlerrm;
            when insufficient_privilege then outcomes := outcomes || 'refused'::text;
            -- Policies are looked at before constraints.
            when integrity_constraint_violation then outcomes := outcomes || 'let through'::text;
        end;
    end loop;
    return outcomes;
end
$$;
"""
GRANTS = """
select r.rolname, p.privilege, case
    when has_table_privilege(r.oid, c.oid, p.privilege) then 'all columns'
    when p.privilege <> 'delete' then (
        select string_agg(a.attname, ' ' order by a.attname) from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and has_column_privilege(r.oid, c.oid, a.attnum, p.privilege)
    )
end as columns
from pg_roles r, pg_class c, unnest(array['select', 'insert', 'update', 'delete']) with ordinality p (privilege, ordinal)
where c.oid = $1::text::regclass and r.rolname = any($2::text[])
order by r.rolname, p.ordinal
"""


class Access:
    """Tries the access of each role, in an administrator's transaction that is rolled back."""

    def __init__(self, admin: asyncpg.Connection) -> None:
        self._admin = admin
        # Rows that are there, as text, and all that are tried, by table.
        self._labels: dict[str, dict[str, str]] = {}
        self._values: dict[str, dict[str, tuple[str, str]]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, admin: asyncpg.Connection) -> AsyncIterator[Access]:
        """Puts the rows into their tables."""
        transaction = admin.transaction()
        await transaction.start()
        try:
            # No trigger and no foreign key: policies alone are tried.
            await admin.execute("set local session_replication_role = replica")
            await admin.execute(TRY)
            # New files, so that rows lie in the order in which they are inserted: an update of several ends at the first one
            # that is refused or breaks a constraint.
            await admin.execute(f"truncate {', '.join({table for table, *_ in rows()})}")
            access = cls(admin)
            for table, label, row in rows():
                await access._add(table, label, row)
            yield access
        finally:
            await transaction.rollback()

    @property
    def tables(self) -> Iterable[str]:
        """The tables that have rows."""
        return self._values

    async def grants(self, tables: Iterable[str]) -> list[str]:
        """The columns that each role may read and write."""
        return [
            f"{table} | {row['rolname']} | {row['privilege']} | {row['columns']}"
            for table in sorted(tables)
            for row in await self._admin.fetch(GRANTS, table, list(CALLERS))
            if row["columns"]
        ]

    @asynccontextmanager
    async def granted(self) -> AsyncIterator[None]:
        """Grants everything to every role: policies alone are left."""
        async with self.undone():
            await self._admin.execute(f"grant all on all tables in schema public to {', '.join(CALLERS)}")
            yield

    async def reach(self, tables: Iterable[str], roles: Iterable[str] = CALLERS) -> list[str]:
        """The rows that each of the roles reaches by each command where everything is granted."""
        return [
            f"{table} | {role} | {command} | {found}"
            for table in sorted(tables)
            for role in roles
            for command, found in (await self._reached(table, role)).items()
            if found
        ]

    @asynccontextmanager
    async def undone(self) -> AsyncIterator[None]:
        """Undoes what the body does."""
        transaction = self._admin.transaction()
        await transaction.start()
        try:
            yield
        finally:
            await transaction.rollback()

    async def _add(self, table: str, label: str, row: Mapping[str, Any]) -> None:
        names, value = ", ".join(row), orjson.dumps(row).decode().replace("'", "''")
        record = f"jsonb_populate_record(null::{table}, '{value}')"
        self._values.setdefault(table, {})[label] = names, record
        labels = self._labels.setdefault(table, {})
        try:
            async with self._admin.transaction():
                insert = f"insert into {table} ({names}) overriding system value select {names} from {record}"
                labels[await self._admin.fetchval(f"{insert} returning {table}::text")] = label
        except asyncpg.UniqueViolationError:
            pass

    async def _reached(self, table: str, role: str) -> dict[str, str]:
        values, change, stored = self._values[table], CHANGES[table], len(self._labels[table])
        inserts = [
            f"insert into {table} ({names}) overriding system value select {names} from {record}"
            for names, record in values.values()
        ]
        # No column is read, so that policies for reading do not hide what those for changing let through.
        changes = [
            f"update {table} set "
            + ", ".join(
                f"{name} = (select {name} from {record})" for name in names.split(", ") if (table, name) != IDENTITY
            )
            for names, record in values.values()
        ]
        statements = [*inserts, *changes, f"update {table} set {change}", f"delete from {table}"]
        async with self.undone():
            await self._admin.execute(f"set local role {role}")
            claims = orjson.dumps(CALLERS[role]).decode()
            await self._admin.execute("select set_config('request.jwt.claims', $1, true)", claims)
            seen = [
                self._labels[table][row[0]] for row in await self._admin.fetch(f"select {table}::text from {table}")
            ]
            *outcomes, updated, deleted = await self._admin.fetchval("select public.try($1)", statements)
        inserted, changed = outcomes[: len(values)], outcomes[len(values) :]
        accepted = [label for label, outcome in zip(values, inserted, strict=True) if outcome != "refused"]
        kept = [label for label, outcome in zip(values, changed, strict=True) if outcome not in ("refused", "0")]
        return {
            "select": _listed(seen, stored),
            "insert": _listed(accepted, len(values)),
            "update": "" if updated == "0" else f"{updated} of {stored} to {_listed(kept, len(values)) or 'none'}",
            "delete": "" if deleted == "0" else f"{deleted} of {stored}",
        }


def _listed(labels: Collection[str], number_of_all: int) -> str:
    return "all" if len(labels) == number_of_all else ", ".join(sorted(labels))


async def _write() -> None:
    """Writes access.txt anew, from a database as the schema files make it."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-access-"))
    with postgres(folder / "data") as url:
        databases = Databases(url)
        await databases.prepare()
        async with databases.one() as database:
            admin = await asyncpg.connect(database.admin_url)
            FILE.write_text(await described(admin))
            await admin.close()
    shutil.rmtree(folder)


async def described(admin: asyncpg.Connection) -> str:
    """The text of access.txt for a database."""
    async with Access.open(admin) as access:
        grants = await access.grants(access.tables)
        async with access.granted():
            reach = await access.reach(access.tables)
    return "\n".join([HEADER, *grants, "", ROWS, *reach, ""])


if __name__ == "__main__":
    asyncio.run(_write())

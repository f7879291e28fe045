"""Databases for tests: one PostgreSQL with an empty database for each running test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from deploy.local.postgres import Postgres
from jobs_service.database.migrate import migrate
from rpc.database.pool import Database

SERVICE_PASSWORD = "service-password-of-the-tests"
TEMPLATE = "template"
# These databases need not survive a power failure, and their statements are short.
SWITCHED_OFF = ("fsync", "full_page_writes", "jit")
# Deletes without triggers; sequences begin again. Not truncate, which makes every file anew.
EMPTY = """
set session_replication_role = replica;
do $$
declare
    found record;
begin
    for found in
        select oid::regclass as name, relkind from pg_class
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'S') and pg_relation_size(oid) > 0
    loop
        case found.relkind
            when 'r' then execute format('delete from %s', found.name);
            when 'S' then perform setval(found.name, 1, false);
        end case;
    end loop;
end $$;
"""
# What was ever changed in a database but its rows: who wrote each line of its catalogues, which statistics there are, and
# whether its tables have grown beyond what deleting leaves.
CATALOGUES = ("pg_class", "pg_attribute", "pg_constraint", "pg_policy", "pg_proc", "pg_trigger", "pg_statistic")
SHAPE = f"""
select concat_ws(' ', {", ".join(f"(select sum(xmin::text::bigint) + count(*) from {name})" for name in CATALOGUES)}, (
    select count(*) from pg_class
    where relnamespace = 'public'::regnamespace and relkind = 'r' and pg_relation_size(oid) > 1 << 16
))
"""
# Others' sessions in this database: pools close without waiting for the server.
SESSIONS = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""


@contextmanager
def postgres(data_dir: Path) -> Iterator[str]:
    """Runs PostgreSQL on a data directory, made when it is not there, and stops it in the end.

    Yields an administrator's URL. Raises PostgresError.
    """
    server = Postgres(data_dir)
    try:
        server.start()
        yield server.url
    finally:
        server.close()


@dataclass(frozen=True)
class TestDatabase:
    """A database of one test. `admin_url`: an administrator's; `url`: the services'."""

    __test__ = False
    admin_url: str
    url: str


class Databases:
    """The databases of one PostgreSQL. `url`: an administrator's."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._shape: Any = None
        self._unused: list[str] = []

    async def prepare(self) -> None:
        """Creates the template of all databases."""
        for name in SWITCHED_OFF:
            await _execute(self._url, f"alter system set {name} = off")
        await _execute(self._url, "select pg_reload_conf()")
        await _execute(self._url, f"create database {TEMPLATE}")
        template = in_database(self._url, TEMPLATE)
        await migrate(template, passwords={"service": SERVICE_PASSWORD})
        async with Database.open(_as_service(template), size=1) as pool:
            await pool.check()
        self._shape = await _execute(template, SHAPE)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[TestDatabase]:
        """A database with every table and no row.

        To make one costs more than most tests, so it is given out again where a test has left all but its rows as it was.
        """
        name = self._unused.pop() if self._unused else await self._create()
        url = in_database(self._url, name)
        kept = False
        try:
            yield TestDatabase(url, _as_service(url))
            kept = await _emptied(url) == self._shape
        finally:
            if kept:
                self._unused.append(name)
            else:
                await _execute(self._url, f"drop database {name} with (force)")

    async def _create(self) -> str:
        name = f"test_{uuid4().hex}"
        await _execute(self._url, f"create database {name} template {TEMPLATE}")
        return name


def in_database(url: str, name: str) -> str:
    """Returns the URL of another database of the same server."""
    return url.replace("/postgres?", f"/{name}?", 1)


def _as_service(url: str) -> str:
    return url.replace("postgres:@", f"pipeline_service:{SERVICE_PASSWORD}@", 1)


async def _execute(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def _emptied(url: str) -> Any:
    """The shape of a database without its rows."""
    connection = await asyncpg.connect(url)
    try:
        while await connection.fetchval(SESSIONS):
            await asyncio.sleep(0.001)
        await connection.execute(EMPTY)
        return await connection.fetchval(SHAPE)
    finally:
        await connection.close()

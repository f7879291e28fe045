"""Brings a database up to date: schema files, each once and in order, then the routines that changed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from importlib.resources import files
from typing import get_args

import asyncpg
import structlog

from jobs_service.settings import Login
from rpc.database.pool import SESSION_SETTINGS, access_differences, differences
from rpc.database.queries import SQL as SHARED_SQL
from rpc.database.queries import load_queries
from rpc.errors import OperatorError
from rpc.process.database_url import DatabaseUrl

CONNECT_TIMEOUT_SECONDS = 10.0
# An index on a large table takes a while; a step that hangs must end all the same.
STATEMENT_TIMEOUT_SECONDS = 3600.0
# How long a transaction of any role may be idle.
MAX_IDLE_IN_TRANSACTION = SESSION_SETTINGS["idle_in_transaction_session_timeout"]
# PostgreSQL's own default.
SCRAM_ITERATIONS = 4096
SQL = load_queries("jobs_service.database", "migrate.sql")
# Files of schema/, in the order in which they reference each other; each is applied once, in a transaction of its own.
SCHEMA = (
    "access",
    "datasets",
    "jobs",
    "events",
    "notifications",
    "queue",
    "artifacts",
    "webhooks",
    "quotes",
    "api_keys",
    "audit",
    "learning",
)
# Files of routines/: views, functions and triggers, in the order in which they reference each other. They are applied again,
# in one transaction, whenever one of them or the schema changed.
ROUTINES = (
    "live_seconds",
    "live_cost",
    "seconds_to_limit",
    "change_job",
    "check_job",
    "leased_job_costs",
    "live_offers",
    "gpu_capacity",
    "job_details",
    "list_jobs",
    "create_job",
    "get_dataset",
    "keep_old_secret",
    "reset_responsive",
    "supersede_notifications",
    "write_webhook_deliveries",
    "write_audit_event",
    "outbox_functions",
)
REMOVE = (
    "export what you need and remove it (for the embedded PostgreSQL: delete the folder .pipeline), then start anew"
)

log = structlog.get_logger()


class AccessChanged(OperatorError):
    """A database whose roles, policies or grants are not those that the schema files make."""


class NotDirect(OperatorError):
    """A pooler in front of a database that is to be migrated."""


class WrongSchema(OperatorError):
    """A database whose tables another version created, which this one cannot change."""


async def migrate(url: str, *, passwords: Mapping[Login, str]) -> list[str]:
    """Applies what is missing and sets the passwords of logins, by name. Returns the names applied.

    `url` is an administrator's: a role that may create tables and roles. Raises WrongSchema, AccessChanged, NotDirect, and
    what asyncpg raises.
    """
    database_url = DatabaseUrl.parse(url)
    connection = await asyncpg.connect(
        **database_url.connect_arguments(),
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=STATEMENT_TIMEOUT_SECONDS,
    )
    try:
        is_pooled = await connection.fetchval(SHARED_SQL["session"]) != connection.get_server_pid()
        if database_url.pgbouncer is not False and is_pooled:
            raise NotDirect(
                "migrations need PostgreSQL itself, not a pooler: they hold a lock in their session. "
                "For a proxy that keeps sessions, add pgbouncer=false to the URL"
            )
        await connection.execute(SQL["lock"])
        if await connection.fetchval(SQL["has_old_numbering"]):
            raise WrongSchema(f"this database has the tables of an unreleased version: {REMOVE}")
        await connection.execute(SQL["create_ledger"])
        applied = {row["name"]: row["digest"] for row in await connection.fetch(SQL["applied"])}
        if unknown := applied.keys() - {f"schema/{name}" for name in SCHEMA} - {"routines", "access"}:
            raise WrongSchema(
                f"this database is of a newer version, with {', '.join(sorted(unknown))}: run that version"
            )
        names = []
        for name in SCHEMA:
            step, text = f"schema/{name}", _read("schema", name)
            if step not in applied:
                await _apply(connection, step, text, _digest(text))
                names.append(step)
            elif applied[step] != _digest(text):
                raise WrongSchema(f"{step}.sql is not the file that created this database: {REMOVE}")
        routines = _routines()
        if names or applied.get("routines") != _digest(routines):
            await _apply(connection, "routines", routines, _digest(routines))
            names.append("routines")
        await _check_access(connection, applied.get("access"))
        await _limit_transactions(connection)
        for login in get_args(Login):
            await _set_session_settings(connection, f"pipeline_{login}")
        for login, password in passwords.items():
            role = f"pipeline_{login}"
            await connection.execute(await connection.fetchval(SQL["format_login"], role, _verifier(password)))
        return names
    finally:
        await connection.close()


async def _apply(connection: asyncpg.Connection, step: str, text: str, digest: str) -> None:
    async with connection.transaction():
        await connection.execute(text)
        await connection.execute(SQL["record"], step, digest)
    log.info("migrated", step=step)


async def _limit_transactions(connection: asyncpg.Connection) -> None:
    statement = await connection.fetchval(SQL["transaction_limit"], MAX_IDLE_IN_TRANSACTION)
    if statement is not None:
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError as error:
            log.warning("no_transaction_limit", error=str(error), repair=f"the database's owner runs: {statement}")


async def _set_session_settings(connection: asyncpg.Connection, role: str) -> None:
    """Sets the session settings of a login in the database, since servers behind a pooler cannot send them."""
    for name, value in SESSION_SETTINGS.items():
        if name != "application_name":
            await connection.execute(await connection.fetchval(SQL["format_setting"], role, name, value))


async def _check_access(connection: asyncpg.Connection, recorded: str | None) -> None:
    """Compares roles, policies and grants with those of the files, and records the latter for servers.

    `recorded`: digest of the files whose access the database has on record. Raises AccessChanged.
    """
    digest = _digest("".join([*(_read("schema", name) for name in SCHEMA), _routines()]))
    # Another major version of PostgreSQL prints policies differently: that is a difference too.
    if recorded == digest and not await access_differences(connection):
        return
    expected = await _expected_access(connection)
    current = {row["line"] for row in await connection.fetch(SHARED_SQL["access"], "public")}
    if changes := differences(current, expected):
        raise AccessChanged(f"roles, policies or grants are not those of this version: {'; '.join(changes)}")
    async with connection.transaction():
        await connection.execute(SQL["record_access"], sorted(expected))
        await connection.execute(SQL["record"], "access", digest)


async def _expected_access(connection: asyncpg.Connection) -> set[str]:
    """Returns the lines that the files make: applies them to a schema of its own, in a transaction that is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(SQL["begin_expected"])
        for name in SCHEMA:
            await connection.execute(_read("schema", name))
        await connection.execute(_routines())
        lines = await connection.fetch(SHARED_SQL["access"], "pipeline_expected")
        roles = await connection.fetch(SQL["expected_roles"])
    finally:
        await transaction.rollback()
    return {row["line"] for row in lines if not row["line"].startswith("role ")} | {row["line"] for row in roles}


def _routines() -> str:
    return "".join(_read("routines", name) for name in ROUTINES)


def _verifier(password: str) -> str:
    """Returns the SCRAM-SHA-256 verifier (RFC 5802) of an ASCII password, so that PostgreSQL never sees or logs it."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    keys = ":".join(base64.b64encode(key).decode() for key in (stored, hmac.digest(salted, b"Server Key", "sha256")))
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{base64.b64encode(salt).decode()}${keys}"


def _read(folder: str, name: str) -> str:
    return files(__package__).joinpath(folder, f"{name}.sql").read_text()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

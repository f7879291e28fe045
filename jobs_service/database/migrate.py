"""Brings a database up to date: numbered SQL files, forward only, one transaction each."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from importlib.resources import files

import asyncpg
import structlog

from rpc.database.queries import load_queries

CONNECT_TIMEOUT_SECONDS = 10.0
# An index on a large table takes a while; a migration that hangs must end all the same.
STATEMENT_TIMEOUT_SECONDS = 3600.0
# Postgres's own number.
SCRAM_ITERATIONS = 4096
SQL = load_queries("jobs_service.database", "migrate.sql")

log = structlog.get_logger()


async def migrate(url: str, *, service_password: str) -> list[str]:
    """Applies what is missing and lets the services' login in with that password. Returns the names applied.

    `url` is an administrator's: one who may create tables and roles. Raises what asyncpg raises.
    """
    connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS, command_timeout=STATEMENT_TIMEOUT_SECONDS)
    try:
        await connection.execute(SQL["lock"])
        await connection.execute(SQL["create_ledger"])
        done = {row["number"] for row in await connection.fetch(SQL["applied"])}
        names = [name for name in _migrations() if _number(name) not in done]
        for name in names:
            async with connection.transaction():
                await connection.execute(files(__package__).joinpath("migrations", name).read_text())
                await connection.execute(SQL["record"], _number(name), name)
            log.info("migrated", migration=name)
        await connection.execute(await connection.fetchval(SQL["format_login"], _verifier(service_password)))
        return names
    finally:
        await connection.close()


def _verifier(password: str) -> str:
    """What Postgres keeps of an ASCII password (SCRAM-SHA-256, RFC 5802): it never sees, and never logs, the password."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    keys = ":".join(base64.b64encode(key).decode() for key in (stored, hmac.digest(salted, b"Server Key", "sha256")))
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{base64.b64encode(salt).decode()}${keys}"


def _migrations() -> list[str]:
    folder = files(__package__).joinpath("migrations")
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))


def _number(name: str) -> int:
    return int(name.partition("_")[0])

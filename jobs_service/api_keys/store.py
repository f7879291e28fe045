"""API keys in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from jobs_service.api_keys.model import ApiKey, NewApiKey
from jobs_service.database.rows import as_caller, reader
from jobs_service.errors import ApiKeyLimit, ApiKeyNotFound
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import SYSTEM, Identity

SQL = load_queries("jobs_service.api_keys", "queries.sql")

# How long an expired key stays in its owner's list.
EXPIRED_RETENTION = timedelta(days=30)
# Rows that `prune` deletes at once.
BATCH = 1_000

_api_key = reader(ApiKey)


class ApiKeyStore:
    """A user's API keys. Every method acts as its caller, under row-level security."""

    def __init__(self, database: Database, *, max_per_user: int) -> None:
        self._database = database
        self._max_per_user = max_per_user

    async def create(self, caller: Identity, new: NewApiKey) -> ApiKey:
        """Stores the hash of a new key. Raises ApiKeyLimit."""
        async with as_caller(self._database, caller, SQL["lock_user"]) as connection:
            row = await connection.fetchrow(
                SQL["create_api_key"],
                caller.role,
                new.name,
                new.hash,
                new.prefix,
                list(new.scopes),
                new.expires_at,
                self._max_per_user,
            )
        if row is None:
            raise ApiKeyLimit(limit=self._max_per_user)
        return _api_key(row)

    async def list_all(self, caller: Identity) -> Sequence[ApiKey]:
        """Returns the caller's keys, newest first, expired ones included."""
        async with as_caller(self._database, caller) as connection:
            return [_api_key(row) for row in await connection.fetch(SQL["list_api_keys"])]

    async def revoke(self, caller: Identity, key_id: UUID) -> None:
        """Deletes a key. Raises ApiKeyNotFound."""
        async with as_caller(self._database, caller) as connection:
            if await connection.fetchval(SQL["delete_api_key"], key_id) is None:
                raise ApiKeyNotFound

    async def prune(self) -> None:
        """Deletes a batch of keys that expired long ago."""
        async with as_caller(self._database, SYSTEM) as connection:
            await connection.execute(SQL["prune_api_keys"], EXPIRED_RETENTION, BATCH)

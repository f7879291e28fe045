"""Reads and caches the statistics of datasets."""

from __future__ import annotations

import time
from uuid import UUID

import orjson

from estimator_service.datasets.model import Dataset
from estimator_service.errors import DatasetNotFound, DatasetNotReady
from rpc.cache import ExpiringCache
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import Identity

SQL = load_queries("estimator_service.datasets", "queries.sql")
# A changed dataset must change estimates within a second.
FRESH_SECONDS = 0.9
CACHE_SIZE = 10_000


class Datasets:
    """Reads datasets as their owner, each at most once in `FRESH_SECONDS`.

    The cache's keys have the owner's id, so that no user gets another's dataset. Missing datasets are not cached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache = ExpiringCache[tuple[str, str], Dataset](CACHE_SIZE)

    async def get(self, caller: Identity, dataset_id: str, field: str = "dataset_id") -> Dataset:
        """Returns the dataset that a field of the request names.

        Raises DatasetNotFound, DatasetNotReady, DatabaseUnavailable.
        """
        key = caller.user_id, dataset_id
        now = time.monotonic()
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        dataset = await self._read(caller, UUID(dataset_id), field)
        self._cache.put(key, dataset, now + FRESH_SECONDS)
        return dataset

    async def _read(self, caller: Identity, dataset_id: UUID, field: str) -> Dataset:
        rows = await self._database.call_as(caller, SQL["get_dataset"], dataset_id)
        if not rows:
            raise DatasetNotFound(field)
        row = rows[0]
        if row["status"] != "ready" or not row["training_ready"]:
            raise DatasetNotReady(field, status=row["status"], training_ready=row["training_ready"])
        return Dataset(
            name=row["name"],
            pairs=row["total_training_pairs"],
            tokens=row["total_tokens"],
            validation_pairs=row["total_validation_pairs"],
            longest=row["longest_tokens"],
            bins=tuple((edge, samples) for edge, samples in orjson.loads(row["token_histogram"] or "[]")),
            script_tokens=tuple(
                (script, *counts) for script, counts in sorted(orjson.loads(row["script_tokens"] or "{}").items())
            ),
            revision=row["revision"],
        )

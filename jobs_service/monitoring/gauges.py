"""Metrics of the database as a whole: the queue, the trainers, the webhooks' outbox, and PostgreSQL itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from jobs_service.database.rows import as_caller
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import SYSTEM
from rpc.process.background import repeat
from rpc.telemetry.metrics import Metrics, Values

SQL = load_queries("jobs_service.monitoring", "queries.sql")
# Share of the time that readings may take, at most: a slow one is followed by a longer pause.
READING_SHARE = 0.1
READ_TIMEOUT_SECONDS = 5.0
# GPU types that are shown, those with the most jobs and trainers: a trainer's offer may name any.
MAX_GPU_TYPES = 100
# Gauges of the statement by name: metric, description and labels.
GAUGES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "jobs": ("pipeline_jobs_count", "Jobs that are not final.", ("gpu_type", "state")),
    "waiting": ("pipeline_queue_age_seconds", "How long the oldest queued job has been waiting.", ("gpu_type",)),
    "unserved": (
        "pipeline_unserved_jobs_count",
        "Queued jobs that need more GPUs than any trainer has.",
        ("gpu_type",),
    ),
    "free": (
        "pipeline_free_gpus_count",
        "GPUs that trainers offered in the last minute and no job has.",
        ("gpu_type",),
    ),
    "busy": ("pipeline_busy_gpus_count", "GPUs of jobs that are being trained.", ("gpu_type",)),
    "starting": (
        "pipeline_starting_jobs_count",
        "Jobs that a trainer has taken and whose scheduler has no place for them yet.",
        ("gpu_type",),
    ),
    "trainers": (
        "pipeline_trainers_count",
        "Trainers that asked for jobs in the last minute or have one.",
        ("gpu_type",),
    ),
    "outbox": ("pipeline_webhook_outbox_count", "Webhook deliveries that are not final.", ()),
    "overdue": (
        "pipeline_webhook_overdue_seconds",
        "How long the oldest delivery has been due without being sent.",
        (),
    ),
    "held_back": ("pipeline_events_held_back_seconds", "Age of the oldest event behind an open transaction.", ()),
    "size": ("pipeline_database_size_bytes", "Size of the database.", ()),
    "connections": ("pipeline_database_connections_count", "Connections of all clients to the database.", ()),
    "max_connections": ("pipeline_database_max_connections_count", "Connections that PostgreSQL accepts.", ()),
}


class Gauges:
    """Reads the gauges periodically.

    Every Jobs process shows the same gauges: take the maximum over processes, never the sum.
    """

    def __init__(self, database: Database, metrics: Metrics, *, every_seconds: float) -> None:
        self._database = database
        self._every_seconds = every_seconds
        self._values: Mapping[str, Values] = {}
        for gauge, (name, documentation, labels) in GAUGES.items():
            metrics.watch_all(name, documentation, labels, partial(self._read, gauge))

    async def run(self) -> None:
        """Reads until cancelled."""
        await repeat(
            "gauges_unavailable",
            self._update,
            every_seconds=self._every_seconds,
            timeout_seconds=READ_TIMEOUT_SECONDS,
            is_urgent=False,
        )

    async def _update(self) -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with as_caller(self._database, SYSTEM) as connection:
                rows = await connection.fetch(SQL["gauges"], MAX_GPU_TYPES)
        except BaseException:
            # Shows no old gauges as current ones.
            self._values = {}
            raise
        values: dict[str, dict[tuple[str, ...], float]] = {}
        for row in rows:
            values.setdefault(row["gauge"], {})[tuple(row["labels"])] = row["value"]
        self._values = values
        return max(self._every_seconds, (loop.time() - started) / READING_SHARE)

    def _read(self, gauge: str) -> Values:
        return self._values.get(gauge, {})

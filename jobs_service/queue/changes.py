"""What a change of jobs writes beside their rows, in the same transaction: events, metrics, costs and notifications."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from jobs_service.database.rows import as_json
from jobs_service.events.model import EventType, MetricPoint
from jobs_service.notifications.templates import COST_LIMIT, COST_WARNING, FAILED, NotificationTemplate
from jobs_service.queue.model import Outcome
from rpc.database.queries import load_queries
from rpc.database.transaction import Transaction

SQL = load_queries("jobs_service.queue", "queries.sql")
# Jobs that one transaction of the sweeper changes.
BATCH = 200


async def write_transition(
    connection: Transaction,
    job_ids: Sequence[UUID],
    type_: EventType,
    *,
    notifications: Sequence[NotificationTemplate] = (),
    outcome: Outcome | None = None,
    result: bytes | None = None,
    log_lines: Sequence[str] = (),
) -> None:
    """Writes the event of each changed job, the cost record of leases that ended, and the owners' notifications."""
    if not job_ids:
        return
    columns = [list(column) for column in zip(*notifications, strict=True)] or [[], [], [], []]
    await connection.execute(
        SQL["write_transition"], job_ids, type_, list(log_lines) or None, outcome, result, *columns
    )


async def record_metrics(connection: Transaction, job_id: UUID, points: Sequence[MetricPoint]) -> None:
    """Writes the metrics of a job. Points of one step are merged; the last value of a name counts."""
    by_step: dict[int, MetricPoint] = {}
    for point in points:
        if point.values:
            earlier = by_step.get(point.step)
            values = {**earlier.values, **point.values} if earlier else point.values
            by_step[point.step] = MetricPoint(point.step, point.epoch, values)
    if by_step:
        steps, epochs = list(by_step), [point.epoch for point in by_step.values()]
        rows = [as_json(point.values) for point in by_step.values()]
        await connection.execute(SQL["record_metrics"], job_id, steps, epochs, rows)


async def warn_of_cost(connection: Transaction, job_id: UUID | None = None) -> None:
    """Warns the owner of a job that is near its cost limit, or of `BATCH` such jobs."""
    rows = await connection.fetch(SQL["warn_of_cost"], BATCH, job_id)
    await write_transition(
        connection, [row["id"] for row in rows], EventType.COST_WARNING, notifications=[COST_WARNING]
    )


async def stop_at_limits(connection: Transaction, job_id: UUID | None = None) -> list[asyncpg.Record]:
    """Fails a job that has reached a limit, or `BATCH` such jobs. Returns their rows."""
    rows = await connection.fetch(SQL["stop_at_limits"], BATCH, job_id)
    for outcome, notifications in ((Outcome.COST_LIMIT, [COST_LIMIT, FAILED]), (Outcome.DURATION_LIMIT, [FAILED])):
        ids = [row["id"] for row in rows if row["status_reason"] == outcome]
        await write_transition(connection, ids, EventType.FAILED, notifications=notifications, outcome=outcome)
    return rows

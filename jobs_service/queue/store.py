"""Reports, results and cancellations of jobs in Postgres. A method is one transaction, which also writes events and costs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import asyncpg

from jobs_service.artifacts.store import set_result_files
from jobs_service.database.rows import as_caller, as_json, reader
from jobs_service.errors import InvalidTransition, JobFinal, LeaseLost
from jobs_service.events.model import EventType
from jobs_service.jobs.model import JobState, LeaseRef, StatusReason
from jobs_service.notifications.templates import (
    CANCELLED,
    COMPLETED,
    COST_LIMIT_AHEAD,
    DURATION_LIMIT_AHEAD,
    FAILED,
    LONGER,
    RETRIED,
    SIMULATED,
    STARTED,
    NotificationTemplate,
)
from jobs_service.queue.changes import record_metrics, stop_at_limits, warn_of_cost, write_transition
from jobs_service.queue.initial_forecast import initial_forecast
from jobs_service.queue.metrics import QueueMetrics
from jobs_service.queue.model import (
    GIVEN_UP,
    STOPPED,
    Completion,
    Failure,
    LeaseStatus,
    Outcome,
    Report,
    digest,
    software,
)
from jobs_service.queue.reforecast import MIN_STEPS, MIN_TIME, SECOND_AT_PERCENT, Progress, reforecast
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.database.transaction import Transaction
from rpc.identity.model import Identity

SQL = load_queries("jobs_service.queue", "queries.sql")
# Points of a report whose values become the job's current metrics, the last ones.
LATEST_POINTS = 4
IS_LONGER = "longer"
REFORECAST_NOTIFICATIONS: Mapping[str, NotificationTemplate] = {
    StatusReason.COST_LIMIT: COST_LIMIT_AHEAD,
    StatusReason.DURATION_LIMIT: DURATION_LIMIT_AHEAD,
    IS_LONGER: LONGER,
}


class QueueStore:
    """Changes the state of jobs. Every method acts as its caller, under row-level security."""

    def __init__(self, database: Database, *, lease_time: timedelta, metrics: QueueMetrics) -> None:
        self._database = database
        self._metrics = metrics
        self._lease_time = lease_time

    async def report(self, caller: Identity, lease: LeaseRef, report: Report) -> LeaseStatus:
        """Renews the lease and stores the report. Raises LeaseLost, JobFinal, ValidationFailed."""
        latest = {name: value for point in report.metrics[-LATEST_POINTS:] for name, value in point.values.items()}
        uri, step = report.checkpoint or (None, None)
        stopped: asyncpg.Record | None = None
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(
                SQL["report_progress"],
                lease.job_id,
                lease.token,
                report.stage,
                report.epoch,
                report.step,
                as_json(latest),
                report.external_job_id,
                self._lease_time,
                uri,
                step,
                MIN_STEPS,
                SECOND_AT_PERCENT,
                report.waiting_reason,
                MIN_TIME,
            )
            if row is None:
                return await _ended_lease(connection, lease)
            type_ = EventType.STARTED if row["started"] else EventType.PROGRESS
            notifications = [STARTED] if row["first_started"] else []
            await write_transition(
                connection, [lease.job_id], type_, notifications=notifications, log_lines=report.log_lines
            )
            await record_metrics(connection, lease.job_id, report.metrics)
            if row["reforecast_due"] and not row["over_limit"]:
                await _reforecast(connection, lease.job_id)
            if row["over_limit"]:
                await warn_of_cost(connection, lease.job_id)
                (stopped,) = await stop_at_limits(connection, lease.job_id)
        if stopped is not None:
            outcome = Outcome(stopped["status_reason"])
            self._metrics.ended(outcome, JobState.FAILED, stopped)
            return LeaseStatus(stop=outcome)
        return LeaseStatus(
            expires_at=row["expires_at"], seconds_to_limit=row["seconds_to_limit"], current_cost=row["current_cost"]
        )

    async def get_lease(self, caller: Identity, lease: LeaseRef) -> LeaseStatus:
        """Returns the state of a lease without renewing it. Raises LeaseLost, JobFinal."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["get_lease"], lease.job_id, lease.token)
            if row is None:
                return await _ended_lease(connection, lease)
        return LeaseStatus(expires_at=row["expires_at"], waiting=row["waiting"])

    async def complete(self, caller: Identity, lease: LeaseRef, result: Completion) -> None:
        """Running → completed. Raises LeaseLost, JobFinal, InvalidTransition."""
        final = result.final_metrics
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(
                SQL["complete_job"],
                lease.job_id,
                lease.token,
                result.artifact_uri,
                result.artifact_id,
                as_json(final.values if final else {}),
                result.measurements.get("peak_memory_gib"),
                as_json(result.measurements),
                result.result_step,
                sum(file.size for file in result.files) if result.files else None,
                software(result.measurements),
                result.measurements.get("trained_tokens"),
            )
            if row is None:
                await _check_repeated(connection, lease, Outcome.COMPLETED, digest(result))
                return
            await set_result_files(connection, lease.job_id, result.files)
            await record_metrics(connection, lease.job_id, [final] if final else [])
            await write_transition(
                connection,
                [lease.job_id],
                EventType.COMPLETED,
                notifications=[SIMULATED if row["simulated"] else COMPLETED],
                outcome=Outcome.COMPLETED,
                result=digest(result),
            )
        self._metrics.completed(row)

    async def fail(self, caller: Identity, lease: LeaseRef, result: Failure) -> None:
        """Ends the attempt: → queued or failed. Raises LeaseLost, JobFinal."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(
                SQL["fail_job"],
                lease.job_id,
                lease.token,
                result.error_message,
                result.retryable,
                result.reason,
                as_json(result.measurements),
            )
            if row is None:
                await _check_repeated(connection, lease, Outcome.FAILED, digest(result))
                return
            again = row["status"] == JobState.QUEUED
            await write_transition(
                connection,
                [lease.job_id],
                EventType.RETRIED if again else EventType.FAILED,
                notifications=[RETRIED if again else FAILED],
                outcome=Outcome.FAILED,
                result=digest(result),
            )
        self._metrics.ended(Outcome.FAILED, JobState(row["status"]), row)

    async def release(self, caller: Identity, lease: LeaseRef) -> tuple[str, float] | None:
        """Returns the job to the queue: → queued. Returns the trainer's name and the seconds of the lease.

        None if it was released before.

        Raises LeaseLost, JobFinal.
        """
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["release_job"], lease.job_id, lease.token)
            if row is None:
                await _check_repeated(connection, lease, Outcome.RELEASED, None)
                return None
            await write_transition(connection, [lease.job_id], EventType.RELEASED, outcome=Outcome.RELEASED)
        self._metrics.ended(Outcome.RELEASED, JobState.QUEUED, row)
        return row["trainer"] or "", float(row["lease_seconds"])

    async def cancel(self, caller: Identity, job_id: UUID) -> bool:
        """Any state that is not final → cancelled. False if the job is final or not the caller's."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["cancel_job"], job_id)
            if row is not None:
                await write_transition(
                    connection, [job_id], EventType.CANCELLED, notifications=[CANCELLED], outcome=Outcome.CANCELLED
                )
        if row is None:
            return False
        if row["had_lease"]:
            self._metrics.ended(Outcome.CANCELLED, JobState.CANCELLED, row)
        else:
            self._metrics.finished(JobState.CANCELLED, row)
        return True


async def _ended_lease(connection: Transaction, lease: LeaseRef) -> LeaseStatus:
    """Returns that the trainer must stop, for a lease that is over. Raises LeaseLost, JobFinal."""
    ended = await connection.fetchrow(SQL["lease_outcome"], lease.job_id, lease.token)
    if ended is None or ended["outcome"] in GIVEN_UP:
        raise LeaseLost
    if ended["outcome"] in STOPPED:
        return LeaseStatus(stop=Outcome(ended["outcome"]))
    raise JobFinal(status=ended["outcome"])


async def _check_repeated(connection: Transaction, lease: LeaseRef, outcome: Outcome, result: bytes | None) -> None:
    """Returns if the same result ended the lease before. Raises InvalidTransition, LeaseLost, JobFinal."""
    ended = await connection.fetchrow(SQL["lease_outcome"], lease.job_id, lease.token)
    if ended is None:
        if await connection.fetchval(SQL["is_initializing"], lease.job_id, lease.token):
            raise InvalidTransition("Report an epoch or a step before the result.", status=JobState.INITIALIZING)
        raise LeaseLost
    if (ended["outcome"], ended["result_digest"]) == (outcome, result):
        return
    if ended["outcome"] in GIVEN_UP:
        raise LeaseLost
    raise JobFinal(status=ended["outcome"])


async def _reforecast(connection: Transaction, job_id: UUID) -> None:
    """Forecasts a running job from its own speed. Notifies its owner once of each kind over all attempts, the limit first."""
    row = await connection.fetchrow(SQL["measured_speed"], job_id)
    assert row is not None
    forecast = reforecast(_progress(row), initial_forecast(row["estimate"] or b""))
    kinds: list[str] = [forecast.limit] if forecast.limit else []
    kinds += [IS_LONGER] * forecast.exceeds_p90
    new = [kind for kind in kinds if kind not in row["reforecast_notifications"]]
    await connection.execute(SQL["store_reforecast"], job_id, as_json(forecast.document()), new)
    await write_transition(
        connection, [job_id], EventType.REFORECAST, notifications=[REFORECAST_NOTIFICATIONS[kind] for kind in new[:1]]
    )


_progress = reader(Progress)

"""Leases and changes of jobs in Postgres. A method is one transaction, which also writes events, costs and notifications."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import structlog

from jobs_service.artifacts.store import settle
from jobs_service.database.rows import as_caller, as_json, reader
from jobs_service.errors import InvalidTransition, JobFinal, LeaseLost
from jobs_service.events.model import EventType, MetricPoint
from jobs_service.jobs.model import JobState, StatusReason
from jobs_service.notifications.templates import (
    CANCELLED,
    COMPLETED,
    COST_LIMIT,
    COST_LIMIT_AHEAD,
    COST_WARNING,
    DURATION_LIMIT_AHEAD,
    FAILED,
    LEASE_LOST,
    LONGER,
    RETRIED,
    SIMULATED,
    STARTED,
    Notice,
)
from jobs_service.queue.lease import (
    GIVEN_UP,
    STOPPED,
    Completion,
    Failure,
    GpuCapacity,
    Lease,
    LeaseRef,
    LeaseRequest,
    LeaseStatus,
    Outcome,
    QueueCount,
    Report,
    digest,
    software,
)
from jobs_service.queue.metrics import QueueMetrics
from jobs_service.queue.reforecast import MIN_STEPS, SECOND_AT_PERCENT, Progress, reforecast
from jobs_service.queue.wire import initial_forecast
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.database.transaction import Transaction
from rpc.identity.model import SYSTEM, Identity
from rpc.telemetry.metrics import Metrics

SQL = load_queries("jobs_service.queue", "queries.sql")
# Jobs that one pass of the sweeper moves in a transaction.
BATCH = 200
# Jobs that a process leaves out of its claims at most, and for how long: the database refused what a claim writes.
MAX_UNCLAIMABLE, UNCLAIMABLE_SECONDS = 100, 300.0
# GPU types of a count of capacity, those with the most jobs: a trainer's offer may name any.
MAX_GPU_TYPES = 100
# Points of a report whose values become the job's current metrics, the last ones.
LATEST_POINTS = 4
# Rows of the trainers that share a token: each has one for each GPU type.
MAX_OFFERS = 2_000
IS_LONGER = "longer"
REFORECAST_NOTICES: Mapping[str, Notice] = {
    StatusReason.COST_LIMIT: COST_LIMIT_AHEAD,
    StatusReason.DURATION_LIMIT: DURATION_LIMIT_AHEAD,
    IS_LONGER: LONGER,
}

log = structlog.get_logger()


class UnclaimableJobs(Exception):
    """The database refused what the claim of these jobs writes."""

    def __init__(self, job_ids: Sequence[UUID]) -> None:
        super().__init__(f"claim of {len(job_ids)} jobs")
        self.job_ids = job_ids


class QueueStore:
    """Leases jobs and changes their state. Methods act as their caller, under row-level security, or as the system."""

    def __init__(self, database: Database, *, lease_time: timedelta, metrics: Metrics) -> None:
        self._database = database
        self._metrics = QueueMetrics(metrics)
        self._lease_time = lease_time
        # Jobs that claims leave out, with the time until then.
        self._unclaimable: dict[UUID, float] = {}
        # The user id at which the next claim begins. Each process has its own: taking turns needs no agreement.
        self._turn = uuid4()

    async def offer(self, caller: Identity, request: LeaseRequest) -> None:
        """Stores how many GPUs of each type a trainer has free."""
        async with as_caller(self._database, caller) as connection:
            await connection.execute(
                SQL["offer_gpus"],
                list(request.gpus),
                list(request.gpus.values()),
                request.simulated,
                request.trainer,
                MAX_OFFERS,
            )

    async def claim(self, caller: Identity, request: LeaseRequest) -> list[Lease]:
        """Queued → initializing, for as many jobs as fit. Returns their leases; none if no job waits."""
        trained = await self._trained_types() if request.simulated else frozenset[str]()
        types = [gpu_type for gpu_type in request.gpus if gpu_type not in trained]
        gpus = {gpu_type: request.gpus[gpu_type] for gpu_type in types}
        try:
            return await self._claim(caller, request, gpus, request.max_jobs)
        except UnclaimableJobs:
            # One by one, so that a job whose rows the database refuses takes no other one with it.
            leases: list[Lease] = []
            for _ in range(request.max_jobs + MAX_UNCLAIMABLE):
                try:
                    claimed = await self._claim(caller, request, gpus, 1)
                except UnclaimableJobs as error:
                    self._leave_out(error)
                    continue
                leases += claimed
                if not claimed or len(leases) >= request.max_jobs:
                    break
                gpu = claimed[0].gpu_config
                gpus[gpu["type"]] -= gpu["count"]
            return leases

    async def _claim(
        self, caller: Identity, request: LeaseRequest, gpus: Mapping[str, int], max_jobs: int
    ) -> list[Lease]:
        ids: list[UUID] = []
        try:
            async with as_caller(self._database, caller) as connection:
                rows = await connection.fetch(
                    SQL["claim_jobs"],
                    list(gpus),
                    list(gpus.values()),
                    self._turn,
                    max_jobs,
                    request.trainer,
                    self._lease_time,
                    request.simulated,
                    [job_id for job_id, until in self._unclaimable.items() if until > time.monotonic()],
                    "waiting" if request.deferred else "initializing",
                )
                if not rows:
                    return []
                ids = [row["id"] for row in rows]
                await _record(connection, ids, EventType.LEASED)
                leases = [_lease(row) for row in await connection.fetch(SQL["leases"], ids)]
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, ValueError) as error:
            if not ids:
                raise
            raise UnclaimableJobs(ids) from error
        last = max(rows, key=lambda row: (row["round"], row["lap"], row["user_id"]))
        self._turn = UUID(int=(last["user_id"].int + 1) % (1 << 128))
        self._metrics.leased(rows)
        return leases

    def _leave_out(self, error: UnclaimableJobs) -> None:
        for job_id in error.job_ids:
            log.error("job_unclaimable", job_id=str(job_id), error=repr(error.__cause__))
            self._unclaimable.pop(job_id, None)
            self._unclaimable[job_id] = time.monotonic() + UNCLAIMABLE_SECONDS
        while len(self._unclaimable) > MAX_UNCLAIMABLE:
            del self._unclaimable[next(iter(self._unclaimable))]

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
            )
            if row is None:
                return await self._stopped(connection, lease)
            type_ = EventType.STARTED if row["started"] else EventType.PROGRESS
            notices = [STARTED] if row["first_started"] else []
            await _record(connection, [lease.job_id], type_, notices=notices, log_lines=report.log_lines)
            await _record_metrics(connection, lease.job_id, report.metrics)
            if row["reforecast_due"] and not row["over_limit"]:
                await _reforecast(connection, lease.job_id)
            if row["over_limit"]:
                await _warn(connection, lease.job_id)
                (stopped,) = await _stop(connection, lease.job_id)
        if stopped is not None:
            outcome = Outcome(stopped["status_reason"])
            self._metrics.ended(outcome, JobState.FAILED, stopped)
            return LeaseStatus(stop=outcome)
        return LeaseStatus(
            expires_at=row["expires_at"], seconds_left=row["seconds_left"], current_cost=row["current_cost"]
        )

    async def get_lease(self, caller: Identity, lease: LeaseRef) -> LeaseStatus:
        """Returns the state of a lease without renewing it. Raises LeaseLost, JobFinal."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["get_lease"], lease.job_id, lease.token)
            if row is None:
                return await self._stopped(connection, lease)
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
                await self._ended(connection, lease, Outcome.COMPLETED, digest(result))
                return
            await settle(connection, lease.job_id, result.files)
            await _record_metrics(connection, lease.job_id, [final] if final else [])
            await _record(
                connection,
                [lease.job_id],
                EventType.COMPLETED,
                notices=[SIMULATED if row["simulated"] else COMPLETED],
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
                await self._ended(connection, lease, Outcome.FAILED, digest(result))
                return
            again = row["status"] == JobState.QUEUED
            await _record(
                connection,
                [lease.job_id],
                EventType.RETRIED if again else EventType.FAILED,
                notices=[RETRIED if again else FAILED],
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
                await self._ended(connection, lease, Outcome.RELEASED, None)
                return None
            await _record(connection, [lease.job_id], EventType.RELEASED, outcome=Outcome.RELEASED)
        self._metrics.ended(Outcome.RELEASED, JobState.QUEUED, row)
        return row["trainer"] or "", float(row["lease_seconds"])

    async def cancel(self, caller: Identity, job_id: UUID) -> bool:
        """Any state that is not final → cancelled. False if the job is final or not the caller's."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["cancel_job"], job_id)
            if row is not None:
                await _record(connection, [job_id], EventType.CANCELLED, notices=[CANCELLED], outcome=Outcome.CANCELLED)
        if row is None:
            return False
        if row["had_lease"]:
            self._metrics.ended(Outcome.CANCELLED, JobState.CANCELLED, row)
        else:
            self._metrics.finished(JobState.CANCELLED, row)
        return True

    async def expire(self) -> int:
        """Ends leases that ran out: → queued or failed. Returns how many, up to `BATCH`."""
        async with as_caller(self._database, SYSTEM) as connection:
            rows = await connection.fetch(SQL["expire_leases"], BATCH)
            for state, outcome, type_, notices in (
                (JobState.QUEUED, Outcome.RELEASED, EventType.RELEASED, []),
                (JobState.QUEUED, Outcome.LEASE_EXPIRED, EventType.LEASE_LOST, [LEASE_LOST]),
                (JobState.FAILED, Outcome.LEASE_EXPIRED, EventType.FAILED, [FAILED]),
            ):
                ids = [row["id"] for row in rows if (row["status"], row["status_reason"]) == (state, outcome)]
                await _record(connection, ids, type_, notices=notices, outcome=outcome)
        for row in rows:
            self._metrics.ended(Outcome(row["status_reason"]), JobState(row["status"]), row)
        return len(rows)

    async def follow_clock(self) -> None:
        """Moves the times of leases that are in the future since the database's clock was set back."""
        async with as_caller(self._database, SYSTEM) as connection:
            rows = await connection.fetch(SQL["follow_clock"], BATCH)
        if rows:
            step = max(row["step"] for row in rows)
            log.warning("clock_set_back", seconds=round(step.total_seconds(), 1), leases=len(rows))

    async def stop_at_limits(self) -> int:
        """Warns of jobs near their cost limit and stops those at a limit. Returns how many it stopped, up to `BATCH`."""
        async with as_caller(self._database, SYSTEM) as connection:
            await _warn(connection, None)
            stopped = await _stop(connection, None)
        for row in stopped:
            self._metrics.ended(Outcome(row["status_reason"]), JobState.FAILED, row)
        return len(stopped)

    async def forget_offers(self) -> None:
        """Deletes offers that are an hour old."""
        async with as_caller(self._database, SYSTEM) as connection:
            await connection.execute(SQL["forget_offers"])

    async def count(self) -> QueueCount:
        """Returns what waits for which GPUs, and what there is of them."""
        async with as_caller(self._database, SYSTEM) as connection:
            waiting = await connection.fetch(SQL["waiting_jobs"])
            offers = await connection.fetch(SQL["latest_offers"])
            capacity = await connection.fetch(SQL["gpu_capacity"], MAX_GPU_TYPES)
        return QueueCount(
            waiting=[tuple(row) for row in waiting],
            offers={row["gpu_type"]: row["gpus"] for row in offers},
            capacity=[GpuCapacity(**row) for row in capacity],
        )

    async def _trained_types(self) -> frozenset[str]:
        """Returns the GPU types that trainers which train offer or use; simulated ones leave them alone."""
        async with as_caller(self._database, SYSTEM) as connection:
            return frozenset(row["gpu_type"] for row in await connection.fetch(SQL["trained_types"]))

    async def _stopped(self, connection: Transaction, lease: LeaseRef) -> LeaseStatus:
        """Answers a report on a lease that is over: the trainer must stop, or it never had the lease."""
        ended = await connection.fetchrow(SQL["lease_outcome"], lease.job_id, lease.token)
        if ended is None or ended["outcome"] in GIVEN_UP:
            raise LeaseLost
        if ended["outcome"] in STOPPED:
            return LeaseStatus(stop=Outcome(ended["outcome"]))
        raise JobFinal(status=ended["outcome"])

    async def _ended(self, connection: Transaction, lease: LeaseRef, outcome: Outcome, result: bytes | None) -> None:
        """Answers a result that changed no row: returns if the same result ended the lease before."""
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


async def _record(
    connection: Transaction,
    job_ids: Sequence[UUID],
    type_: EventType,
    *,
    notices: Sequence[Notice] = (),
    outcome: Outcome | None = None,
    result: bytes | None = None,
    log_lines: Sequence[str] = (),
) -> None:
    """Writes the event of each changed job, the cost record of leases that ended, and the owners' notifications."""
    if not job_ids:
        return
    fields = [[notice.type, notice.title, notice.template, notice.priority] for notice in notices]
    columns = [list(column) for column in zip(*fields, strict=True)] or [[], [], [], []]
    await connection.execute(SQL["record"], job_ids, type_, list(log_lines) or None, outcome, result, *columns)


async def _reforecast(connection: Transaction, job_id: UUID) -> None:
    """Forecasts a running job from its own speed. Notifies its owner once of each kind over all attempts, the limit first."""
    row = await connection.fetchrow(SQL["measured_speed"], job_id)
    assert row is not None
    forecast = reforecast(_progress(row), initial_forecast(row["estimate"] or b""))
    kinds: list[str] = [forecast.limit] if forecast.limit else []
    kinds += [IS_LONGER] * forecast.exceeds_p90
    new = [kind for kind in kinds if kind not in row["reforecast_notices"]]
    await connection.execute(SQL["store_reforecast"], job_id, as_json(forecast.document()), new)
    await _record(connection, [job_id], EventType.REFORECAST, notices=[REFORECAST_NOTICES[kind] for kind in new[:1]])


async def _record_metrics(connection: Transaction, job_id: UUID, points: Sequence[MetricPoint]) -> None:
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


async def _warn(connection: Transaction, job_id: UUID | None) -> None:
    rows = await connection.fetch(SQL["warn_of_cost"], BATCH, job_id)
    await _record(connection, [row["id"] for row in rows], EventType.COST_WARNING, notices=[COST_WARNING])


async def _stop(connection: Transaction, job_id: UUID | None) -> list[asyncpg.Record]:
    rows = await connection.fetch(SQL["stop_at_limits"], BATCH, job_id)
    for outcome, notices in ((Outcome.COST_LIMIT, [COST_LIMIT, FAILED]), (Outcome.DURATION_LIMIT, [FAILED])):
        ids = [row["id"] for row in rows if row["status_reason"] == outcome]
        await _record(connection, ids, EventType.FAILED, notices=notices, outcome=outcome)
    return rows


_lease = reader(Lease)
_progress = reader(Progress)

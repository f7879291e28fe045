"""How jobs move in Postgres: each method is one transaction, in which a job changes and what that leaves behind is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

from jobs_service.database.rows import as_caller, as_json, reader
from jobs_service.errors import InvalidTransition, JobFinal, LeaseLost
from jobs_service.events.model import EventType, MetricPoint
from jobs_service.jobs.model import JobState
from jobs_service.notifications.templates import (
    CANCELLED,
    COMPLETED,
    COST_LIMIT,
    COST_WARNING,
    FAILED,
    LEASE_LOST,
    RETRIED,
    STARTED,
    Notice,
)
from jobs_service.queue.lease import (
    GIVEN_UP,
    STOPPED,
    Completion,
    Failure,
    Held,
    Lease,
    Outcome,
    Report,
    Standing,
    Wanted,
    digest,
)
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.database.transaction import Transaction
from rpc.identity.model import SYSTEM, Identity

SQL = load_queries("jobs_service.queue", "queries.sql")
# Jobs that one pass of the sweeper moves in a transaction.
BATCH = 200


class Life:
    """Moves jobs. Each method acts as its caller, under row-level security; the sweeper's act as the system."""

    def __init__(self, database: Database, *, lease_time: timedelta) -> None:
        self._database = database
        self._lease_time = lease_time
        # Where the ring of users goes on. Each process has its own: taking turns needs no agreement.
        self._turn = uuid4()

    async def offer(self, caller: Identity, gpus: Mapping[str, int]) -> None:
        """Remembers what a trainer has free."""
        async with as_caller(self._database, caller) as connection:
            await connection.execute(SQL["offer_gpus"], list(gpus), list(gpus.values()))

    async def claim(self, caller: Identity, wanted: Wanted) -> list[Lease]:
        """Queued → initializing, for as many jobs as fit; none where there are none."""
        types, counts = list(wanted.gpus), list(wanted.gpus.values())
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(
                SQL["claim_jobs"], types, counts, self._turn, wanted.max_jobs, wanted.trainer, self._lease_time
            )
            if not rows:
                return []
            ids = [row["id"] for row in rows]
            await _record(connection, ids, EventType.LEASED)
            leases = [_lease(row) for row in await connection.fetch(SQL["leases"], ids)]
        last = max(rows, key=lambda row: (row["round"], row["lap"], row["user_id"]))
        self._turn = UUID(int=(last["user_id"].int + 1) % (1 << 128))
        return leases

    async def report(self, caller: Identity, held: Held, report: Report) -> Standing:
        """Renews the lease and takes the report. Raises LeaseLost, JobFinal, ValidationFailed."""
        latest = report.metrics[-1].values if report.metrics else {}
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(
                SQL["report_progress"],
                held.job_id,
                held.token,
                report.stage,
                report.epoch,
                report.step,
                as_json(latest),
                report.external_job_id,
                self._lease_time,
            )
            if row is None:
                return await self._stopped(connection, held)
            type_ = EventType.STARTED if row["started"] else EventType.PROGRESS
            notices = [STARTED] if row["first_started"] else []
            await _record(connection, [held.job_id], type_, notices=notices, log_lines=report.log_lines)
            await _record_metrics(connection, held.job_id, report.metrics)
            if row["over_limit"]:
                await _warn(connection, held.job_id)
                return Standing(stop=(await _stop(connection, held.job_id))[held.job_id])
        return Standing(expires_at=row["expires_at"], seconds_left=row["seconds_left"])

    async def complete(self, caller: Identity, held: Held, result: Completion) -> None:
        """Running → completed. Raises LeaseLost, JobFinal, InvalidTransition."""
        final = result.final_metrics
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(
                SQL["complete_job"],
                held.job_id,
                held.token,
                result.artifact_uri,
                result.artifact_id,
                as_json(final.values if final else {}),
                result.peak_memory_gib,
            )
            if row is None:
                await self._ended(connection, held, Outcome.COMPLETED, digest(result))
                return
            await _record_metrics(connection, held.job_id, [final] if final else [])
            await _record(
                connection,
                [held.job_id],
                EventType.COMPLETED,
                notices=[COMPLETED],
                outcome=Outcome.COMPLETED,
                result=digest(result),
            )

    async def fail(self, caller: Identity, held: Held, result: Failure) -> None:
        """Ends the attempt: → queued or failed. Raises LeaseLost, JobFinal."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(
                SQL["fail_job"], held.job_id, held.token, result.error_message, result.retryable
            )
            if row is None:
                await self._ended(connection, held, Outcome.FAILED, digest(result))
                return
            again = row["status"] == JobState.QUEUED
            await _record(
                connection,
                [held.job_id],
                EventType.RETRIED if again else EventType.FAILED,
                notices=[RETRIED if again else FAILED],
                outcome=Outcome.FAILED,
                result=digest(result),
            )

    async def release(self, caller: Identity, held: Held) -> None:
        """Gives the job back: → queued. Raises LeaseLost, JobFinal."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["release_job"], held.job_id, held.token)
            if row is None:
                await self._ended(connection, held, Outcome.RELEASED, None)
                return
            await _record(connection, [held.job_id], EventType.RELEASED, outcome=Outcome.RELEASED)

    async def cancel(self, caller: Identity, job_id: UUID) -> bool:
        """Any state that is not final → cancelled. Whether it did: not where the job is final or not the caller's."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["cancel_job"], job_id)
            if row is not None:
                await _record(connection, [job_id], EventType.CANCELLED, notices=[CANCELLED], outcome=Outcome.CANCELLED)
        return row is not None

    async def expire(self) -> int:
        """Takes jobs from trainers that were not heard of in time: → queued or failed. Returns how many, up to a batch."""
        async with as_caller(self._database, SYSTEM) as connection:
            rows = await connection.fetch(SQL["expire_leases"], BATCH)
            for state, type_, notice in (
                (JobState.QUEUED, EventType.LEASE_LOST, LEASE_LOST),
                (JobState.FAILED, EventType.FAILED, FAILED),
            ):
                ids = [row["id"] for row in rows if row["status"] == state]
                await _record(connection, ids, type_, notices=[notice], outcome=Outcome.LEASE_EXPIRED)
        return len(rows)

    async def stop_at_limits(self) -> int:
        """Warns of and stops jobs that reach their owners' limits. Returns how many it stopped, up to a batch."""
        async with as_caller(self._database, SYSTEM) as connection:
            await _warn(connection, None)
            return len(await _stop(connection, None))

    async def forget_offers(self) -> None:
        """Forgets trainers that have not asked for an hour."""
        async with as_caller(self._database, SYSTEM) as connection:
            await connection.execute(SQL["forget_offers"])

    async def _stopped(self, connection: Transaction, held: Held) -> Standing:
        """Answers a report that was not taken: the trainer must stop, or never had a right to report."""
        ended = await connection.fetchrow(SQL["lease_outcome"], held.job_id, held.token)
        if ended is None or ended["outcome"] in GIVEN_UP:
            raise LeaseLost
        if ended["outcome"] in STOPPED:
            return Standing(stop=Outcome(ended["outcome"]))
        raise JobFinal(status=ended["outcome"])

    async def _ended(self, connection: Transaction, held: Held, outcome: Outcome, result: bytes | None) -> None:
        """Answers a result that was not taken: fine where it had been before."""
        ended = await connection.fetchrow(SQL["lease_outcome"], held.job_id, held.token)
        if ended is None:
            if await connection.fetchval(SQL["is_initializing"], held.job_id, held.token):
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
    """Writes the event of jobs that changed, the costs of leases that ended with it, and the owners' notifications."""
    if not job_ids:
        return
    words = [[notice.type, notice.title, notice.template, notice.priority] for notice in notices]
    columns = [list(column) for column in zip(*words, strict=True)] or [[], [], [], []]
    await connection.execute(SQL["record"], job_ids, type_, list(log_lines) or None, outcome, result, *columns)


async def _record_metrics(connection: Transaction, job_id: UUID, points: Sequence[MetricPoint]) -> None:
    # One value for a step: the last one said.
    by_step = {point.step: point for point in points if point.values}
    if by_step:
        steps, epochs = list(by_step), [point.epoch for point in by_step.values()]
        values = [as_json(point.values) for point in by_step.values()]
        await connection.execute(SQL["record_metrics"], job_id, steps, epochs, values)


async def _warn(connection: Transaction, job_id: UUID | None) -> None:
    rows = await connection.fetch(SQL["warn_of_cost"], BATCH, job_id)
    await _record(connection, [row["id"] for row in rows], EventType.COST_WARNING, notices=[COST_WARNING])


async def _stop(connection: Transaction, job_id: UUID | None) -> Mapping[UUID, Outcome]:
    rows = await connection.fetch(SQL["stop_at_limits"], BATCH, job_id)
    stopped = {row["id"]: Outcome(row["status_reason"]) for row in rows}
    for outcome, notices in ((Outcome.COST_LIMIT, [COST_LIMIT, FAILED]), (Outcome.DURATION_LIMIT, [FAILED])):
        ids = [job_id for job_id, reason in stopped.items() if reason is outcome]
        await _record(connection, ids, EventType.FAILED, notices=notices, outcome=outcome)
    return stopped


_lease = reader(Lease)

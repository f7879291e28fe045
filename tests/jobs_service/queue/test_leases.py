"""Leases: trainers lease jobs, report on them and finish them; nothing is lost, repeated or moved back."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.events.model import EventType
from jobs_service.jobs.model import FINAL, TRANSITIONS, JobState, LeaseRef
from jobs_service.queue.claims import FREE_RETURNS, Claims
from jobs_service.queue.metrics import QueueMetrics
from jobs_service.queue.model import LeaseRequest
from jobs_service.queue.store import QueueStore
from jobs_service.settings import JobsSettings
from rpc.database.pool import Database
from rpc.identity.model import Identity
from rpc.telemetry.metrics import Metrics
from tests.conftest import ISSUER, SECRET, NewDataset, Stack, TestDatabase, metadata
from tests.door import refused
from tests.jobs_service.jobs.test_create_job import ANN, BOB, new_request
from tests.jobs_service.rows import job_row
from tests.jobs_service.trainers import (
    GPUS,
    OTHER,
    complete,
    fail,
    get,
    in_queue,
    lapse,
    lease,
    notices,
    queue,
    release,
    report,
    set_clock_back,
    sweeper,
    until,
    worker,
)

LEASE_TIME = timedelta(seconds=20)
ONE_WAY = pytest.mark.parametrize("stack", ["grpc"], indirect=True)


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Leases that outlast a slow machine; tests make them run out. The sweeper comes often."""
    return {"lease_ms": 20_000, "renew_ms": 5_000, "sweep_ms": 20, "max_attempts": 2}


@pytest.fixture
async def pool(database: TestDatabase) -> AsyncIterator[Database]:
    """A connection pool like that of a Jobs process."""
    async with Database.open(database.url, size=10) as opened:
        yield opened


async def test_a_job_is_trained_to_the_end(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """From the queue through a trainer to `completed`, with its costs, metrics, events and notifications."""
    job = await queue(stack, new_dataset)
    assert (job.queue_position, job.waiting_reason.code) == (1, jobs_pb2.WAITING_CODE_NO_TRAINER)
    (leased,) = await lease(stack)
    assert (leased.job_id, leased.attempt, leased.total_steps, leased.dataset.name) == (job.id, 1, 3750, "Questions")
    assert (leased.lease_epoch, leased.gpu_config.count, leased.hyperparameters.rank) == (1, 2, 16)
    now = await get(stack, job.id)
    assert (now.status, now.trainer, now.is_final) == (jobs_pb2.JOB_STATUS_INITIALIZING, "tests", False)
    assert not now.HasField("queue_position")
    await report(stack, leased, epoch=0, step=0, stage="loading model")
    assert (await get(stack, job.id)).status == jobs_pb2.JOB_STATUS_INITIALIZING
    points = [{"step": step, "epoch": 1, "values": {"loss": 1 / step}} for step in range(1, 6)]
    await report(stack, leased, step=1875, metrics=points, log_lines=["half way"])
    now = await get(stack, job.id)
    assert (now.status, now.progress, now.current_metrics["loss"]) == (jobs_pb2.JOB_STATUS_RUNNING, 50, 0.2)
    assert now.current_cost >= 0
    await complete(stack, leased, artifact_uri="file:///adapter", measurements={"peak_memory_gib": 31.5})
    now = await get(stack, job.id)
    assert (now.status, now.progress, now.is_final) == (jobs_pb2.JOB_STATUS_COMPLETED, 100, True)
    assert (now.artifact_uri, list(now.allowed_actions)) == ("file:///adapter", [jobs_pb2.JOB_ACTION_DELETE])
    cost = await admin.fetchrow("select * from cost_records")
    assert (cost["outcome"], cost["attempt"], str(cost["job_id"])) == ("completed", 1, job.id)
    assert await admin.fetchval("select peak_memory_gib from lora_training_jobs") == 31.5
    assert await admin.fetchval("select final_cost from lora_training_jobs") == cost["cost_usd"] > 0
    assert float(cost["cost_usd"] - cost["storage_usd"]) == pytest.approx(cost["billed_seconds"] * 7 / 3600)
    request = jobs_pb2.ListJobEventsRequest(id=job.id, limit=100)
    events = (await stack.jobs.ListJobEvents(request, metadata=metadata(ANN))).events
    kinds = [jobs_pb2.JobEventType.Name(event.type).removeprefix("JOB_EVENT_TYPE_") for event in reversed(events)]
    assert kinds == ["QUEUED", "LEASED", "PROGRESS", "STARTED", "COMPLETED"]
    assert [event.revision for event in reversed(events)] == [1, 2, 3, 4, 5]
    assert events[1].log_lines == ["half way"]
    asking = jobs_pb2.ListJobMetricsRequest(id=job.id, max_points=2)
    metrics = await stack.jobs.ListJobMetrics(asking, metadata=metadata(ANN))
    assert ([point.step for point in metrics.points], metrics.total_points) == ([1, 5], 5)
    assert await notices(admin, job.id) == ["job_queued", "job_started", "job_completed"]


@ONE_WAY
async def test_metrics_of_a_step_are_merged_and_no_spike_is_lost(stack: Stack, new_dataset: NewDataset) -> None:
    """Loss, eval loss and summary of one step stay together; thinned out, each metric keeps its own extremes."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(
        stack, leased, step=1, metrics=[{"step": 1, "values": {"loss": 3}}, {"step": 1, "values": {"eval_loss": 2}}]
    )
    await report(stack, leased, step=1, metrics=[{"step": 1, "values": {"grad_norm": 1}}])
    assert dict((await get(stack, job.id)).current_metrics) == {"loss": 3, "eval_loss": 2, "grad_norm": 1}
    for start in range(2, 1_002, 100):
        points = [
            {
                "step": step,
                "values": {"loss": 30 if step == 777 else -5 if step == 555 else 2}
                | ({"eval_loss": 1 / step} if step % 100 == 50 else {}),
            }
            for step in range(start, start + 100)
        ]
        await report(stack, leased, step=start + 99, metrics=points)
    request = jobs_pb2.ListJobMetricsRequest(id=job.id, max_points=50)
    page_of = await stack.jobs.ListJobMetrics(request, metadata=metadata(ANN))
    loss = {point.step: point.values["loss"] for point in page_of.points if "loss" in point.values}
    evals = [point.step for point in page_of.points if "eval_loss" in point.values]
    assert (page_of.total_points, loss[777], loss[555]) == (1_001, 30, -5)
    assert dict(page_of.points[0].values) == {"loss": 3, "eval_loss": 2, "grad_norm": 1}
    assert evals == [1, *range(50, 1_000, 100)]
    assert 24 <= len(loss) <= 50
    assert page_of.points[-1].step == 1_001


@ONE_WAY
async def test_waiting_for_a_scheduler_costs_nothing(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Billing begins with a lease's first report of another stage than `waiting`."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    for _ in range(2):
        await report(stack, leased, epoch=0, step=0, stage="waiting")
        await report(stack, leased, epoch=0, step=0)
        await admin.execute("update lora_training_jobs set lease_started_at = lease_started_at - interval '1 hour'")
    now = await get(stack, job.id)
    assert (now.current_cost, now.billed_seconds, now.current_stage) == (0, 0, "waiting")
    await report(stack, leased, epoch=0, step=0, stage="loading model")
    await admin.execute("update lora_training_jobs set billed_from = billed_from - interval '1 hour'")
    assert (await report(stack, leased)).current_cost == pytest.approx(7.0, abs=0.011)
    assert (await get(stack, job.id)).current_cost == pytest.approx(7.0, abs=0.011)


@ONE_WAY
async def test_a_lease_that_ran_out_before_its_scheduler_started_it_costs_no_attempt(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """A deferred lease that expires before training begins costs no attempt; one that expires after costs one."""
    job = await queue(stack, new_dataset)
    for _ in range(3):
        (leased,) = await lease(stack, deferred=True)
        assert (await get(stack, job.id)).current_stage == "waiting"
        await lapse(admin, job.id)
        back = await in_queue(stack, job.id)
        assert (back.attempt, back.status_reason) == (1, jobs_pb2.STATUS_REASON_RELEASED)
        assert not back.HasField("error_message")
    (leased,) = await lease(stack, deferred=True)
    await report(stack, leased, epoch=0, step=0, stage="loading model")
    await lapse(admin, job.id)
    assert (await in_queue(stack, job.id)).attempt == 2
    outcomes = await admin.fetch("select outcome from cost_records order by lease_epoch")
    assert [row["outcome"] for row in outcomes] == ["released"] * 3 + ["lease_expired"]


@ONE_WAY
async def test_out_of_memory_is_not_tried_again_unchanged(stack: Stack, new_dataset: NewDataset) -> None:
    """A typed failure is final, even if the trainer calls it retryable; its measurements are kept."""
    for reason, status in (
        ("FAILURE_REASON_OUT_OF_MEMORY", jobs_pb2.STATUS_REASON_OUT_OF_MEMORY),
        ("FAILURE_REASON_NOT_SUPPORTED", jobs_pb2.STATUS_REASON_NOT_SUPPORTED),
    ):
        job = await queue(stack, new_dataset)
        (leased,) = await lease(stack)
        measured = {"peak_memory_gib": 79.1, "stack": {"torch": "2.13.0"}}
        await fail(stack, leased, "no room", retryable=True, reason=reason, measurements=measured)
        now = await get(stack, job.id)
        assert (now.status, now.status_reason) == (jobs_pb2.JOB_STATUS_FAILED, status)
        assert (now.measurements.peak_memory_gib, now.measurements.stack.torch) == (79.1, "2.13.0")


@ONE_WAY
async def test_a_checkpoint_goes_to_the_next_lease(stack: Stack, new_dataset: NewDataset) -> None:
    """The next lease has the newest reported checkpoint, and every lease the plan."""
    await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    assert not leased.HasField("checkpoint")
    assert (leased.plan.base_model, leased.plan.batch_size) == ("mistral-7b", 2)
    assert leased.estimated_seconds == pytest.approx(0.79 * 3600)
    await report(stack, leased, step=10, checkpoint={"uri": "s3://c/1", "step": 7})
    await report(stack, leased, step=12)
    await release(stack, leased)
    (leased,) = await lease(stack)
    assert (leased.checkpoint.uri, leased.checkpoint.step) == ("s3://c/1", 7)


@ONE_WAY
async def test_a_simulated_trainer_leaves_gpu_types_to_real_ones(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """It gets no jobs of GPU types that a real trainer offers or uses; forecasts do not learn from its jobs."""
    first, second = await queue(stack, new_dataset), await queue(stack, new_dataset)
    (leased,) = await lease(stack, OTHER, simulated=True)
    assert (await get(stack, first.id)).simulated
    assert await lease(stack, gpus=[{"type": "A100-80GB", "count": 1}]) == []
    assert await lease(stack, OTHER, simulated=True) == []
    await admin.execute("update trainer_offers set seen_at = seen_at - interval '2 minutes'")
    (real,) = await lease(stack)
    assert (real.job_id, (await get(stack, second.id)).simulated) == (second.id, False)
    await admin.execute("update trainer_offers set seen_at = seen_at - interval '2 minutes'")
    third = await queue(stack, new_dataset)
    assert await lease(stack, OTHER, simulated=True) == []
    await release(stack, real)
    await admin.execute("update trainer_offers set seen_at = seen_at - interval '2 minutes'")
    again = {each.job_id for each in await lease(stack, OTHER, simulated=True, max_jobs=2)}
    assert again == {second.id, third.id}
    await report(stack, leased, OTHER)


@ONE_WAY
@pytest.mark.parametrize(
    ("name", "simulated", "message"),
    [
        (None, False, 'Your training job for "Questions" has completed; the adapter is ready'),
        ('100 % "new"', False, 'Your training job "100 % "new"" has completed; the adapter is ready'),
        ("Night", True, 'Your training job "Night" has completed; it was simulated, so there is no adapter'),
    ],
)
async def test_the_owner_is_told_which_job_completed_and_how(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, name: str | None, simulated: bool, message: str
) -> None:
    """A notification has the job's own name, else its dataset's, and promises no adapter of a simulation."""
    job = await queue(stack, new_dataset, name=name)
    (leased,) = await lease(stack, simulated=simulated)
    await report(stack, leased)
    await complete(stack, leased)
    row = await admin.fetchrow("select message, metadata::jsonb from lora_notifications where type = 'job_completed'")
    assert row["message"] == message
    named = {"job_name": name} if name else {}
    assert json.loads(row["metadata"]) == {"job_id": job.id, "dataset_name": "Questions", **named}


async def test_a_page_of_events_has_room_for_the_longest_logs(stack: Stack, new_dataset: NewDataset) -> None:
    """Pages of events stay below the size limit; log lines left out on a long page are on a shorter one."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    lines = ["€" * 2000] * 100
    for step in range(1, 13):
        await report(stack, leased, step=step, log_lines=lines)

    async def logged(limit: int) -> list[list[str]]:
        request = jobs_pb2.ListJobEventsRequest(id=job.id, limit=limit)
        events = (await stack.jobs.ListJobEvents(request, metadata=metadata(ANN))).events
        return [list(event.log_lines) for event in events]

    whole, result = lines, ["(100 lines are too long for this page; a page of fewer events has room for them)"]
    assert await logged(100) == [whole] * 3 + [result] * 9 + [[], []]
    assert await logged(3) == [whole] * 3


def results(stack: Stack, leased: workers_pb2.Lease) -> dict[str, Any]:
    """Every kind of report on a lease, to be made."""
    return {
        "report": lambda: report(stack, leased),
        "complete": lambda: complete(stack, leased, artifact_uri="s3://a"),
        "fail": lambda: fail(stack, leased),
        "retry": lambda: fail(stack, leased, retryable=True),
        "release": lambda: release(stack, leased),
    }


async def refusal_of(call: Any) -> str:
    """Code and reason of a call that fails."""
    error = await refused(call)
    return f"{error.code.name} {error.reason}"


@ONE_WAY
@pytest.mark.parametrize("how", ["wrong", "missing", "old", "another trainer's"])
async def test_only_the_lease_itself_reports(stack: Stack, new_dataset: NewDataset, how: str) -> None:
    """K01: reports with a wrong, missing or earlier token, or of another trainer, change nothing."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    if how == "old":
        await release(stack, leased)
        await lease(stack)
    elif how == "another trainer's":
        await release(stack, leased)
        (leased,) = await lease(stack, OTHER)
        await report(stack, leased, OTHER)
    else:
        leased = workers_pb2.Lease(job_id=job.id, lease_token="" if how == "missing" else str(uuid.uuid4()))
    before = await get(stack, job.id)
    expected = "INVALID_ARGUMENT VALIDATION_FAILED" if how == "missing" else "FAILED_PRECONDITION LEASE_LOST"
    for kind, say in results(stack, leased).items():
        if (how, kind) == ("old", "release"):
            # The lease did end that way: saying so again is no harm.
            await say()
        else:
            assert await refusal_of(say()) == expected, kind
    after = await get(stack, job.id)
    assert (after.status, after.revision, after.attempt) == (before.status, before.revision, before.attempt)


@ONE_WAY
async def test_a_result_may_be_repeated_by_its_trainer(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """K02: repeated and concurrent reports of one result all succeed and make one transition."""
    for kind in ("complete", "fail", "retry", "release"):
        job = await queue(stack, new_dataset)
        (leased,) = await lease(stack)
        await report(stack, leased)
        say = results(stack, leased)[kind]
        await asyncio.gather(say(), say(), say())
        await say()
        assert (await get(stack, job.id)).revision == 4, kind
        assert await admin.fetchval("select count(*) from job_events where job_id = $1", job.id) == 4, kind
        assert await admin.fetchval("select count(*) from cost_records where job_id = $1", job.id) == 1, kind
        if kind in ("retry", "release"):
            await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))


@ONE_WAY
async def test_another_result_is_refused(stack: Stack, new_dataset: NewDataset) -> None:
    """K03: after a result, another one with the same token is refused, and so is the same kind with other content."""
    await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    assert await refusal_of(complete(stack, leased)) == "FAILED_PRECONDITION INVALID_TRANSITION"
    await report(stack, leased)
    await complete(stack, leased, artifact_uri="s3://a")
    for call in (fail(stack, leased), complete(stack, leased, artifact_uri="s3://b"), report(stack, leased)):
        assert await refusal_of(call) == "FAILED_PRECONDITION JOB_FINAL"


@ONE_WAY
@pytest.mark.parametrize("taken", [False, True])
async def test_a_lease_that_ran_out_is_over(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, taken: bool
) -> None:
    """K04, K05, K11: reports after the lease has expired are refused; those of the next trainer count."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    await lapse(admin, job.id)
    if not taken:
        assert await refusal_of(report(stack, leased)) == "FAILED_PRECONDITION LEASE_LOST"
    again = await in_queue(stack, job.id)
    assert (again.attempt, again.retry_count, again.status_reason) == (2, 1, jobs_pb2.STATUS_REASON_LEASE_EXPIRED)
    (second,) = await lease(stack, OTHER)
    assert (second.attempt, second.lease_epoch) == (2, 2)
    for call in results(stack, leased).values():
        assert await refusal_of(call()) == "FAILED_PRECONDITION LEASE_LOST"
    await report(stack, second, OTHER, step=7)
    assert (await get(stack, job.id)).current_step == 7
    assert await notices(admin, job.id) == ["job_queued", "job_started", "job_lease_lost"]


@ONE_WAY
@pytest.mark.parametrize("jobs_overrides", [{"lease_ms": 200, "renew_ms": 50, "sweep_ms": 50}])
async def test_a_killed_trainers_job_goes_to_another(stack: Stack, new_dataset: NewDataset) -> None:
    """K06: a silent trainer loses its job at the lease's end, and another's long poll gets it."""
    job = await queue(stack, new_dataset)
    await lease(stack)
    (second,) = await lease(stack, OTHER, wait_ms=5_000)
    assert (second.job_id, second.attempt) == (job.id, 2)


@ONE_WAY
async def test_a_job_that_kills_trainers_fails_after_its_last_attempt(
    stack: Stack, admin: asyncpg.Connection, pool: Database, new_dataset: NewDataset
) -> None:
    """K07, K13: a job that kills every trainer fails after its last attempt, and other jobs are trained."""
    poison = await queue(stack, new_dataset)
    for _ in range(2):
        await in_queue(stack, poison.id)
        await lease(stack)
        await lapse(admin, poison.id)
        await asyncio.gather(*[sweeper(pool).expire() for _ in range(3)])

    async def failed() -> bool:
        return (await get(stack, poison.id)).status == jobs_pb2.JOB_STATUS_FAILED

    await until(failed)
    now = await get(stack, poison.id)
    assert (now.status_reason, now.attempt) == (jobs_pb2.STATUS_REASON_LEASE_EXPIRED, 2)
    assert now.error_message == "The trainer did not report in time (attempt 2 of 2)."
    assert list(now.allowed_actions) == [jobs_pb2.JOB_ACTION_RETRY, jobs_pb2.JOB_ACTION_DELETE]
    assert await notices(admin, poison.id) == ["job_queued", "job_lease_lost", "job_failed"]
    assert await admin.fetchval("select count(*) from cost_records where outcome = 'lease_expired'") == 2
    other = await queue(stack, new_dataset)
    assert (await lease(stack))[0].job_id == other.id


@pytest.mark.slow
async def test_one_job_goes_to_one_trainer_a_thousand_times(
    pool: Database, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """K08: of 20 concurrent claims of one job exactly one gets it, a thousand times."""
    job_id = await job_row(admin, await new_dataset(ANN), ANN, "queued")
    metrics, request = QueueMetrics(Metrics()), LeaseRequest(1, {"A100-80GB": 8}, "")
    claims = Claims(pool, lease_time=LEASE_TIME, metrics=metrics)
    store = QueueStore(pool, lease_time=LEASE_TIME, metrics=metrics)
    trainers = [Identity(str(uuid.UUID(int=number)), "worker", 0) for number in range(1, 21)]
    for number in range(1, 1_001):
        claimed = await asyncio.gather(*[claims.claim(trainer, request) for trainer in trainers])
        ((winner, taken),) = [(trainer, each) for trainer, each in zip(trainers, claimed, strict=True) if each]
        assert [(leased.job_id, leased.lease_epoch) for leased in taken] == [(job_id, number)]
        await store.release(winner, LeaseRef(job_id, taken[0].lease_token))


@ONE_WAY
async def test_one_job_goes_to_one_trainer(stack: Stack, new_dataset: NewDataset) -> None:
    """K08: of 20 requests of a trainer for one job at once, exactly one gets it, each time."""
    job = await queue(stack, new_dataset)
    # A trainer that returned more is slowed down.
    for number in range(FREE_RETURNS):
        result = [leased for taken in await asyncio.gather(*[lease(stack) for _ in range(20)]) for leased in taken]
        assert [leased.job_id for leased in result] == [job.id], f"round {number}"
        assert result[0].lease_epoch == number + 1
        await release(stack, result[0])


# Jobs that are made ready for a race together; the races themselves are run one after the other.
BATCH = 50
ENDS = """
select id, status, (select count(*) from cost_records where job_id = jobs.id) as records,
    array(select status from job_events where job_id = jobs.id and status = any($2) order by revision) as ends
from lora_training_jobs jobs where id = any($1)
"""


async def leased_at_once(stack: Stack, dataset: str, count: int) -> list[workers_pb2.Lease]:
    """New jobs that a trainer has leased and reports on."""

    async def create() -> None:
        await stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN))

    await asyncio.gather(*[create() for _ in range(count)])
    leases = await lease(stack, max_jobs=count)
    assert len(leases) == count
    await asyncio.gather(*[report(stack, leased) for leased in leases])
    return leases


@ONE_WAY
@pytest.mark.parametrize("rounds", [15, pytest.param(1_000, marks=pytest.mark.slow)])
async def test_cancel_and_result_race_to_one_end(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, rounds: int
) -> None:
    """K09: of a concurrent cancel and result exactly one succeeds, and the events agree."""
    dataset = await new_dataset(ANN)
    for start in range(0, rounds, BATCH):
        leases = await leased_at_once(stack, dataset, min(BATCH, rounds - start))
        for leased in leases:
            cancel = stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=leased.job_id), metadata=metadata(ANN))
            calls = [cancel, complete(stack, leased)]
            random.shuffle(calls)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes) == 1, leased.job_id
        ids = [uuid.UUID(leased.job_id) for leased in leases]
        rows = await admin.fetch(ENDS, ids, [status.value for status in FINAL])
        assert len(rows) == len(ids)
        for row in rows:
            assert (row["ends"], row["records"]) == ([row["status"]], 1), row["id"]


@ONE_WAY
@pytest.mark.parametrize("rounds", [15, pytest.param(200, marks=pytest.mark.slow)])
async def test_sweep_and_result_race_to_one_end(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, pool: Database, rounds: int
) -> None:
    """K16: at the instant a lease runs out, sweeper or result wins; the job is completed or queued again, never lost."""
    sweep, dataset = sweeper(pool), await new_dataset(ANN)
    for start in range(0, rounds, BATCH):
        for leased in await leased_at_once(stack, dataset, min(BATCH, rounds - start)):
            # Statements at once, each with its own look at the row.
            racing = [complete(stack, leased), lapse(admin, leased.job_id), sweep.expire(), sweep.expire()]
            random.shuffle(racing)
            await asyncio.gather(*racing, return_exceptions=True)

            async def settled(job_id: str = leased.job_id) -> jobs_pb2.Job | None:
                now = await get(stack, job_id)
                return now if now.is_final or now.status == jobs_pb2.JOB_STATUS_QUEUED else None

            now = await until(settled)
            rows = await admin.fetch("select outcome from cost_records where job_id = $1", uuid.UUID(now.id))
            if now.status == jobs_pb2.JOB_STATUS_COMPLETED:
                assert [row["outcome"] for row in rows] == ["completed"], now.id
            else:
                assert [row["outcome"] for row in rows] == ["lease_expired"], now.id
                await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=now.id), metadata=metadata(ANN))


def test_no_trainers_clock_counts() -> None:
    """K10: no request of a trainer contains a time: only the database's clock counts."""
    for name, message in workers_pb2.DESCRIPTOR.message_types_by_name.items():
        if name.endswith("Request"):
            for field in message.fields:
                assert field.message_type is None or "Timestamp" not in field.message_type.full_name, field.full_name


BAD_REPORTS: list[tuple[str, dict[str, Any]]] = [
    ("report", {"metrics": [{"step": 1, "values": {"loss": float("nan")}}]}),
    ("report", {"metrics": [{"step": 1, "values": {"loss": float("inf")}}]}),
    ("report", {"metrics": [{"step": 1, "values": {"a b": 1.0}}]}),
    ("report", {"metrics": [{"step": 1, "values": {f"m{n}": 1.0 for n in range(33)}}]}),
    ("report", {"metrics": [{"step": 1}] * 101}),
    ("report", {"log_lines": ["x" * 2001]}),
    ("report", {"step": -1}),
    ("report", {"step": 3751}),
    ("report", {"epoch": 4}),
    ("complete", {"artifact_uri": "x" * 2001}),
    ("complete", {"artifact_id": "adapter"}),
    ("complete", {"final_metrics": {"step": 1, "values": {"loss": float("nan")}}}),
    ("complete", {"measurements": {"peak_memory_gib": 0}}),
    ("complete", {"measurements": {"peak_memory_gib": float("nan")}}),
    ("complete", {"measurements": {"peak_memory_gib": 10_001}}),
    ("fail", {"message": ""}),
    ("fail", {"message": "x" * 2001}),
]


@ONE_WAY
async def test_a_bad_report_leaves_the_lease(stack: Stack, new_dataset: NewDataset) -> None:
    """K12: a report outside its limits or with non-finite numbers is refused, and the job stays leased."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    revision = (await get(stack, job.id)).revision
    for kind, fields in BAD_REPORTS:
        call = {"report": report, "complete": complete, "fail": fail}[kind]
        assert await refusal_of(call(stack, leased, **fields)) == "INVALID_ARGUMENT VALIDATION_FAILED", fields
    assert (await get(stack, job.id)).revision == revision
    await complete(stack, leased)


BAD_ASKING: list[dict[str, Any]] = [
    {"max_jobs": 0},
    {"max_jobs": -1},
    {"max_jobs": 101},
    {"max_jobs": 10**6},
    {"gpus": []},
    {"gpus": [{"type": "H100", "count": 0}]},
    {"gpus": [{"type": "H100", "count": 1}, {"type": "H100", "count": 2}]},
    {"wait_ms": 30_001},
    {"trainer": "x" * 101},
]


@ONE_WAY
async def test_lease_requests_have_limits(stack: Stack) -> None:
    """K14: requests for zero or a million jobs, without GPUs, or with an hour's wait are refused."""
    for fields in BAD_ASKING:
        assert await refusal_of(lease(stack, **fields)) == "INVALID_ARGUMENT VALIDATION_FAILED", fields


@pytest.mark.parametrize("fields", [{"lease_ms": 0}, {"lease_ms": 10**12}, {"lease_ms": 100, "renew_ms": 100}])
def test_a_leases_length_has_limits(fields: dict[str, int]) -> None:
    """K14: settings with a lease of zero or years, or with a too late renewal, are refused at start."""
    with pytest.raises(ValueError, match=r"lease_ms|RENEW"):
        JobsSettings(database_url="postgresql://x", jwt_secret=SECRET, jwt_issuer=ISSUER, **fields)


@ONE_WAY
async def test_users_cannot_call_trainers_rpcs(stack: Stack, new_dataset: NewDataset) -> None:
    """Z05, Z06: no user calls a trainer's RPC, and no trainer an owner's."""
    job = await queue(stack, new_dataset)
    asking = workers_pb2.LeaseJobsRequest(max_jobs=1, gpus=GPUS)
    assert (await refused(stack.workers.LeaseJobs(asking, metadata=metadata(ANN)))).reason == "ROLE_NOT_ALLOWED"
    cancelling = jobs_pb2.CancelJobRequest(id=job.id)
    assert (await refused(stack.jobs.CancelJob(cancelling, metadata=worker()))).reason == "ROLE_NOT_ALLOWED"


@ONE_WAY
async def test_a_retryable_error_is_retried(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """A retryable error queues the job again while an attempt is left; the owner is notified."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await fail(stack, leased, "node lost", retryable=True)
    now = await get(stack, job.id)
    assert (now.status, now.attempt, now.error_message) == (jobs_pb2.JOB_STATUS_QUEUED, 2, "node lost")
    (leased,) = await lease(stack)
    await fail(stack, leased, "node lost again", retryable=True)
    now = await get(stack, job.id)
    assert (now.status, now.attempt, now.retry_count) == (jobs_pb2.JOB_STATUS_FAILED, 2, 1)
    assert await notices(admin, job.id) == ["job_queued", "job_retried", "job_failed"]
    result = await admin.fetchval("select message from lora_notifications where type = 'job_failed'")
    assert result == 'Your training job for "Questions" has failed: node lost again'


@ONE_WAY
async def test_releasing_a_job_costs_no_attempt(stack: Stack, new_dataset: NewDataset) -> None:
    """A trainer that shuts down gives its job back; the next one starts with the same attempt."""
    job = await queue(stack, new_dataset)
    for _ in range(3):
        (leased,) = await lease(stack)
        await report(stack, leased)
        await release(stack, leased)
    now = await get(stack, job.id)
    assert (now.status, now.attempt, now.status_reason) == (
        jobs_pb2.JOB_STATUS_QUEUED,
        1,
        jobs_pb2.STATUS_REASON_RELEASED,
    )


@ONE_WAY
async def test_progress_never_goes_back_within_an_attempt(stack: Stack, new_dataset: NewDataset) -> None:
    """A late report renews the lease and keeps step, epoch and metrics; a new attempt starts over."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased, epoch=2, step=2000, metrics=[{"step": 2000, "values": {"loss": 0.5}}])
    await report(stack, leased, epoch=1, step=900, metrics=[{"step": 900, "values": {"loss": 0.9}}])
    now = await get(stack, job.id)
    assert (now.current_epoch, now.current_step, now.current_metrics["loss"]) == (2, 2000, 0.5)
    await release(stack, leased)
    (leased,) = await lease(stack)
    await report(stack, leased, step=3)
    assert (await get(stack, job.id)).current_step == 3


@ONE_WAY
@pytest.mark.parametrize("state", ["queued", "initializing", "running"])
async def test_owners_cancel_jobs_in_any_open_state(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, state: str
) -> None:
    """A job is cancelled from every state that is not final, once; its trainer is told to stop with its next report."""
    job = await queue(stack, new_dataset)
    leased = (await lease(stack))[0] if state != "queued" else None
    if state == "running":
        await report(stack, leased)
    request = jobs_pb2.CancelJobRequest(id=job.id)
    for _ in range(2):
        now = (await stack.jobs.CancelJob(request, metadata=metadata(ANN))).job
        assert (now.status, now.status_reason) == (
            jobs_pb2.JOB_STATUS_CANCELLED,
            jobs_pb2.STATUS_REASON_CANCELLED_BY_OWNER,
        )
        assert now.HasField("final_cost")
    assert (await notices(admin, job.id))[-1:] == ["job_cancelled"]
    assert await admin.fetchval("select count(*) from cost_records") == (state != "queued")
    if leased:
        status = await report(stack, leased)
        assert (status.stop, status.stop_reason) == (True, workers_pb2.STOP_REASON_CANCELLED)
        assert await refusal_of(complete(stack, leased)) == "FAILED_PRECONDITION JOB_FINAL"
    theirs = stack.jobs.CancelJob(request, metadata=metadata(BOB))
    assert (await refused(theirs)).reason == "JOB_NOT_FOUND"


@ONE_WAY
async def test_a_final_job_cannot_be_cancelled(stack: Stack, new_dataset: NewDataset) -> None:
    """Cancelling what completed is refused and names the state."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    await complete(stack, leased)
    error = await refused(stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN)))
    assert (error.code.name, error.reason, error.metadata["status"]) == (
        "FAILED_PRECONDITION",
        "JOB_FINAL",
        "completed",
    )


@ONE_WAY
async def test_a_failed_job_is_retried(stack: Stack, new_dataset: NewDataset) -> None:
    """RetryJob creates a job with a failed one's configuration and limits, once for a key; only failed jobs can be retried."""
    job = await queue(stack, new_dataset, max_cost_usd=50, priority=8)
    request = jobs_pb2.RetryJobRequest(id=job.id, request_id=str(uuid.uuid4()))
    error = await refused(stack.jobs.RetryJob(request, metadata=metadata(ANN)))
    assert (error.reason, error.metadata["status"]) == ("INVALID_TRANSITION", "queued")
    (leased,) = await lease(stack)
    await fail(stack, leased)
    made = [(await stack.jobs.RetryJob(request, metadata=metadata(ANN))).job for _ in range(2)]
    assert made[0].id == made[1].id != job.id
    assert (made[0].retried_from, made[0].status) == (job.id, jobs_pb2.JOB_STATUS_QUEUED)
    assert (made[0].hyperparameters, made[0].gpu_config) == (job.hyperparameters, job.gpu_config)
    assert (made[0].max_cost_usd, made[0].priority, made[0].estimated_total_cost) == (50, 8, 6.03)
    by_key = jobs_pb2.GetJobByRequestIdRequest(request_id=request.request_id)
    assert (await stack.jobs.GetJobByRequestId(by_key, metadata=metadata(ANN))).job.id == made[0].id
    assert (await refused(stack.jobs.GetJobByRequestId(by_key, metadata=metadata(BOB)))).reason == "JOB_NOT_FOUND"


async def test_the_database_knows_the_same_transitions(admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """The database allows exactly the transitions of TRANSITIONS in jobs/model.py."""
    for before in JobState:
        for after in JobState:
            if before == after:
                continue
            job_id = await job_row(admin, await new_dataset(ANN), ANN, before)
            leased = after in (JobState.INITIALIZING, JobState.RUNNING)
            change = admin.execute(
                "update lora_training_jobs set status = $2, completed_at = case when $3 then now() end,"
                " lease_expires_at = case when $4 then now() end, lease_started_at = now(), worker_id = id,"
                " lease_token = id, lease_epoch = 1 where id = $1",
                job_id,
                after,
                after in FINAL,
                leased,
            )
            if after in TRANSITIONS[before]:
                await change
            else:
                with pytest.raises(asyncpg.CheckViolationError, match="a job does not go"):
                    await change


async def test_the_database_knows_the_same_events(admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """The database accepts exactly the event types of EventType."""
    job = await job_row(admin, await new_dataset(ANN), ANN, "queued")
    insert = (
        "insert into job_events (job_id, user_id, revision, type, status, data) values ($1, $2, $3, $4, 'queued', '{}')"
    )
    for revision, type_ in enumerate(EventType):
        await admin.execute(insert, job, ANN, revision, type_)
    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute(insert, job, ANN, 100, "another")


async def test_leases_expire_after_the_clock_was_set_back(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """After the clock was set back, leases end within their length, live trainers keep their jobs, and no time is negative."""
    for _ in range(2):
        await queue(stack, new_dataset)
    dead, alive = leases = await lease(stack, max_jobs=2)
    for leased in leases:
        await report(stack, leased, step=leased.total_steps // 2)
    # A lease as short as this: nobody knows how much of it had passed when the clock was set back.
    shorter = "update lora_training_jobs set lease_expires_at = updated_at + interval '0.5 s' where id = $1"
    await admin.execute(shorter, dead.job_id)
    for leased in leases:
        await set_clock_back(admin, leased.job_id)
    assert (await in_queue(stack, dead.job_id)).attempt == 2
    assert not (await report(stack, alive, step=alive.total_steps // 2 + 1)).stop
    job = await get(stack, alive.job_id)
    assert job.status == jobs_pb2.JOB_STATUS_RUNNING
    assert job.seconds_left >= 0
    billed = await admin.fetchval("select billed_seconds from cost_records where job_id = $1", uuid.UUID(dead.job_id))
    assert 0 <= billed <= 5
    ahead = "select count(*) from lora_training_jobs where greatest(updated_at, billed_from, lease_started_at) > now() + '1 s'"
    assert await admin.fetchval(ahead) == 0


async def test_a_job_that_waits_for_a_scheduler_says_why_and_costs_nothing(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """While a trainer reports `waiting`, the job has the scheduler's message; GetLease renews nothing."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased, epoch=0, step=0, stage="waiting", waiting_reason="insufficient quota, 2 more needed")
    now = await get(stack, job.id)
    assert (now.waiting_reason.code, now.waiting_reason.message, now.waiting_reason.gpus_needed) == (
        jobs_pb2.WAITING_CODE_SCHEDULER,
        "insufficient quota, 2 more needed",
        2,
    )
    request = workers_pb2.GetLeaseRequest(job_id=leased.job_id, lease_token=leased.lease_token)
    ends = "select lease_expires_at from lora_training_jobs"
    before = await admin.fetchval(ends)
    state = await stack.workers.GetLease(request, metadata=worker())
    assert (state.stop, state.waiting, state.expires_at.ToMicroseconds()) == (
        False,
        True,
        round(before.timestamp() * 1e6),
    )
    # A renewal without a stage leaves the job where it is: it still waits.
    await report(stack, leased, epoch=0, step=0)
    assert await admin.fetchval(ends) > before
    assert (await stack.workers.GetLease(request, metadata=worker())).waiting
    await report(stack, leased, epoch=0, step=0, stage="loading model")
    assert not (await stack.workers.GetLease(request, metadata=worker())).waiting
    assert not (await get(stack, job.id)).HasField("waiting_reason")
    assert (await refused(stack.workers.GetLease(request, metadata=worker(OTHER)))).reason == "LEASE_LOST"
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))
    state = await stack.workers.GetLease(request, metadata=worker())
    assert (state.stop, state.stop_reason) == (True, workers_pb2.STOP_REASON_CANCELLED)


async def test_the_next_lease_knows_nothing_of_why_the_last_one_waited(stack: Stack, new_dataset: NewDataset) -> None:
    """A released job that is leased again has no waiting reason until its new trainer gives one."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased, epoch=0, step=0, stage="waiting", waiting_reason="no node has 2 GPUs")
    await release(stack, leased)
    (leased,) = await lease(stack)
    await report(stack, leased, epoch=0, step=0, stage="waiting")
    assert not (await get(stack, job.id)).HasField("waiting_reason")

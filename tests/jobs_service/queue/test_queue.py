"""The queue: turns among users, priority and age among a user's jobs, and the cost of claims."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.queue.claims import SQL, QuickReturns
from rpc.database.pool import Database
from rpc.identity.model import Identity
from tests.conftest import NewDataset, Stack, TestDatabase, metadata
from tests.door import refused
from tests.jobs_service.jobs.test_create_job import ANN, BOB, new_request
from tests.jobs_service.rows import job_row
from tests.jobs_service.trainers import OTHER, TRAINER, fail, get, lease, queue, release, report

CAROL = "cccccccc-0000-4000-8000-000000000003"
ONE_WAY = pytest.mark.parametrize("stack", ["grpc"], indirect=True)


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """A small limit on open jobs, and leases that outlast a slow machine."""
    return {"max_open_jobs": 5, "lease_ms": 60_000}


async def many(admin: asyncpg.Connection, dataset_id: str, user_id: str, count: int, **columns: Any) -> None:
    """Many queued jobs of a user."""
    one = await job_row(admin, dataset_id, user_id, "queued", **columns)
    names = (
        "user_id, dataset_id, preset_id, hyperparameters, gpu_config, status, total_epochs, total_steps,"
        " estimated_total_cost, hourly_rate, priority, revision, queued_at"
    )
    await admin.execute(
        f"insert into lora_training_jobs ({names}) select {names} from lora_training_jobs, generate_series(2, {count})"
        f" where id = '{one}'"
    )


@ONE_WAY
async def test_a_trainer_that_returns_its_leases_is_slowed_down(stack: Stack, new_dataset: NewDataset) -> None:
    """Fifty quick leases and releases in a row are slowed down; another trainer gets the job at once."""
    job = await queue(stack, new_dataset)
    rounds = 0
    for _ in range(50):
        for leased in await lease(stack):
            await release(stack, leased)
            rounds += 1
    assert 10 <= rounds <= 15
    (leased,) = await lease(stack, OTHER)
    assert leased.job_id == job.id
    await release(stack, leased, OTHER)
    # Of a fleet that shares a token, the trainer that does it alone.
    (leased,) = await lease(stack, trainer="another")
    assert leased.job_id == job.id


def test_new_names_gain_a_trainer_little() -> None:
    """Trainers of one token share a bounded number of counters; those of other tokens are not affected."""
    returns = QuickReturns()
    for number in range(1_000):
        returns.add(TRAINER, f"trainer {number}", 0.0)
    assert returns.pause_seconds(TRAINER, "another") > 0
    assert returns.pause_seconds(OTHER, "another") == 0


@ONE_WAY
async def test_a_bad_job_blocks_no_claim(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """Jobs with unreadable rows, or whose event the database refuses, do not block other jobs."""
    dataset = await new_dataset(BOB)
    good = [(await queue(stack, new_dataset)).id for _ in range(2)]
    refused_jobs = [await job_row(admin, dataset, BOB, "queued") for _ in range(2)]
    event = (
        "insert into job_events (job_id, user_id, revision, type, status, data)"
        " values ($1, $2, 1, 'leased', 'queued', '{}')"
    )
    for job in refused_jobs:
        await admin.execute(event, job, BOB)
    unreadable = [
        await job_row(admin, dataset, BOB, "queued", **{column: value})
        for column, value in (
            ("hyperparameters", '{"rank": "many"}'),
            ("hyperparameters", '{"no such": 1}'),
            ("training", '{"task": []}'),
            ("estimate", b"no message"),
        )
    ]
    assert {leased.job_id for leased in await lease(stack, max_jobs=20)} == set(good)
    rows = await admin.fetch("select status from lora_training_jobs where id = any($1)", refused_jobs)
    assert {row["status"] for row in rows} == {"queued"}
    rows = await admin.fetch(
        "select status, status_reason, error_message from lora_training_jobs where id = any($1)", unreadable
    )
    assert {(row["status"], row["status_reason"]) for row in rows} == {("failed", "not_supported")}
    assert all("cannot be read" in row["error_message"] for row in rows)
    (later,) = [await queue(stack, new_dataset)]
    assert [leased.job_id for leased in await lease(stack, max_jobs=20)] == [later.id]


@ONE_WAY
async def test_users_take_turns(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """K15: a user with 10,000 queued jobs gets the same share as later users with three."""
    await many(admin, await new_dataset(ANN), ANN, 10_000)
    for user in (BOB, CAROL):
        await many(admin, await new_dataset(user), user, 3)
    await admin.execute("analyze lora_training_jobs")
    taken = [leased for _ in range(9) for leased in await lease(stack)]
    owners = await owners_of(admin, taken)
    for turn in range(3):
        assert sorted(owners[3 * turn : 3 * turn + 3]) == [ANN, BOB, CAROL], owners
    assert await owners_of(admin, await lease(stack, max_jobs=5)) == [ANN] * 5


@ONE_WAY
async def test_one_claim_of_many_jobs_is_fair(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """A claim of nine jobs takes three of each of three users, however many they have."""
    for user, count in ((ANN, 50), (BOB, 5), (CAROL, 3)):
        await many(admin, await new_dataset(user), user, count)
    owners = await owners_of(admin, await lease(stack, max_jobs=9))
    assert sorted(owners) == [ANN] * 3 + [BOB] * 3 + [CAROL] * 3


async def owners_of(admin: asyncpg.Connection, leases: list[workers_pb2.Lease]) -> list[str]:
    """Whose jobs they are, in their order."""
    rows = await admin.fetch("select id, user_id from lora_training_jobs where lease_epoch > 0")
    owner = {str(row["id"]): str(row["user_id"]) for row in rows}
    return [owner[leased.job_id] for leased in leases]


async def test_a_created_job_is_returned_as_it_is_read(stack: Stack, new_dataset: NewDataset) -> None:
    """CreateJob returns the same job as GetJob, with its position among jobs of other types and priorities."""
    dataset = await new_dataset(ANN)
    places = []
    for kind, priority in (("H100", 5), ("A100-80GB", 5), ("H100", 9), ("H100", 0), ("H100", 5)):
        expected = new_request(dataset, gpu_config={"type": kind, "count": 1}, priority=priority, max_cost_usd=50)
        response = (await stack.jobs.CreateJob(expected, metadata=metadata(ANN))).job
        assert response == await get(stack, response.id)
        listed = (await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(limit=1), metadata=metadata(ANN))).jobs
        assert list(listed) == [response]
        places.append(response.queue_position)
    assert places == [1, 1, 1, 3, 3]


@ONE_WAY
async def test_priority_is_weighed_against_age(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """K15: a user's jobs start by priority, then by age; an hour of waiting outweighs one step of priority."""
    dataset = await new_dataset(ANN)
    low, old, new, high = [
        (await stack.jobs.CreateJob(new_request(dataset, priority=priority), metadata=metadata(ANN))).job.id
        for priority in (0, 5, 5, 9)
    ]
    assert [(await get(stack, job)).queue_position for job in (low, old, new, high)] == [4, 2, 3, 1]
    assert [leased.job_id for _ in range(2) for leased in await lease(stack)] == [high, old]
    await admin.execute(
        "update lora_training_jobs set queued_at = queued_at - interval '5 hours 1 second' where id = $1", low
    )
    assert [leased.job_id for _ in range(2) for leased in await lease(stack)] == [low, new]


@ONE_WAY
async def test_jobs_fit_into_the_gpus_offered(stack: Stack, new_dataset: NewDataset) -> None:
    """A trainer gets jobs of its GPU types only, none larger than it has, and not more together than it has."""
    dataset = await new_dataset(ANN)
    sizes = [("H100", 8), ("A100-80GB", 2), ("A100-80GB", 2), ("A100-80GB", 1), ("V100-32GB", 1)]
    for type_, count in sizes:
        request = new_request(dataset, gpu_config={"type": type_, "count": count})
        await stack.jobs.CreateJob(request, metadata=metadata(ANN))
    offers = [{"type": "A100-80GB", "count": 3}, {"type": "H100", "count": 4}]
    taken = await lease(stack, max_jobs=10, gpus=offers)
    assert [(leased.gpu_config.type, leased.gpu_config.count) for leased in taken] == [("A100-80GB", 2)]
    taken = await lease(stack, max_jobs=10, gpus=[{"type": "A100-80GB", "count": 3}])
    assert sum(leased.gpu_config.count for leased in taken) == 3


@ONE_WAY
async def test_a_user_has_a_limit_of_open_jobs(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """L04: a job above the limit of open jobs is refused, also concurrently; a repeated request is not."""
    dataset = await new_dataset(ANN)
    keyed = new_request(dataset, request_id=str(uuid.uuid4()))
    first = (await stack.jobs.CreateJob(keyed, metadata=metadata(ANN))).job
    calls = [stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN)) for _ in range(10)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, jobs_pb2.CreateJobResponse) for answer in answers) == 4
    error = await refused(stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN)))
    assert (error.code.name, error.reason, error.metadata["limit"]) == ("RESOURCE_EXHAUSTED", "QUOTA", "5")
    assert (await stack.jobs.CreateJob(keyed, metadata=metadata(ANN))).job.id == first.id
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=first.id), metadata=metadata(ANN))
    await stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN))
    await stack.jobs.CreateJob(new_request(await new_dataset(BOB)), metadata=metadata(BOB))


@ONE_WAY
async def test_a_job_that_waits_says_why(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """A queued job has its position, counting a turn of every other user, and the GPUs it needs and those offered."""
    await many(admin, await new_dataset(BOB), BOB, 3)
    await lease(stack, gpus=[{"type": "A100-80GB", "count": 1}])
    await admin.execute('update lora_training_jobs set gpu_config = \'{"type": "A100-80GB", "count": 2}\'')
    dataset = await new_dataset(ANN)
    jobs = [(await stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN))).job for _ in range(3)]
    # Two of Bob's wait: one goes before Ann's first, two before her second and her third.
    assert [job.queue_position for job in jobs] == [2, 4, 5]
    reason = jobs[0].waiting_reason
    assert (reason.code, reason.gpus_needed, reason.gpus_offered) == (jobs_pb2.WAITING_CODE_NO_TRAINER, 2, 1)
    assert reason.message == "No trainer offers 2 GPUs of type A100-80GB now."


@ONE_WAY
async def test_only_one_waits_for_a_count(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one call counts the queue again, other calls get the previous positions."""
    await queue(stack, new_dataset)
    request, waiting = (
        jobs_pb2.ListJobsRequest(),
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock'",
    )
    await stack.jobs.ListJobs(request, metadata=metadata(ANN))
    monkeypatch.setattr("jobs_service.queue.positions.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("jobs_service.queue.positions.COUNTING_SHARE", 1e9)
    async with asyncio.timeout(10):
        while True:
            async with admin.transaction():
                await admin.execute("lock table trainer_offers")
                one = asyncio.ensure_future(_list(stack, request))
                while not one.done() and not await admin.fetchval(waiting):
                    await asyncio.sleep(0.02)
                    await admin.execute("select pg_stat_clear_snapshot()")
                # A count from before may still be good.
                if not one.done():
                    others = [await _list(stack, request) for _ in range(3)]
                    assert not one.done()
                    break
    for answer in (*others, await one):
        assert [job.queue_position for job in answer.jobs] == [1]


async def _list(stack: Stack, request: jobs_pb2.ListJobsRequest) -> jobs_pb2.ListJobsResponse:
    return await stack.jobs.ListJobs(request, metadata=metadata(ANN))


@ONE_WAY
async def test_a_failed_attempt_keeps_its_place(stack: Stack, new_dataset: NewDataset) -> None:
    """A job that is queued again keeps its position before later jobs."""
    first, second = await queue(stack, new_dataset), await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    await fail(stack, leased, retryable=True)
    assert [taken.job_id for _ in range(2) for taken in await lease(stack)] == [first.id, second.id]


async def test_a_claim_reads_the_queues_index_only(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """A claim finds users and their jobs in the partial index of the queue: no plan touches finished jobs."""
    dataset = await new_dataset(ANN)
    await finished(admin, dataset, 20_000)
    await many(admin, dataset, ANN, 200)
    await admin.execute("vacuum analyze lora_training_jobs")
    async with (
        Database.open(database.url, size=1) as pool,
        pool.as_caller(Identity(TRAINER, "worker", 0)) as connection,
    ):
        arguments = ["A100-80GB"], [1000], uuid.UUID(ANN), 20, "", timedelta(seconds=30), False, [], "initializing"
        plan = await connection.fetch("explain " + SQL["claim_jobs"], *arguments)
    text = "\n".join(line[0] for line in plan)
    assert text.count("lora_training_jobs_queue_idx") >= 3, text
    assert "Seq Scan on lora_training_jobs" not in text, text


async def finished(admin: asyncpg.Connection, dataset_id: str, count: int) -> None:
    """Jobs that are over."""
    await admin.execute(
        "insert into lora_training_jobs (user_id, dataset_id, preset_id, hyperparameters, gpu_config, status,"
        " total_epochs, total_steps, estimated_total_cost, hourly_rate, completed_at, final_cost)"
        " select user_id, id, 'fast', '{}', '{\"type\": \"A100-80GB\", \"count\": 1}', 'completed', 1, 1, 1, 1, now(), 0"
        f" from lora_datasets, generate_series(1, {count}) where id = $1",
        uuid.UUID(dataset_id),
    )

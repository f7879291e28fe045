"""Faults of group 13: repeated creations, and lists that change while they are paged."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import grpc
import pytest
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2

from jobs_service.jobs import wire
from tests.conftest import NewDataset, Stack, metadata
from tests.door import refused
from tests.jobs_service.jobs.test_create_job import new_request

ANN = "aaaaaaaa-0000-4000-8000-000000000001"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def counts(admin: asyncpg.Connection) -> tuple[int, int]:
    """Jobs and notifications there are."""
    return (
        await admin.fetchval("select count(*) from lora_training_jobs"),
        await admin.fetchval("select count(*) from lora_notifications"),
    )


async def created(stack: Stack, request: jobs_pb2.CreateJobRequest) -> str:
    """Creates as Ann; the job's id."""
    return (await stack.jobs.CreateJob(request, metadata=metadata(ANN))).job.id


@pytest.mark.parametrize("callers", [1, 25])
async def test_a_request_repeated_is_one_job(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, callers: int
) -> None:
    """I01: repeated and concurrent requests create one job and one notification, and all return that job."""
    request = new_request(await new_dataset(ANN), request_id=str(uuid.uuid4()))
    ids = {await created(stack, request)} if callers == 1 else set()
    ids |= set(await asyncio.gather(*[created(stack, request) for _ in range(callers)]))
    assert len(ids) == 1
    assert await counts(admin) == (1, 1)


async def test_a_key_stands_for_one_content(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """I02: other content under a used key is refused with the job's id; the same content returns the job."""
    dataset, key = await new_dataset(ANN), str(uuid.uuid4())
    job = await created(stack, new_request(dataset, request_id=key))
    other: list[dict[str, Any]] = [
        {"gpu_config": {"type": "A100-80GB", "count": 3}},
        {"gpu_config": {"type": "H100", "count": 2}},
        {"hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 8}},
        {"hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16, "alpha": 1}},
        {"preset_id": "PRESET_ID_CUSTOM"},
        {"estimated_cost": 6.04},
    ]
    for changed in other:
        error = await refused(
            stack.jobs.CreateJob(new_request(dataset, request_id=key, **changed), metadata=metadata(ANN))
        )
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED"), changed
        assert error.metadata["job_id"] == job
    assert await created(stack, new_request(dataset, request_id=key.upper())) == job
    assert await counts(admin) == (1, 1)


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_concurrent_request_waits_for_the_first(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, end: str
) -> None:
    """I03: a second request waits for the first one's transaction, then returns its job or creates one."""
    dataset, key = await new_dataset(ANN), str(uuid.uuid4())
    request = new_request(dataset, request_id=key)
    digest = wire.configuration(request).digest()
    first = admin.transaction()
    await first.start()
    running = str(
        await admin.fetchval(
            "insert into lora_training_jobs (user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs,"
            " total_steps, estimated_total_cost, hourly_rate, idempotency_key, request_digest)"
            """ values ($1, $2, 'balanced', '{"batch_size": 4}', '{"type": "H100", "count": 1}', 3, 1, 1, 1, $3, $4)"""
            " returning id",
            ANN,
            dataset,
            key,
            digest,
        )
    )
    second = asyncio.create_task(created(stack, request))
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    async with asyncio.timeout(5):
        while not await admin.fetchval(waiting):
            await asyncio.sleep(0.02)
            await admin.execute("select pg_stat_clear_snapshot()")
    assert not second.done()
    await (first.commit() if end == "commit" else first.rollback())
    assert (await second == running) == (end == "commit")
    assert await admin.fetchval("select count(*) from lora_training_jobs") == 1


async def test_a_key_is_a_uuid(stack: Stack, new_dataset: NewDataset) -> None:
    """I04: anything else is refused and names the field."""
    dataset = await new_dataset(ANN)
    for key in ("x", "1" * 1000, f"{{{ANN}}}", " ", "\0"):
        error = await refused(stack.jobs.CreateJob(new_request(dataset, request_id=key), metadata=metadata(ANN)))
        assert (error.code, list(error.violations)) == (INVALID, ["request_id"]), key


async def test_without_a_key_every_call_creates_a_job(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """I04: without a key, or with an empty one, every call creates a job."""
    dataset = await new_dataset(ANN)
    ids = {await created(stack, new_request(dataset, request_id=key)) for key in ("", "")}
    assert len(ids) == 2
    assert await counts(admin) == (2, 2)


async def test_a_key_is_valid_as_long_as_its_job(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """I06: a key is valid while its job exists, even if the dataset was deleted."""
    dataset, key = await new_dataset(ANN), str(uuid.uuid4())
    job = await created(stack, new_request(dataset, request_id=key))
    await admin.execute("update lora_datasets set status = 'error', training_ready = false")
    assert await created(stack, new_request(dataset, request_id=key)) == job
    await admin.execute("truncate lora_training_jobs cascade")
    await admin.execute("update lora_datasets set status = 'ready', training_ready = true")
    assert await created(stack, new_request(dataset, request_id=key)) != job


async def test_a_response_lost_after_the_commit_is_returned_again(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I07: after a crash between COMMIT and the response, the retry returns the job."""
    request = new_request(await new_dataset(ANN), request_id=str(uuid.uuid4()))

    def crash(job: Any) -> Any:
        raise RuntimeError("crash point")

    with monkeypatch.context() as planted:
        planted.setattr(wire, "job", crash)
        error = await refused(stack.jobs.CreateJob(request, metadata=metadata(ANN)))
    assert error.code is grpc.StatusCode.INTERNAL
    assert await counts(admin) == (1, 1)
    assert await created(stack, request) == str(await admin.fetchval("select id from lora_training_jobs"))
    assert await counts(admin) == (1, 1)


async def many(admin: asyncpg.Connection, dataset: str, count: int) -> None:
    """Jobs of one moment: only their ids tell them apart."""
    await admin.execute(
        "insert into lora_training_jobs (user_id, dataset_id, preset_id, hyperparameters, gpu_config, total_epochs,"
        " total_steps, estimated_total_cost, hourly_rate)"
        """ select $1, $2, 'fast', '{"batch_size": 4}', '{"type": "H100", "count": 1}', 1, 1, 1, 1"""
        " from generate_series(1, $3)",
        ANN,
        dataset,
        count,
    )


async def walk(stack: Stack, *, limit: int) -> tuple[list[str], int]:
    """Reads Ann's jobs page by page until one is not full. The ids, and the pages read."""
    ids: list[str] = []
    page = 0
    while True:
        page += 1
        page_of = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(page=page, limit=limit), metadata=metadata(ANN))
        ids += [job.id for job in page_of.jobs]
        if len(page_of.jobs) < limit:
            return ids, page


async def test_pages_of_equal_times_neither_repeat_nor_skip(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """P04: rows with equal times have a fixed order, so pages of an unchanged list have each row once."""
    await many(admin, await new_dataset(ANN), 35)
    ids, _ = await walk(stack, limit=7)
    assert (len(ids), len(set(ids))) == (35, 35)
    assert ids == sorted(ids, reverse=True)


async def test_a_new_row_moves_the_others_on(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """P04: a new job repeats the last row of a page on the next one, and hides none."""
    dataset = await new_dataset(ANN)
    await many(admin, dataset, 10)
    first = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(limit=5), metadata=metadata(ANN))
    await created(stack, new_request(dataset))
    second = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(page=2, limit=5), metadata=metadata(ANN))
    third = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(page=3, limit=5), metadata=metadata(ANN))
    assert second.jobs[0].id == first.jobs[-1].id
    assert len({job.id for page in (first, second, third) for job in page.jobs}) == 10
    assert third.pagination.total == 11


async def test_a_full_last_page_ends_the_walk(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """P05: after a full last page comes an empty one, as `total_pages` says."""
    await many(admin, await new_dataset(ANN), 20)
    ids, pages = await walk(stack, limit=10)
    assert (len(ids), pages) == (20, 3)
    page_of = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(page=2, limit=10), metadata=metadata(ANN))
    assert (page_of.pagination.total_pages, page_of.pagination.total, len(page_of.jobs)) == (2, 20, 10)


async def test_a_page_size_may_change_between_pages(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """P03: every call has the page size that it asks for."""
    await many(admin, await new_dataset(ANN), 12)
    for limit, sizes in {5: [5, 5, 2], 4: [4, 4, 4], 100: [12]}.items():
        for number, size in enumerate(sizes, 1):
            request = jobs_pb2.ListJobsRequest(page=number, limit=limit)
            assert len((await stack.jobs.ListJobs(request, metadata=metadata(ANN))).jobs) == size, limit


async def test_a_page_is_a_whole_number_in_range(stack: Stack) -> None:
    """P01: every list refuses an invalid page, size or status, and names the field."""
    calls = [
        (stack.jobs.ListJobs, jobs_pb2.ListJobsRequest),
        (stack.datasets.ListDatasets, datasets_pb2.ListDatasetsRequest),
        (stack.notifications.ListNotifications, notifications_pb2.ListNotificationsRequest),
    ]
    rows = {"page": (0, -1), "limit": (0, -1, 101), "status": (0, 99)}
    for call, request in calls:
        for path in set(rows) & {field.name for field in request.DESCRIPTOR.fields}:
            for value in rows[path]:
                error = await refused(call(request(**{path: value}), metadata=metadata(ANN)))
                assert (error.code, list(error.violations)) == (INVALID, [path]), (request, value)

"""Lists of jobs: names, labels, filters, sorting and deletion."""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from decimal import Decimal
from typing import Any

import asyncpg
import grpc
import pytest
import structlog
from google.protobuf.json_format import ParseDict
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import NewDataset, Stack, metadata
from tests.door import refused
from tests.jobs_service.jobs.test_create_job import ANN, BOB, new_request
from tests.jobs_service.rows import job_row

SORTS = ("created", "name", "dataset", "base_model", "status", "cost", "estimated_cost", "progress", "duration")


async def create(stack: Stack, dataset: str, **fields: Any) -> jobs_pb2.Job:
    """A new job."""
    return (await stack.jobs.CreateJob(new_request(dataset, **fields), metadata=metadata(ANN))).job


async def names(stack: Stack, **fields: Any) -> list[str]:
    """The names of the listed jobs, in order."""
    request = ParseDict(fields, jobs_pb2.ListJobsRequest(limit=100))
    return [job.name for job in (await stack.jobs.ListJobs(request, metadata=metadata(ANN))).jobs]


async def test_a_job_is_found_by_name_label_model_and_dataset(stack: Stack, new_dataset: NewDataset) -> None:
    """Each filter lists the jobs that match it, several filters those that match all, and no filter another user's job."""
    questions, reviews = await new_dataset(ANN), await new_dataset(ANN, name="Film Reviews")
    await create(stack, questions, name="First Try", labels=["baseline", "team a"])
    await create(stack, questions, name="Second", labels=["baseline"])
    await create(stack, reviews, name="third", labels=["team a"], base_model="llama-3.1-8b", allow_oom_risk=True)
    bobs = new_request(await new_dataset(BOB), name="First Try", labels=["baseline"])
    await stack.jobs.CreateJob(bobs, metadata=metadata(BOB))
    assert await names(stack) == ["third", "Second", "First Try"]
    assert await names(stack, labels=["baseline"]) == ["Second", "First Try"]
    assert await names(stack, labels=["baseline", "team a"]) == ["First Try"]
    assert await names(stack, labels=["Baseline"]) == []
    assert await names(stack, base_model="llama-3.1-8b") == ["third"]
    assert await names(stack, search="TRY") == ["First Try"]
    assert await names(stack, search="film") == ["third"]
    assert await names(stack, search="%") == []
    assert await names(stack, search="second", labels=["team a"]) == []
    assert await names(stack, status="JOB_STATUS_RUNNING") == []


async def test_a_job_has_the_catalogues_name_of_its_base_model(stack: Stack, new_dataset: NewDataset) -> None:
    """However a request writes it, the list finds the job by that name, and a repeated request finds the job."""
    dataset, key = await new_dataset(ANN), str(uuid.uuid4())
    alias = "meta-llama/Llama-3.1-8B-Instruct"
    job = await create(stack, dataset, name="alias", base_model=alias, request_id=key)
    assert job.base_model == "llama-3.1-8b"
    assert await names(stack, base_model="llama-3.1-8b") == ["alias"]
    assert (await create(stack, dataset, name="alias", base_model=alias, request_id=key)).id == job.id


async def test_counts_tell_how_many_jobs_each_status_has(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Counts by status apply all filters except the status, on every page; the total applies it too."""
    dataset = await new_dataset(ANN)
    for status, number in (("queued", 3), ("completed", 2), ("failed", 1)):
        for _ in range(number):
            await job_row(admin, dataset, ANN, status, labels=["sweep"])
    await job_row(admin, dataset, ANN, "failed")
    for fields, counts, total in (
        ({}, {"queued": 3, "completed": 2, "failed": 2}, 7),
        ({"status": "JOB_STATUS_COMPLETED"}, {"queued": 3, "completed": 2, "failed": 2}, 2),
        ({"labels": ["sweep"], "status": "JOB_STATUS_FAILED"}, {"queued": 3, "completed": 2, "failed": 1}, 1),
        ({"page": 9, "sort": "JOB_SORT_COST"}, {"queued": 3, "completed": 2, "failed": 2}, 7),
        ({"labels": ["none"]}, {}, 0),
    ):
        request = ParseDict(fields, jobs_pb2.ListJobsRequest())
        listed = await stack.jobs.ListJobs(request, metadata=metadata(ANN))
        assert (dict(listed.status_counts), listed.pagination.total) == (counts, total), fields


@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_a_bad_row_hides_no_other_job(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """A job whose estimate cannot be decoded is shown without its forecast, one that cannot be read at all is left out."""
    dataset = await new_dataset(ANN)
    forecast = await create(stack, dataset, name="good", base_model="llama-3.1-8b", allow_oom_risk=True)
    await job_row(admin, dataset, ANN, "queued", name="no estimate", estimate=b"no message")
    await job_row(admin, dataset, ANN, "queued", name="no rank", hyperparameters='{"rank": "many"}')
    with structlog.testing.capture_logs() as logs:
        listed = (await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(ANN))).jobs
    assert {job.name: job.HasField("forecast") for job in listed} == {"good": True, "no estimate": False}
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["job_unreadable"] * 2
    assert stack.metrics.registry.get_sample_value("pipeline_unreadable_jobs_total") == 2
    assert forecast in listed
    watch = stack.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(), metadata=metadata(ANN))
    first = await anext(aiter(watch))
    assert {job.name for job in first.snapshot.jobs} == {"good", "no estimate"}
    watch.cancel()


@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_every_order_is_total_and_pages_neither_repeat_nor_skip(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Sorted by anything, either way, pages of jobs with many equal values add up to all jobs, in the order of the values."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    datasets = [await new_dataset(ANN, name=name) for name in ("alpha", "Beta", "gamma")]
    for number in range(30):
        status = chance.choice(["queued", "running", "completed", "failed"])
        await job_row(
            admin, chance.choice(datasets), ANN, status,
            name=chance.choice([None, f"run {number}", "RUN"]), base_model=None, progress=chance.choice([0, 50]),
            estimated_total_cost=chance.choice([1, 2]), current_cost=chance.choice([0, 3]),
        )  # fmt: skip

    def value(job: jobs_pb2.Job, sort: str) -> Any:
        order = jobs_pb2.JobStatus.values()
        cost = job.estimated_total_cost if sort == "estimated_cost" else job.current_cost
        return {
            "created": job.created_at.ToNanoseconds(), "name": (job.name or job.dataset.name).lower(),
            "dataset": job.dataset.name.lower(), "base_model": "", "status": order.index(job.status),
            "cost": round(cost, 1), "estimated_cost": cost, "progress": job.progress, "duration": int(job.billed_seconds),
        }[sort]  # fmt: skip

    for sort in SORTS:
        for is_ascending in (True, False):
            jobs: list[jobs_pb2.Job] = []
            for page in (1, 2, 3, 4):
                request = jobs_pb2.ListJobsRequest(
                    page=page, limit=8, sort=jobs_pb2.JobSort.Value(f"JOB_SORT_{sort.upper()}"), ascending=is_ascending
                )
                jobs += (await stack.jobs.ListJobs(request, metadata=metadata(ANN))).jobs
            assert len({job.id for job in jobs}) == 30, (seed, sort)
            values = [value(job, sort) for job in jobs]
            assert values == sorted(values, reverse=not is_ascending), (seed, sort, is_ascending)


async def test_an_owner_edits_name_and_labels_alone(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """UpdateJob replaces only both, also in a final state, and does not find other users' jobs."""
    job = await create(stack, await new_dataset(ANN), name="Old", labels=["a", "b"])
    cancelled = (await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))).job
    change = jobs_pb2.UpdateJobRequest(id=job.id, name="New name", labels=["c"])
    changed = (await stack.jobs.UpdateJob(change, metadata=metadata(ANN))).job
    assert (changed.name, list(changed.labels)) == ("New name", ["c"])
    cancelled.name, changed_again = changed.name, (await stack.jobs.UpdateJob(change, metadata=metadata(ANN))).job
    cancelled.labels[:] = changed.labels
    assert changed_again == changed == cancelled
    cleared = (await stack.jobs.UpdateJob(jobs_pb2.UpdateJobRequest(id=job.id), metadata=metadata(ANN))).job
    assert (cleared.HasField("name"), list(cleared.labels)) == (False, [])
    for user, job_id in ((BOB, job.id), (ANN, str(uuid.uuid4()))):
        error = await refused(stack.jobs.UpdateJob(jobs_pb2.UpdateJobRequest(id=job_id), metadata=metadata(user)))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "x" * 201}, {"name": "\0"}, {"labels": [""]}, {"labels": ["x" * 65]}, {"labels": ["a,b"]},
        {"labels": [" a"]}, {"labels": ["a "]}, {"labels": ["a\nb"]}, {"labels": ["a", "a"]},
        {"labels": [str(number) for number in range(21)]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_invalid_names_and_labels_are_refused(stack: Stack, new_dataset: NewDataset, fields: Any) -> None:
    """A name or label outside its limits is a validation error that names the field, when creating and when editing."""
    job = await create(stack, await new_dataset(ANN), name="é" * 200, labels=["ü" * 64, "a b"])
    for call in (
        stack.jobs.CreateJob(new_request(job.dataset_id, **fields), metadata=metadata(ANN)),
        stack.jobs.UpdateJob(jobs_pb2.UpdateJobRequest(id=job.id, **fields), metadata=metadata(ANN)),
    ):
        error = await refused(call)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "VALIDATION_FAILED")
        assert next(iter(fields)) in str(error)


async def test_a_deleted_job_is_gone_and_its_costs_stay(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Only a final job of one's own can be deleted; then no call shows it, and its cost records are as they were."""
    dataset, key = await new_dataset(ANN), str(uuid.uuid4())
    job = await create(stack, dataset, request_id=key)
    delete, get = jobs_pb2.DeleteJobRequest(id=job.id), jobs_pb2.GetJobRequest(id=job.id)
    error = await refused(stack.jobs.DeleteJob(delete, metadata=metadata(ANN)))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_TRANSITION")
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))
    assert (await refused(stack.jobs.DeleteJob(delete, metadata=metadata(BOB)))).reason == "JOB_NOT_FOUND"
    await admin.execute(
        "insert into cost_records (job_id, user_id, lease_epoch, attempt, worker_id, lease_token, outcome, hourly_rate,"
        " billed_seconds, cost_usd, started_at, ended_at) values ($1, $2, 1, 1, $2, $2, 'cancelled', 1, 1, 1, now(), now())",
        job.id, ANN,
    )  # fmt: skip
    await stack.jobs.DeleteJob(delete, metadata=metadata(ANN))
    for call in (
        stack.jobs.GetJob(get, metadata=metadata(ANN)),
        stack.jobs.DeleteJob(delete, metadata=metadata(ANN)),
        stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN)),
        stack.jobs.UpdateJob(jobs_pb2.UpdateJobRequest(id=job.id), metadata=metadata(ANN)),
        stack.jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(id=job.id), metadata=metadata(ANN)),
        stack.jobs.GetJobByRequestId(jobs_pb2.GetJobByRequestIdRequest(request_id=key), metadata=metadata(ANN)),
    ):
        assert (await refused(call)).reason == "JOB_NOT_FOUND"
    listed = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(ANN))
    assert (list(listed.jobs), listed.pagination.total, dict(listed.status_counts)) == ([], 0, {})
    watch = stack.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(), metadata=metadata(ANN))
    assert list((await watch.read()).snapshot.jobs) == []
    watch.cancel()
    assert await admin.fetchval("select cost_usd from cost_records") == 1
    # Its key is free again.
    assert (await create(stack, dataset, request_id=key)).id != job.id


async def test_a_retry_keeps_name_and_labels(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """The job that repeats a failed one is found by the same name and labels."""
    failed = await job_row(admin, await new_dataset(ANN), ANN, "failed", name="Long run", labels=["a"])
    job = (await stack.jobs.RetryJob(jobs_pb2.RetryJobRequest(id=str(failed)), metadata=metadata(ANN))).job
    assert (job.name, list(job.labels)) == ("Long run", ["a"])


async def test_a_retry_takes_new_limits(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """A retry has the failed job's limits, overridden by the request's, or only the request's."""
    limits = {"max_cost_usd": Decimal(5), "max_duration_seconds": 600}
    failed = str(await job_row(admin, await new_dataset(ANN), ANN, "failed", **limits))

    async def retry(**fields: Any) -> tuple[float | None, int | None]:
        """The limits of the new job."""
        request = jobs_pb2.RetryJobRequest(id=failed, **fields)
        job = (await stack.jobs.RetryJob(request, metadata=metadata(ANN))).job
        assert job.retried_from == failed
        return (
            job.max_cost_usd if job.HasField("max_cost_usd") else None,
            job.max_duration_seconds if job.HasField("max_duration_seconds") else None,
        )

    key = str(uuid.uuid4())
    assert await retry() == (5, 600)
    assert await retry(max_cost_usd=20.5, request_id=key) == (20.5, 600)
    assert await retry(max_cost_usd=20.5, request_id=key) == (20.5, 600)
    assert await retry(max_duration_seconds=7200) == (5, 7200)
    assert await retry(without_old_limits=True) == (None, None)
    assert await retry(max_cost_usd=0.01, without_old_limits=True) == (0.01, None)
    for fields, reason in (
        ({"max_cost_usd": 21, "request_id": key}, "IDEMPOTENCY_KEY_REUSED"),
        ({"max_cost_usd": 0}, "VALIDATION_FAILED"),
        ({"max_cost_usd": math.inf}, "VALIDATION_FAILED"),
        ({"max_duration_seconds": 0}, "VALIDATION_FAILED"),
    ):
        request = jobs_pb2.RetryJobRequest(id=failed, **fields)
        assert (await refused(stack.jobs.RetryJob(request, metadata=metadata(ANN)))).reason == reason


async def test_a_job_whose_dataset_was_deleted_offers_no_retry(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """A failed job shows that its dataset was deleted, offers no retry, and a retry all the same names the dataset."""
    dataset = await new_dataset(ANN)
    request = jobs_pb2.GetJobRequest(id=str(await job_row(admin, dataset, ANN, "failed")))
    before = (await stack.jobs.GetJob(request, metadata=metadata(ANN))).job
    assert (before.dataset_deleted, jobs_pb2.JOB_ACTION_RETRY in before.allowed_actions) == (False, True)
    await stack.datasets.DeleteDataset(datasets_pb2.DeleteDatasetRequest(id=dataset), metadata=metadata(ANN))
    after = (await stack.jobs.GetJob(request, metadata=metadata(ANN))).job
    assert (after.dataset_deleted, jobs_pb2.JOB_ACTION_RETRY in after.allowed_actions) == (True, False)
    retry = jobs_pb2.RetryJobRequest(id=request.id)
    assert (await refused(stack.jobs.RetryJob(retry, metadata=metadata(ANN)))).reason == "DATASET_NOT_FOUND"


@pytest.mark.parametrize("jobs_overrides", [{"user_calls_per_second": 30}])
@pytest.mark.parametrize("fields", [{"search": "questions"}, {"sort": jobs_pb2.JOB_SORT_COST}])
async def test_a_list_that_reads_all_jobs_counts_for_more(stack: Stack, fields: dict[str, Any]) -> None:
    """A search or another order counts as many calls of its user's rate."""

    async def calls(user: str, **fields: Any) -> list[Any]:
        request = jobs_pb2.ListJobsRequest(**fields)
        ten = [stack.jobs.ListJobs(request, metadata=metadata(user)) for _ in range(10)]
        return [each for each in await asyncio.gather(*ten, return_exceptions=True) if isinstance(each, Exception)]

    assert await calls(ANN) == []
    errors = await calls(ANN, **fields)
    assert errors
    assert {error.code() for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}  # type: ignore[attr-defined]
    assert await calls(BOB) == []

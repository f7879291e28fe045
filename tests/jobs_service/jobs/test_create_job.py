"""Creating and reading jobs, over gRPC and in process."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2

from tests.conftest import NewDataset, Stack, metadata

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


def new_request(dataset_id: str, **fields: Any) -> jobs_pb2.CreateJobRequest:
    """The Balanced preset on two A100-80GB."""
    return jobs_pb2.CreateJobRequest(
        **{
            "dataset_id": dataset_id,
            "preset_id": "PRESET_ID_BALANCED",
            "gpu_config": {"type": "A100-80GB", "count": 2},
            "hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16},
            "estimated_cost": 6.03,
            **fields,
        }
    )


def reason_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """Returns code and ErrorInfo of an error."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


async def test_a_new_job_is_queued_at_the_estimators_price(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """A job has the Estimator's price and the price that the client showed, and its owner is notified."""
    request = new_request(await new_dataset(ANN), estimated_cost=1.0)
    job = (await stack.jobs.CreateJob(request, metadata=metadata(ANN))).job
    assert (job.status, job.current_stage, job.progress) == (jobs_pb2.JOB_STATUS_QUEUED, "queued", 0)
    # 3750 steps of 1000 tokens at 3600 tokens/s, and 1800 s around them: 0.7894 hours at 7 dollars.
    assert (job.total_steps, job.total_epochs, job.estimated_total_cost) == (3750, 3, 6.03)
    assert (job.client_estimated_cost, job.estimate_differs) == (1.0, True)
    notice = await admin.fetchrow("select * from lora_notifications")
    assert (notice["type"], notice["title"], notice["priority"]) == ("job_queued", "Training Job Queued", "low")
    assert notice["message"] == 'Your training job for "Questions" has been queued and will start shortly'
    assert notice["action_url"] == f"/training/jobs/{job.id}"
    assert json.loads(notice["metadata"]) == {"job_id": job.id, "dataset_name": "Questions"}


async def test_the_first_notification_has_the_jobs_name(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """The notification of a queued job has the job's own name, in its message and as `job_name`."""
    request = new_request(await new_dataset(ANN), name="Nightly")
    job = (await stack.jobs.CreateJob(request, metadata=metadata(ANN))).job
    notice = await admin.fetchrow("select message, metadata from lora_notifications")
    assert notice["message"] == 'Your training job "Nightly" has been queued and will start shortly'
    expected = {"job_id": job.id, "job_name": "Nightly", "dataset_name": "Questions"}
    assert json.loads(notice["metadata"]) == expected


async def test_the_same_key_makes_one_job(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """I01: ten callers with one key and one request get one job, and its owner one notification."""
    request = new_request(await new_dataset(ANN), request_id=str(uuid.uuid4()))
    credentials = metadata(ANN)
    answers = await asyncio.gather(*[stack.jobs.CreateJob(request, metadata=credentials) for _ in range(10)])
    assert len({answer.job.id for answer in answers}) == 1
    assert await admin.fetchval("select count(*) from lora_training_jobs") == 1
    assert await admin.fetchval("select count(*) from lora_notifications") == 1


async def test_a_key_with_other_content_is_refused(stack: Stack, new_dataset: NewDataset) -> None:
    """I02, Z03: a key belongs to one request of one user; the error has the job's id."""
    dataset, other, key = await new_dataset(ANN), await new_dataset(BOB), str(uuid.uuid4())
    job = (await stack.jobs.CreateJob(new_request(dataset, request_id=key), metadata=metadata(ANN))).job
    changed = new_request(dataset, request_id=key, gpu_config={"type": "H100", "count": 1})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.jobs.CreateJob(changed, metadata=metadata(ANN))
    info = reason_of(refused.value)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert (info.reason, info.metadata["job_id"]) == ("IDEMPOTENCY_KEY_REUSED", job.id)
    theirs = (await stack.jobs.CreateJob(new_request(other, request_id=key), metadata=metadata(BOB))).job
    assert theirs.id != job.id


async def test_neither_job_nor_notification_without_the_other(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """S14: if the notification cannot be written, no job is created, and the error hides the cause."""
    dataset = await new_dataset(ANN)
    await admin.execute("alter table lora_notifications add constraint broken check (type <> 'job_queued')")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN))
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert await admin.fetchval("select count(*) from lora_training_jobs") == 0


async def test_another_users_job_is_not_found(stack: Stack, new_dataset: NewDataset) -> None:
    """Z01: another user's job and a missing one get the same response."""
    job = (await stack.jobs.CreateJob(new_request(await new_dataset(ANN)), metadata=metadata(ANN))).job
    values = []
    for job_id in (job.id, str(uuid.uuid4())):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id), metadata=metadata(BOB))
        info = reason_of(refused.value)
        values.append((refused.value.code(), refused.value.details(), info.reason, info.metadata["details"]))
    assert values[0] == values[1]
    assert values[0][0] is grpc.StatusCode.NOT_FOUND
    listed = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(BOB))
    assert (list(listed.jobs), listed.pagination.total) == ([], 0)


async def test_lists_have_pages_totals_and_filters(stack: Stack, new_dataset: NewDataset) -> None:
    """Q07: jobs come newest first with the exact total, and a page past the end is empty with the same total."""
    dataset = await new_dataset(ANN)
    made = [(await stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN))).job.id for _ in range(3)]
    first = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(limit=2), metadata=metadata(ANN))
    assert [job.id for job in first.jobs] == made[:0:-1]
    assert (first.pagination.total, first.pagination.total_pages, first.pagination.page) == (3, 2, 1)
    assert first.jobs[0].dataset.name == "Questions"
    beyond = await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(page=2**31 - 1, limit=100), metadata=metadata(ANN))
    assert (list(beyond.jobs), beyond.pagination.total) == ([], 3)
    running = jobs_pb2.ListJobsRequest(status=jobs_pb2.JOB_STATUS_RUNNING)
    assert (await stack.jobs.ListJobs(running, metadata=metadata(ANN))).pagination.total == 0


async def test_notifications_are_read_once(stack: Stack, new_dataset: NewDataset) -> None:
    """Only the owner can mark a notification as read; doing so twice changes nothing."""
    await stack.jobs.CreateJob(new_request(await new_dataset(ANN)), metadata=metadata(ANN))
    unread = notifications_pb2.ListNotificationsRequest(unread=True)
    page_of = await stack.notifications.ListNotifications(unread, metadata=metadata(ANN))
    assert (page_of.unread_count, page_of.pagination.total) == (1, 1)
    mark = notifications_pb2.MarkNotificationReadRequest(id=page_of.notifications[0].id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.notifications.MarkNotificationRead(mark, metadata=metadata(BOB))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    for _ in range(2):
        assert (await stack.notifications.MarkNotificationRead(mark, metadata=metadata(ANN))).notification.read
    page_of = await stack.notifications.ListNotifications(unread, metadata=metadata(ANN))
    assert (page_of.unread_count, page_of.pagination.total) == (0, 0)
    everything = notifications_pb2.ListNotificationsRequest()
    assert (await stack.notifications.ListNotifications(everything, metadata=metadata(ANN))).pagination.total == 1


@pytest.mark.parametrize(
    ("row", "held", "code"),
    [
        ("Z04", [], grpc.StatusCode.UNAUTHENTICATED),
        ("M01", [("x-user-id", ANN), ("x-role", "user")], grpc.StatusCode.UNAUTHENTICATED),
        ("A01", [("authorization", "Basic x")], grpc.StatusCode.UNAUTHENTICATED),
        ("A15", metadata(ANN, role="service_role"), grpc.StatusCode.PERMISSION_DENIED),
        ("Z06", metadata(ANN, role="worker"), grpc.StatusCode.PERMISSION_DENIED),
        ("A04", metadata(ANN, exp=1), grpc.StatusCode.UNAUTHENTICATED),
        ("A07", metadata(ANN, aud="other"), grpc.StatusCode.UNAUTHENTICATED),
        ("A08", metadata(ANN, iss="pipeline-tests/"), grpc.StatusCode.UNAUTHENTICATED),
        ("A09", metadata("not-a-uuid"), grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_metadata_without_a_token_identifies_no_user(
    stack: Stack, row: str, held: list[tuple[str, str]], code: grpc.StatusCode
) -> None:
    """Services verify tokens themselves: metadata without a token identifies no user."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=held)
    assert refused.value.code() is code, row


async def test_a_disabled_users_token_is_refused(stack: Stack, admin: asyncpg.Connection) -> None:
    """A20: a disabled user's valid token is refused."""
    await admin.execute("insert into disabled_users (user_id) values ($1)", ANN)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(ANN))
    assert reason_of(refused.value).reason == "USER_DISABLED"

"""Faults of group 8: no RPC gives access to another user's rows."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest
from pipeline.datasets.v1 import datasets_pb2
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2

from rpc.methods import Method
from tests.conftest import NewDataset, Stack, metadata
from tests.door import call_empty, call_with, every_method, refused
from tests.jobs_service.jobs.test_create_job import new_request

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


def names(methods: list[tuple[Any, Method]]) -> set[str]:
    """The RPCs by name."""
    return {method.name for _, method in methods}


@pytest.mark.parametrize(
    ("row", "held"),
    [
        ("Z04 nobody", []),
        ("M01 a header that names a user", [("x-user-id", ANN), ("x-role", "user"), ("x-internal-user", ANN)]),
        ("M01 another's role", [("x-role", "worker"), ("x-forwarded-user", ANN)]),
    ],
)
async def test_every_rpc_requires_a_token(stack: Stack, row: str, held: list[tuple[str, str]]) -> None:
    """Z04: every RPC requires a token and ignores headers that name a user."""
    every = every_method(stack)
    assert {"EstimateCost", "CreateJob", "ListJobs", "ImportDataset", "ListNotifications"} <= names(every)
    for channel, method in every:
        error = await refused(call_empty(channel, method, metadata=held))
        assert error.code is UNAUTHENTICATED, (row, method.path)


async def test_every_rpc_is_only_for_its_role(stack: Stack) -> None:
    """Z05, Z06: users cannot call workers' RPCs, nor workers users' RPCs: PERMISSION_DENIED."""
    for channel, method in every_method(stack):
        for role in {"user", "worker"} - method.roles:
            error = await refused(call_empty(channel, method, metadata=metadata(ANN, role=role)))
            assert (error.code, error.reason) == (DENIED, "ROLE_NOT_ALLOWED"), (role, method.path)


async def test_ids_of_other_users_are_like_unknown_ids(stack: Stack, new_dataset: NewDataset) -> None:
    """Z01: Bob's calls with Ann's ids get the same response, byte for byte, as with unknown ids."""
    dataset = await new_dataset(ANN)
    job = (await stack.jobs.CreateJob(new_request(dataset), metadata=metadata(ANN))).job.id
    inbox = await stack.notifications.ListNotifications(
        notifications_pb2.ListNotificationsRequest(), metadata=metadata(ANN)
    )
    question = new_request(dataset)
    attempts: dict[str, tuple[str, Any]] = {
        "GetJob": (job, lambda each, **credentials: stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=each), **credentials)),
        "CreateJob": (dataset, lambda each, **credentials: stack.jobs.CreateJob(new_request(each), **credentials)),
        "EstimateCost": (
            dataset,
            lambda each, **credentials: stack.estimator.EstimateCost(
                estimator_pb2.EstimateCostRequest(
                    dataset_id=each, gpu_config=question.gpu_config, hyperparameters=question.hyperparameters
                ),
                **credentials,
            ),
        ),
        "GetDataset": (
            dataset,
            lambda each, **credentials: stack.datasets.GetDataset(
                datasets_pb2.GetDatasetRequest(id=each), **credentials
            ),
        ),
        "MarkNotificationRead": (
            inbox.notifications[0].id,
            lambda each, **credentials: stack.notifications.MarkNotificationRead(
                notifications_pb2.MarkNotificationReadRequest(id=each), **credentials
            ),
        ),
    }
    for name, (real, attempt) in attempts.items():
        credentials = [*metadata(BOB), ("x-request-id", "same")]
        errors = [await refused(attempt(each, metadata=credentials)) for each in (real, str(uuid.uuid4()))]
        assert errors[0].code is grpc.StatusCode.NOT_FOUND, name
        assert errors[0].raw == errors[1].raw, name


async def test_every_rpc_of_a_job_hides_it_from_other_users(stack: Stack, new_dataset: NewDataset) -> None:
    """Z01: for each RPC that takes a job's id, Ann's job is NOT_FOUND for Bob."""
    job = (await stack.jobs.CreateJob(new_request(await new_dataset(ANN)), metadata=metadata(ANN))).job.id
    of_a_job = [
        (channel, method)
        for channel, method in every_method(stack)
        if "JobsService" in method.path and "id" in method.request.DESCRIPTOR.fields_by_name
    ]
    assert {"GetJob", "CancelJob", "RetryJob", "WatchJob", "ListJobEvents", "ListJobMetrics"} <= names(of_a_job)
    for channel, method in of_a_job:
        credentials = [*metadata(BOB), ("x-request-id", "same")]
        fields = {"name": "adapter.zip"} if method.name == "DownloadJobArtifact" else {}
        errors = [
            await refused(call_with(channel, method, method.request(id=each, **fields), metadata=credentials))
            for each in (job, str(uuid.uuid4()))
        ]
        assert errors[0].code is grpc.StatusCode.NOT_FOUND, method.path
        assert errors[0].raw == errors[1].raw, method.path
    result = await stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=job), metadata=metadata(ANN))
    assert result.job.status == jobs_pb2.JOB_STATUS_QUEUED


async def test_every_rpc_of_the_contracts_is_served(stack: Stack) -> None:
    """Every RPC of the served contracts is implemented."""
    for service, (_, servicer) in stack.services.items():
        assert [method.name for method in service.methods if not hasattr(servicer, method.name)] == []


async def test_lists_have_only_the_callers_rows(stack: Stack, new_dataset: NewDataset) -> None:
    """Z02: no list has or counts another user's rows."""
    await stack.jobs.CreateJob(new_request(await new_dataset(ANN)), metadata=metadata(ANN))
    for page in (1, 2):
        lists = [
            await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(page=page), metadata=metadata(BOB)),
            await stack.datasets.ListDatasets(datasets_pb2.ListDatasetsRequest(page=page), metadata=metadata(BOB)),
            await stack.notifications.ListNotifications(
                notifications_pb2.ListNotificationsRequest(page=page), metadata=metadata(BOB)
            ),
        ]
        assert [each.pagination.total for each in lists] == [0, 0, 0]
        assert not any(rows for each in lists for field, rows in each.ListFields() if field.name != "pagination")
    assert lists[2].unread_count == 0


async def test_an_idempotency_key_belongs_to_its_user(stack: Stack, new_dataset: NewDataset) -> None:
    """Z03: the same idempotency key of another user creates another job."""
    key = str(uuid.uuid4())
    hers = await stack.jobs.CreateJob(new_request(await new_dataset(ANN), request_id=key), metadata=metadata(ANN))
    error = await refused(
        stack.jobs.CreateJob(new_request(hers.job.dataset_id, request_id=key), metadata=metadata(BOB))
    )
    assert error.code is grpc.StatusCode.NOT_FOUND
    his = await stack.jobs.CreateJob(new_request(await new_dataset(BOB), request_id=key), metadata=metadata(BOB))
    assert (his.job.user_id, his.job.id != hers.job.id) == (BOB, True)

"""Group 8 of the faults, through the real door: nobody reaches what is another's, whichever RPC they try."""

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
async def test_no_rpc_serves_nobody(stack: Stack, row: str, held: list[tuple[str, str]]) -> None:
    """Z04: every RPC there is wants a token, and takes no header's word for who calls."""
    every = every_method(stack)
    assert {"EstimateCost", "CreateJob", "ListJobs", "ImportDataset", "ListNotifications"} <= names(every)
    for channel, method in every:
        error = await refused(call_empty(channel, method, metadata=held))
        assert error.code is UNAUTHENTICATED, (row, method.path)


async def test_every_rpc_is_for_its_role_alone(stack: Stack) -> None:
    """Z05 and Z06: a person calls no worker's RPC, a worker calls no person's; both get PERMISSION_DENIED."""
    for channel, method in every_method(stack):
        for role in {"user", "worker"} - method.roles:
            error = await refused(call_empty(channel, method, metadata=metadata(ANN, role=role)))
            assert (error.code, error.reason) == (DENIED, "ROLE_NOT_ALLOWED"), (role, method.path)


async def test_anothers_is_byte_for_byte_what_is_not_there(stack: Stack, new_dataset: NewDataset) -> None:
    """Z01: whatever Bob does with Ann's ids, he is told the same, byte for byte, as with ids that never were."""
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


async def test_every_rpc_of_a_job_tells_strangers_nothing(stack: Stack, new_dataset: NewDataset) -> None:
    """Z01: reading, cancelling, retrying and watching: for each RPC that takes a job's id, Ann's is to Bob as none at all."""
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
    """No RPC of a service that is there is left unanswered."""
    for service, (_, servicer) in stack.services.items():
        assert [method.name for method in service.methods if not hasattr(servicer, method.name)] == []


async def test_lists_hold_ones_own_alone(stack: Stack, new_dataset: NewDataset) -> None:
    """Z02: no page of any list has another's rows, and no total counts them."""
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


async def test_a_key_is_its_owners(stack: Stack, new_dataset: NewDataset) -> None:
    """Z03: the same idempotency key in another's hand makes another job, on the other's own data only."""
    key = str(uuid.uuid4())
    hers = await stack.jobs.CreateJob(new_request(await new_dataset(ANN), request_id=key), metadata=metadata(ANN))
    error = await refused(
        stack.jobs.CreateJob(new_request(hers.job.dataset_id, request_id=key), metadata=metadata(BOB))
    )
    assert error.code is grpc.StatusCode.NOT_FOUND
    his = await stack.jobs.CreateJob(new_request(await new_dataset(BOB), request_id=key), metadata=metadata(BOB))
    assert (his.job.user_id, his.job.id != hers.job.id) == (BOB, True)

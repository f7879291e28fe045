"""Jobs on Kubernetes: from the queue to the result, with faults of pods, dispatchers and the API server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import Stack, metadata, token
from tests.jobs_service.jobs.test_create_job import ANN
from tests.jobs_service.trainers import TRAINER, get
from tests.trainer.dispatcher.api_server import DROP, PASS
from tests.trainer.dispatcher.cluster import Cluster
from tests.trainer.dispatcher.conftest import dispatching, eventually, expected_result, queue, result_of_job, until
from trainer.client import Trainer
from trainer.dispatcher import kubernetes
from trainer.dispatcher.trainjob import Naming

pytestmark = pytest.mark.slow
COMPLETED, FAILED, QUEUED = jobs_pb2.JOB_STATUS_COMPLETED, jobs_pb2.JOB_STATUS_FAILED, jobs_pb2.JOB_STATUS_QUEUED
BILLED = "select coalesce(sum(billed_seconds), 0) from cost_records"


def is_completed(job: jobs_pb2.Job) -> bool:
    """Whether a job has its result."""
    return job.status == COMPLETED


def is_training(job: jobs_pb2.Job) -> bool:
    """Whether a job has a step behind it."""
    return job.current_step > 0


async def cancel(stack: Stack, job: jobs_pb2.Job) -> None:
    """Cancels a job as its owner."""
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))


async def only_job(cluster: Cluster) -> str:
    """The name of the cluster's TrainJob, once it is there and its process runs."""
    (name,) = await eventually(lambda: list(cluster.processes))
    return str(name)


def is_empty(cluster: Cluster) -> bool:
    """Whether nothing is left of any run."""
    return not any(cluster.store.all(kind) for kind in ("TrainJob", "Secret", "Pod"))


async def test_a_job_runs_as_a_train_job_to_its_result(stack: Stack, cluster: Cluster, tmp_path: Path) -> None:
    """A leased job becomes one TrainJob, whose pod reports; both objects are deleted once the job is completed."""
    job = await queue(stack)
    async with dispatching(stack, cluster):
        (made,) = await eventually(cluster.jobs)
        assert made["spec"]["trainer"]["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "2"}
        assert "lease_token" not in str(made)
        done = await until(stack, job, is_completed)
        assert await result_of_job(stack, job) == await expected_result(tmp_path, job)
        await eventually(lambda: is_empty(cluster))
    assert (done.attempt, done.trainer, done.external_job_id) == (1, "tests", made["metadata"]["name"])
    assert done.external_job_id == f"job-{job.id.replace('-', '')}-1"
    assert list(cluster.started.values()) == [1]


async def test_only_what_can_be_placed_is_leased(stack: Stack, cluster: Cluster) -> None:
    """While a job uses all GPUs, the next one stays in the queue."""
    first, second = await queue(stack), await queue(stack)
    async with dispatching(stack, cluster):
        await until(stack, first, is_training)
        assert (await get(stack, second.id)).status == QUEUED
        await until(stack, first, is_completed)
        await until(stack, second, is_completed)
    assert all(times == 1 for times in cluster.started.values())


async def test_a_job_that_waits_for_kueue_says_why_and_is_not_billed(
    stack: Stack, cluster: Cluster, admin: asyncpg.Connection
) -> None:
    """Kueue's message is the waiting reason, the lease is renewed, and only training is billed."""
    cluster.is_closed = True
    job = await queue(stack)
    async with dispatching(stack, cluster):
        waiting = await until(stack, job, lambda now: now.waiting_reason.message == "ClusterQueue all is stopped")
        assert waiting.waiting_reason.code == jobs_pb2.WAITING_CODE_SCHEDULER
        lasts = "select lease_expires_at > $1::timestamptz + interval '7 seconds' from lora_training_jobs"
        leased = await admin.fetchval("select lease_started_at from lora_training_jobs")
        while not await admin.fetchval(lasts, leased):
            assert (await get(stack, job.id)).current_cost == 0
        assert await admin.fetchval("select billed_from is null and billed_seconds = 0 from lora_training_jobs")
        cluster.is_closed = False
        done = await until(stack, job, is_completed)
    assert (done.attempt, list(cluster.started.values())) == (1, [1])
    took = await admin.fetchval("select extract(epoch from completed_at - billed_from) from lora_training_jobs")
    assert float(await admin.fetchval(BILLED)) == pytest.approx(float(took), abs=0.2)


async def test_a_preempted_job_goes_on_elsewhere_with_its_checkpoint(
    stack: Stack, cluster: Cluster, tmp_path: Path
) -> None:
    """After a preemption the pod saves and releases, no attempt is lost, and the result has the same bytes."""
    job = await queue(stack)
    async with dispatching(stack, cluster):
        await until(stack, job, is_training)
        name = await only_job(cluster)
        cluster.preempt(name)
        await eventually(lambda: name not in cluster.processes and cluster.store.get("TrainJob", name) is None)
        cluster.is_closed = False
        done = await until(stack, job, is_completed)
    assert (done.attempt, sorted(cluster.started.values())) == (1, [1, 1])
    assert await result_of_job(stack, job) == await expected_result(tmp_path, job)


ENDINGS = [
    # Preempted, so hard that the pod could not release: no attempt is lost.
    ({"disruption": "PreemptionByScheduler"}, 1, ""),
    ({"reason": "Evicted", "message": "The node was low on resource: memory."}, 2, "evicted. The node was low"),
    ({"disruption": "DeletionByTaintManager"}, 2, "node was lost (DeletionByTaintManager)"),
    ({"terminated": {"exitCode": 139, "message": "Segmentation fault"}}, 2, "exit code 139. Segmentation fault"),
    ({"code": 0}, 2, "ended without a result"),
]


@pytest.mark.parametrize(
    ("ending", "attempt", "words"), ENDINGS, ids=["preempted", "evicted", "lost", "crashed", "silent"]
)
async def test_a_pod_that_is_lost_is_tried_again(
    stack: Stack, cluster: Cluster, admin: asyncpg.Connection, ending: dict[str, Any], attempt: int, words: str
) -> None:
    """The owner gets a lost pod's reason, and the job is retried; only a failure costs an attempt."""
    job = await queue(stack)
    async with dispatching(stack, cluster):
        await until(stack, job, is_training)
        cluster.kill_pod(await only_job(cluster), **ending)
        done = await until(stack, job, is_completed)
    assert (done.attempt, sorted(cluster.started.values())) == (attempt, [1, 1])
    outcome = await admin.fetchval("select outcome from cost_records order by lease_epoch limit 1")
    assert outcome == ("released" if attempt == 1 else "failed")
    if words:
        data = await admin.fetchval("select data from job_events where type = 'retried'")
        assert words in str(data)


async def test_a_pod_out_of_memory_fails_the_job_at_once(stack: Stack, cluster: Cluster) -> None:
    """OOMKilled fails the job without a retry, and the error says which limit to raise."""
    job = await queue(stack)
    async with dispatching(stack, cluster):
        await until(stack, job, is_training)
        cluster.kill_pod(await only_job(cluster), terminated={"exitCode": 137, "reason": "OOMKilled"})
        failed = await until(stack, job, lambda now: now.status == FAILED)
        await eventually(lambda: is_empty(cluster))
    assert (failed.attempt, "OOMKilled" in failed.error_message) == (1, True)


async def test_an_image_that_cannot_be_pulled_costs_nothing_and_fails_in_time(
    stack: Stack, cluster: Cluster, admin: asyncpg.Connection
) -> None:
    """ImagePullBackOff is the waiting reason, and fails the attempt after the time to start."""
    cluster.pull_error = "Back-off pulling image registry.example/pipeline"
    job = await queue(stack)
    async with dispatching(stack, cluster, dispatcher_start_seconds=2):
        await until(stack, job, lambda now: now.waiting_reason.message.startswith("ImagePullBackOff: Back-off"))
        failed = await until(stack, job, lambda now: now.status == FAILED)
    assert "did not start within 2 s. ImagePullBackOff" in failed.error_message
    assert (failed.attempt, failed.final_cost, cluster.started) == (3, 0, {})


@pytest.mark.parametrize("when", ["waiting", "training"])
async def test_a_cancelled_job_is_deleted_with_its_pods(stack: Stack, cluster: Cluster, when: str) -> None:
    """Cancelling ends the pod and the TrainJob, also on a slow cluster, and frees the GPUs."""
    cluster.delete_seconds = 1
    cluster.is_closed = when == "waiting"
    job = await queue(stack)
    async with dispatching(stack, cluster):
        if when == "training":
            await until(stack, job, is_training)
        else:
            await eventually(cluster.jobs)
        await cancel(stack, job)
        await eventually(lambda: is_empty(cluster))
        cluster.is_closed = False
        await until(stack, await queue(stack), is_completed)
    assert (await get(stack, job.id)).status == jobs_pb2.JOB_STATUS_CANCELLED


@pytest.mark.parametrize("when", ["waiting", "training"])
async def test_a_successor_adopts_what_is_there(stack: Stack, cluster: Cluster, when: str) -> None:
    """A new dispatcher continues with existing TrainJobs, and starts none of them again."""
    cluster.is_closed = when == "waiting"
    job = await queue(stack)
    async with dispatching(stack, cluster):
        if when == "training":
            await until(stack, job, is_training)
        else:
            await eventually(cluster.jobs)
    cluster.is_closed = False
    async with dispatching(stack, cluster):
        done = await until(stack, job, is_completed)
        await eventually(lambda: is_empty(cluster))
    assert (done.attempt, list(cluster.started.values())) == (1, [1])


async def test_a_dispatcher_killed_before_it_recorded_a_lease_costs_no_attempt(stack: Stack, cluster: Cluster) -> None:
    """An unrecorded lease expires without costing an attempt, and the next dispatcher runs the job."""
    job = await queue(stack)
    with Trainer(stack.jobs_address, token(TRAINER, role="worker"), gpus={}, name="killed") as killed:
        (leased,) = await asyncio.to_thread(killed.lease, gpus={"A100-80GB": 2}, deferred=True)
    async with dispatching(stack, cluster):
        done = await until(stack, job, is_completed)
    assert (leased.id, done.attempt, list(cluster.started)) == (job.id, 1, [f"job-{job.id.replace('-', '')}-2"])


@pytest.mark.parametrize(
    "faults",
    [
        [("POST", DROP)],
        [("POST", PASS), ("POST", DROP)],
        [("POST", PASS), ("POST", 429), ("POST", 500), ("PATCH", DROP)],
        [("*", 503), ("*", 429), ("GET", DROP)],
    ],
    ids=["secret-made-unheard", "train-job-made-unheard", "throttled", "everything"],
)
async def test_answers_that_never_come_start_nothing_twice(
    stack: Stack, cluster: Cluster, faults: list[tuple[str, int]]
) -> None:
    """With lost responses, throttling and errors of the API server there is one TrainJob and one process."""
    job = await queue(stack)
    cluster.api.faults.extend(faults)
    async with dispatching(stack, cluster):
        done = await until(stack, job, is_completed)
        await eventually(lambda: is_empty(cluster))
    assert not cluster.api.faults
    assert (done.attempt, list(cluster.started.values())) == (1, [1])
    assert [times for (kind, _), times in cluster.store.created.items() if kind == "TrainJob"] == [1]


async def test_a_list_that_expires_is_begun_again(
    stack: Stack, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that expires between pages (410) is begun again, so no run counts as missing."""
    monkeypatch.setattr(kubernetes, "PAGE_SIZE", 1)
    cluster.is_closed = True
    jobs = [await queue(stack, count=1) for _ in range(2)]
    async with dispatching(stack, cluster):
        await eventually(lambda: len(cluster.jobs()) == 2)
        cluster.api.pages_before_gone = 1
        await eventually(lambda: cluster.api.pages_before_gone is None)
        cluster.is_closed = False
        for job in jobs:
            assert (await until(stack, job, is_completed)).attempt == 1
    assert list(cluster.started.values()) == [1, 1]


@pytest.mark.parametrize("when", ["waiting", "training"])
async def test_nothing_is_lost_while_the_api_server_is_away(
    stack: Stack, cluster: Cluster, admin: asyncpg.Connection, when: str
) -> None:
    """While the API server is down, pods renew their leases and the dispatcher those of waiting jobs."""
    cluster.is_closed = when == "waiting"
    cluster.environment["STAND_IN_STEP_SECONDS"] = "0.5"
    job = await queue(stack)
    async with dispatching(stack, cluster):
        if when == "training":
            await until(stack, job, is_training)
        else:
            await until(stack, job, lambda now: now.waiting_reason.message == "ClusterQueue all is stopped")
        cluster.api.stop()
        try:
            left = await admin.fetchval("select clock_timestamp()")
            lasts = "select lease_expires_at > $1::timestamptz + interval '9 seconds' from lora_training_jobs"
            while not await admin.fetchval(lasts, left):
                assert not (await get(stack, job.id)).is_final
            if when == "waiting":
                assert "cannot be reached" in (await get(stack, job.id)).waiting_reason.message
        finally:
            cluster.api.start()
        cluster.is_closed = False
        done = await until(stack, job, is_completed)
    assert (done.attempt, list(cluster.started.values())) == (1, [1])


async def test_a_refused_train_job_returns_to_the_queue(stack: Stack, cluster: Cluster) -> None:
    """A TrainJob that the API server refuses costs the job no attempt: it returns to the queue."""
    job = await queue(stack)
    cluster.api.faults.extend([("POST", PASS), ("POST", 403)])
    async with dispatching(stack, cluster):
        await eventually(lambda: not cluster.api.faults)
        back = await until(stack, job, lambda now: now.status == QUEUED and now.status_reason)
        assert back.status_reason == jobs_pb2.STATUS_REASON_RELEASED
        assert (back.attempt, cluster.store.all("Secret")) == (1, [])


async def test_what_an_operator_deletes_goes_back_to_the_queue(stack: Stack, cluster: Cluster) -> None:
    """A deleted TrainJob releases its job; a TrainJob whose Secret was deleted is deleted too."""
    cluster.is_closed = True
    job = await queue(stack)
    async with dispatching(stack, cluster):
        (made,) = await eventually(cluster.jobs)
        name = made["metadata"]["name"]
        await eventually(lambda: "ownerReferences" in cluster.store.get("Secret", name)["metadata"])
        cluster.delete_seconds = 1
        mark = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
        cluster.store.change("TrainJob", name, lambda each: each["metadata"].update(mark))
        (again,) = await eventually(lambda: [each for each in cluster.jobs() if each["metadata"]["name"] != name])
        name = again["metadata"]["name"]
        await eventually(lambda: "ownerReferences" in cluster.store.get("Secret", name)["metadata"])
        cluster.store.remove("Secret", name)
        await eventually(lambda: cluster.store.get("TrainJob", name) is None)
        cluster.is_closed = False
        await until(stack, job, is_completed)


async def test_secrets_of_others_are_left_alone(stack: Stack, cluster: Cluster) -> None:
    """Secrets with the dispatcher's labels, but without a valid lease of their name, are ignored."""
    labels = Naming("pipeline", "pipeline-trainer", "training").labels

    def write(name: str, **lease: Any) -> None:
        data = {"lease": base64.b64encode(json.dumps(lease).encode()).decode()}
        cluster.store.create("Secret", {"metadata": {"name": name, "labels": labels}, "data": data})

    write("empty")
    job = await queue(stack)
    async with dispatching(stack, cluster):
        await until(stack, job, is_training)
        write("another", job_id=job.id, lease_token=ANN, lease_epoch=1)
        write("no-token", job_id=job.id, lease_token="x", lease_epoch=1)
        done = await until(stack, job, is_completed)
    assert (done.attempt, list(cluster.started.values())) == (1, [1])
    assert {"empty", "another", "no-token"} <= {each["metadata"]["name"] for each in cluster.store.all("Secret")}


async def test_without_kueue_free_nodes_are_filled(stack: Stack, cluster: Cluster) -> None:
    """Free GPUs of nodes are offered, the scheduler's message is the waiting reason, and jobs run one by one."""
    first, second = await queue(stack), await queue(stack)
    async with dispatching(stack, cluster, kubernetes_queue=""):
        await until(stack, first, is_training)
        assert (await get(stack, second.id)).status == QUEUED
        await until(stack, second, is_completed)
    assert list(cluster.started.values()) == [1, 1]


async def test_a_killed_node_without_a_word_runs_into_the_lease(stack: Stack, cluster: Cluster) -> None:
    """The lease of a hanging pod expires, and the pod is deleted and the job retried."""
    job = await queue(stack)
    async with dispatching(stack, cluster):
        await until(stack, job, is_training)
        name = await only_job(cluster)
        os.killpg(cluster.processes[name][0].pid, signal.SIGSTOP)
        cluster.grace_seconds = 0
        done = await until(stack, job, is_completed)
    assert (done.attempt, sorted(cluster.started.values())) == (2, [1, 1])

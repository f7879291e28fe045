"""The simulated trainer: plausible curves, and faults as configured."""

from __future__ import annotations

import asyncio
import itertools
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from deploy.settings import environment
from tests.conftest import ISSUER, SECRET, NewDataset, Stack, TestDatabase, metadata, open_stack
from tests.jobs_service import trainers
from tests.jobs_service.jobs.test_create_job import ANN, new_request
from tests.jobs_service.trainers import get, queue
from trainer.client import Job
from trainer.client.connection import Connection
from trainer.simulate import Curves

WORDS = "simulated"


def curves(**hyperparameters: Any) -> Curves:
    """Curves of the Balanced preset on two A100-80GB, but for `hyperparameters`."""
    lease = workers_pb2.Lease(
        job_id="j",
        hyperparameters={"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16} | hyperparameters,
        gpu_config={"type": "A100-80GB", "count": 2},
        total_epochs=3,
        total_steps=3750,
        estimated_seconds=2842,
        estimated_tokens_per_second=3600,
    )
    return Curves(Job(Connection("127.0.0.1:1", "token"), lease, stall_seconds=1, transfer_seconds=1))


def test_curves_could_be_true() -> None:
    """Loss falls, the learning rate warms up and decays, and throughput is at most the catalogue's."""
    made = curves()
    points = [made.metrics(step) for step in range(1, 3751)]
    losses = [statistics.mean(each["loss"] for each in points[at : at + 250]) for at in range(0, 3750, 250)]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses)), losses
    rates = [each["learning_rate"] for each in points]
    assert max(rates) == pytest.approx(5e-5)
    assert rates.index(max(rates)) == 3750 // 33 - 1
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert 3000 < statistics.mean(each["tokens_per_second"] for each in points) < 3600
    assert max(each["tokens_per_second"] for each in points) <= 3600
    assert points == [curves().metrics(step) for step in range(1, 3751)]
    assert curves(rank=64).validation(3) < made.validation(3) < curves(rank=4).validation(3)
    assert made.seconds == 2842


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Stack]:
    """The services over gRPC, with leases short enough to wait for."""
    leases = {"lease_ms": 1_500, "renew_ms": 200, "sweep_ms": 30, "max_attempts": 2}
    async with open_stack("grpc", database.url, tmp_path, **leases) as opened:
        yield opened


@pytest.fixture
async def job(stack: Stack, new_dataset: NewDataset) -> jobs_pb2.Job:
    """A job that waits."""
    return await queue(stack, new_dataset)


@asynccontextmanager
async def simulated(stack: Stack, folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`pipeline trainer --simulate` as a process, until the body ends."""
    command = [sys.executable, "-m", "deploy.cli", "trainer", "--simulate", "--address", stack.jobs_address]
    issuer = environment(dev_issuer=1, jwt_secret=SECRET, jwt_issuer=ISSUER, local_dir=folder)
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, env=issuer, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(
    stack: Stack, job: jobs_pb2.Job, condition: Callable[[jobs_pb2.Job], bool], seconds: float = 30
) -> jobs_pb2.Job:
    """Waits for something to be true of a job."""

    async def look() -> jobs_pb2.Job | None:
        result = await get(stack, job.id)
        return result if condition(result) else None

    return await trainers.until(look, seconds)


def trains(job: jobs_pb2.Job) -> bool:
    """Whether a job has a step."""
    return job.current_step > 0


@pytest.mark.slow
async def test_a_job_runs_to_its_end(stack: Stack, job: jobs_pb2.Job, tmp_path: Path) -> None:
    """With `--speed` a job of 47 minutes takes seconds, and it is marked as simulated everywhere."""
    async with simulated(stack, tmp_path, "--speed", "1000") as process:
        running = await until(stack, job, trains)
        assert WORDS in running.current_stage
        done = await until(stack, job, lambda result: result.is_final)
        process.send_signal(signal.SIGTERM)
        said, _ = await process.communicate()
    assert process.returncode == 0, said
    assert (done.status, done.attempt) == (jobs_pb2.JOB_STATUS_COMPLETED, 1)
    for text in (done.trainer, done.external_job_id, done.artifact_uri):
        assert WORDS in text
    log = await stack.jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(id=job.id, limit=100), metadata=metadata(ANN))
    lines = [line for event in log.events for line in event.log_lines]
    assert len(lines) == 4
    assert all(line.startswith(WORDS) for line in lines)
    assert f"simulated job {job.id}, attempt 1: completed" in said.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("crash", jobs_pb2.JOB_STATUS_QUEUED, "did not report in time"),
        ("fail", jobs_pb2.JOB_STATUS_FAILED, "simulated: CUDA out of memory"),
    ],
)
async def test_faults_happen_as_configured(
    stack: Stack, job: jobs_pb2.Job, tmp_path: Path, fault: str, status: int, words: str
) -> None:
    """K06: a crash kills the process and the job is queued again; errors fail it after two attempts."""
    async with simulated(stack, tmp_path, "--speed", "1000", f"--{fault}", "1") as process:
        ended = await until(stack, job, lambda result: (result.status, result.attempt) == (status, 2))
        assert words in ended.error_message
        if fault == "crash":
            assert await process.wait() == -signal.SIGKILL


@pytest.mark.slow
async def test_wrong_steps_only_move_progress_forward(stack: Stack, job: jobs_pb2.Job, tmp_path: Path) -> None:
    """Wrong steps only move progress forward, and the job completes."""
    async with simulated(stack, tmp_path, "--speed", "1500", "--lie", "1"):
        await until(stack, job, lambda result: result.is_final)
    log = await stack.jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(id=job.id, limit=100), metadata=metadata(ANN))
    progress = [event.progress for event in reversed(log.events)]
    assert progress == sorted(progress)
    assert log.events[0].status == jobs_pb2.JOB_STATUS_COMPLETED


@pytest.mark.slow
async def test_it_releases_its_jobs_at_sigterm(stack: Stack, job: jobs_pb2.Job, tmp_path: Path) -> None:
    """At SIGTERM the trainer ends at once, and its jobs return to the queue without losing an attempt."""
    async with simulated(stack, tmp_path) as process:
        await until(stack, job, trains)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    result = await until(stack, job, lambda _: True)
    assert (result.status, result.attempt) == (jobs_pb2.JOB_STATUS_QUEUED, 1)


@pytest.mark.slow
async def test_jobs_are_forecast_anew_within_5_percent_of_their_end(
    stack: Stack, new_dataset: NewDataset, tmp_path: Path
) -> None:
    """At least eight of ten simulated jobs end within their forecast at 5 %."""
    dataset = await new_dataset(ANN)
    jobs = []
    for batch_size in (1, 2, 4, 8, 16):
        for fields in ({}, {"base_model": "llama-3.1-8b"}):
            hyperparameters = {"batch_size": batch_size, "epochs": 3, "learning_rate": 5e-5, "rank": 16}
            request = new_request(dataset, hyperparameters=hyperparameters, **fields)
            jobs.append((await stack.jobs.CreateJob(request, metadata=metadata(ANN))).job)
    # Each report, sent as soon as it is made, names its step to a twentieth of what is measured.
    async with simulated(stack, tmp_path, "--jobs", "10", "--slow", "1.5"):
        ended = [await until(stack, each, lambda result: result.is_final, seconds=180) for each in jobs]
    assert all(each.status == jobs_pb2.JOB_STATUS_COMPLETED for each in ended)
    errors = [abs(each.reforecast.seconds.p50 / each.billed_seconds - 1) for each in ended]
    assert sum(error < 0.05 for error in errors) >= 8, errors
    assert all(each.simulated and each.reforecast.step >= 0.05 * each.total_steps for each in ended)

"""Helpers for tests of real trainings: queue a job on the tiny model, run a trainer, and read the result."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
from pipeline.datasets.v1.datasets_pb2_grpc import DatasetServiceStub
from pipeline.jobs.v1 import jobs_pb2
from pipeline.jobs.v1.jobs_pb2_grpc import JobsServiceStub

from tests.conftest import Stack, metadata, token
from tests.jobs_service import trainers
from tests.jobs_service.jobs.test_create_job import ANN
from tests.jobs_service.trainers import TRAINER
from tests.processes import Server, environment, running
from tests.trainer.rows import import_rows

REPOSITORY = Path(__file__).parents[3]
GPU = "A100-80GB"
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"What is {n} plus {n}?"},
            {"role": "assistant", "content": f"It is {2 * n}."},
        ]
    }
    for n in range(48)
]
# 48 samples, 8 a step, 2 epochs: 12 steps.
CONFIGURATION = {"batch_size": 8, "epochs": 2, "learning_rate": 1e-3, "rank": 8, "alpha": 16.0, "dropout": 0.1}
STEPS = 12


async def queue(
    stack: Stack,
    rows: Sequence[Any] = ROWS,
    *,
    count: int = 1,
    hyperparameters: Mapping[str, Any] | None = None,
    **training: Any,
) -> jobs_pb2.Job:
    """Queues a job on the tiny model. `hyperparameters` override CONFIGURATION."""
    dataset = await import_rows(stack, rows)
    batch = CONFIGURATION["batch_size"] // count
    request = jobs_pb2.CreateJobRequest(
        dataset_id=dataset.id,
        preset_id="PRESET_ID_CUSTOM",
        gpu_config={"type": GPU, "count": count},
        hyperparameters={**CONFIGURATION, "batch_size": batch, **(hyperparameters or {})},
        base_model="demo-tiny",
        training=training,
    )
    return (await stack.jobs.CreateJob(request, metadata=metadata(ANN))).job


def write_token(folder: Path) -> Path:
    """A file with a trainer's token."""
    folder.mkdir(exist_ok=True)
    file = folder / "token"
    file.write_text(token(TRAINER, role="worker"))
    return file


@asynccontextmanager
async def trainer(
    stack: Stack, folder: Path, models: Path, *arguments: str, **variables: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m trainer` as a process; what it prints goes to a file."""
    secret = write_token(folder)
    settings = {"CHECKPOINT_URL": f"file://{folder}/checkpoints", "TRAINER_WORK_DIR": folder / "work", **variables}
    environment = (
        os.environ | {"OMP_NUM_THREADS": "1"} | {f"PIPELINE_{name}": str(value) for name, value in settings.items()}
    )
    command = ["-m", "trainer", "--gpus", f"{GPU}=2", "--models", str(models), "--token-file", str(secret)]
    with (folder / "trainer.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--address", stack.jobs_address, *arguments,
            env=environment, stdout=log, stderr=log, cwd=REPOSITORY,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(stack: Stack, job: jobs_pb2.Job, condition: Callable[[jobs_pb2.Job], bool]) -> jobs_pb2.Job:
    """The job once a condition holds of it."""
    return await trainers.until_job(stack, job, condition, 120)


def is_final(job: jobs_pb2.Job) -> bool:
    """Whether a job has ended."""
    return job.is_final


async def files_of(stack: Stack, job: jobs_pb2.Job) -> dict[str, bytes]:
    """The files of a completed job."""
    assert job.status == jobs_pb2.JOB_STATUS_COMPLETED, job.error_message
    listed = await stack.jobs.GetJobArtifact(jobs_pb2.GetJobArtifactRequest(id=job.id), metadata=metadata(ANN))
    result = {}
    for file in listed.artifact.files:
        request = jobs_pb2.DownloadJobArtifactRequest(id=job.id, name=file.name)
        parts = [part.data async for part in stack.jobs.DownloadJobArtifact(request, metadata=metadata(ANN))]
        result[file.name] = b"".join(parts)
    return result


async def log_of(stack: Stack, job: jobs_pb2.Job) -> list[str]:
    """The log lines of a job, oldest first."""
    lines: list[str] = []
    for page in (1, 2, 3):
        request = jobs_pb2.ListJobEventsRequest(id=job.id, limit=100, page=page)
        events = (await stack.jobs.ListJobEvents(request, metadata=metadata(ANN))).events
        lines += [line for event in events for line in reversed(event.log_lines)]
    return lines[::-1]


async def losses_of(stack: Stack, job: jobs_pb2.Job, name: str = "loss") -> dict[int, float]:
    """The values of a metric of a job, by step."""
    request = jobs_pb2.ListJobMetricsRequest(id=job.id, max_points=1000)
    points = (await stack.jobs.ListJobMetrics(request, metadata=metadata(ANN))).points
    return {point.step: point.values[name] for point in points if name in point.values}


def children_of(pid: int) -> list[int]:
    """Processes that a process has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def checkpoints_of(folder: Path, job: jobs_pb2.Job) -> int:
    """How many whole checkpoints a job has."""
    return len(list((folder / "checkpoints" / job.id).glob("*/manifest.json")))


class Servers:
    """Both servers as processes, and stubs of the Jobs server. `jobs_server` can be killed, and `start` runs it anew."""

    def __init__(
        self, opened: AsyncExitStack, variables: dict[str, str], address: str, channel: grpc.aio.Channel
    ) -> None:
        self._opened, self._variables = opened, variables
        self.jobs_address = address
        self.jobs = JobsServiceStub(channel)
        self.datasets = DatasetServiceStub(channel)
        self.jobs_server: Server

    async def start(self) -> None:
        """Runs the Jobs server at its address."""
        self.jobs_server = await self._opened.enter_async_context(running("jobs_service", self._variables))
        await self.jobs_server.address()


@asynccontextmanager
async def servers(database_url: str, folder: Path) -> AsyncIterator[Servers]:
    """Runs both servers while its body does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with AsyncExitStack() as opened:
        estimator = await opened.enter_async_context(running("estimator_service", environment(database_url)))
        variables = environment(
            database_url,
            PIPELINE_JOBS_PORT=str(port),
            PIPELINE_ESTIMATOR_ADDRESS=await estimator.address(),
            PIPELINE_STORAGE_URL=f"file://{folder}/storage",
            PIPELINE_DRAIN_SECONDS="1",
        )
        address = f"127.0.0.1:{port}"
        channel = await opened.enter_async_context(grpc.aio.insecure_channel(address))
        result = Servers(opened, variables, address, channel)
        await result.start()
        yield result

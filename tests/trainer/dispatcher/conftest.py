"""A cluster, a dispatcher and jobs for it, against the real services over gRPC.

Tests of Ray are collected where it is installed, in .venv-cluster.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from pipeline.jobs.v1 import jobs_pb2

from rpc.telemetry.metrics import Metrics
from tests.conftest import Stack, TestDatabase, metadata, open_stack, token
from tests.jobs_service import trainers
from tests.jobs_service.jobs.test_create_job import ANN, new_request
from tests.jobs_service.trainers import TRAINER
from tests.trainer.dispatcher.api_server import NAMESPACE
from tests.trainer.dispatcher.cluster import Cluster
from tests.trainer.rows import import_rows
from trainer.client import Trainer
from trainer.client.connection import Connection
from trainer.dispatcher.engine import Engine
from trainer.dispatcher.kubernetes import KubernetesEngine
from trainer.dispatcher.loop import Dispatcher
from trainer.dispatcher.metrics import DispatcherMetrics
from trainer.settings import DispatcherSettings

collect_ignore_glob = [] if find_spec("ray") else ["test_ray.py"]
STAND_IN = Path(__file__).with_name("stand_in.py")
ROWS = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"{n}."}]}
    for n in range(40)
]
STEPS = 20


def result_of(dataset: bytes) -> str:
    """Returns the result of the stand-in's uninterrupted training of a dataset."""
    state = hashlib.sha256(dataset).hexdigest()
    for step in range(1, STEPS + 1):
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
    return state


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Stack]:
    """The services over gRPC, with leases that outlast the start of a process on a slow machine."""
    leases = {"lease_ms": 6_000, "renew_ms": 1_000, "sweep_ms": 50, "max_attempts": 3}
    async with open_stack("grpc", database.url, tmp_path, **leases) as opened:
        yield opened


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A trainer's token."""
    file = tmp_path / "worker.token"
    file.write_text(token(TRAINER, role="worker"))
    return file


def make_pod_environment(stack: Stack, folder: Path, token_file: Path) -> dict[str, str]:
    """What the runtime sets in pods: the stand-in trains in place of PyTorch."""
    return {
        "PIPELINE_JOBS_ADDRESS": stack.jobs_address,
        "PIPELINE_TRAINER_TOKEN_FILE": str(token_file),
        "PIPELINE_TRAINER_COMMAND": f"{sys.executable} {STAND_IN}",
        "PIPELINE_TRAINER_WORK_DIR": str(folder / "work"),
        "PIPELINE_TRAINER_STOP_SECONDS": "10",
        "PIPELINE_CHECKPOINT_URL": f"file://{folder}/checkpoints",
    }


@pytest.fixture
def pod_environment(stack: Stack, tmp_path: Path, token_file: Path) -> dict[str, str]:
    """What the runtime sets in pods."""
    return make_pod_environment(stack, tmp_path, token_file)


@pytest.fixture
def cluster(tmp_path: Path, pod_environment: dict[str, str]) -> Iterator[Cluster]:
    """A cluster with two GPUs."""
    with Cluster(tmp_path, environment=pod_environment) as made:
        yield made


@asynccontextmanager
async def dispatching(stack: Stack, cluster: Cluster, **settings: Any) -> AsyncIterator[Dispatcher]:
    """A dispatcher in a thread, with Kueue's queue unless `settings` say otherwise."""
    chosen = DispatcherSettings(**{"kubernetes_queue": "training", "dispatcher_poll_seconds": 0.1, **settings})
    client = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=cluster.api.url))
    with closing(KubernetesEngine(client, NAMESPACE, chosen)) as engine:
        async with dispatching_on(stack, engine, chosen) as dispatcher:
            yield dispatcher


@asynccontextmanager
async def dispatching_on(stack: Stack, engine: Engine, settings: DispatcherSettings) -> AsyncIterator[Dispatcher]:
    """A dispatcher in a thread."""
    secret = token(TRAINER, role="worker")
    connection = Connection(stack.jobs_address, secret)
    with Trainer(stack.jobs_address, secret, gpus={}, name="tests") as trainer:
        dispatcher = Dispatcher(
            trainer,
            connection,
            engine,
            DispatcherMetrics(Metrics()),
            poll_seconds=settings.dispatcher_poll_seconds,
            start_seconds=settings.dispatcher_start_seconds,
        )
        errors: list[BaseException] = []

        def run() -> None:
            try:
                dispatcher.run()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="dispatcher")
        thread.start()
        try:
            yield dispatcher
        finally:
            dispatcher.stop()
            await asyncio.to_thread(thread.join)
            connection.close()
    assert not errors, errors


async def queue(stack: Stack, *, count: int = 2, user: str = ANN) -> jobs_pb2.Job:
    """A job with a dataset, of GPUs that the cluster has."""
    dataset = await import_rows(stack, ROWS, user)
    gpu_config = {"type": "A100-80GB", "count": count}
    return (await stack.jobs.CreateJob(new_request(dataset.id, gpu_config=gpu_config), metadata=metadata(user))).job


async def until(stack: Stack, job: jobs_pb2.Job, condition: Callable[[jobs_pb2.Job], Any]) -> jobs_pb2.Job:
    """The job once a condition holds of it."""
    return await trainers.until_job(stack, job, condition, 60)


async def eventually(condition: Callable[[], Any]) -> Any:
    """What a condition returns, once that is true."""

    async def look() -> Any:
        return condition()

    return await trainers.until(look, 60)


async def result_of_job(stack: Stack, job: jobs_pb2.Job) -> str:
    """The result's file, as its owner downloads it."""
    request = jobs_pb2.DownloadJobArtifactRequest(id=job.id, name="adapter_model.safetensors")
    return b"".join(
        [each.data async for each in stack.jobs.DownloadJobArtifact(request, metadata=metadata(ANN))]
    ).decode()


async def expected_result(tmp_path: Path, job: jobs_pb2.Job) -> str:
    """The result of the job's dataset without any interruption."""
    (file,) = [path for path in (tmp_path / "storage").rglob("*") if path.is_file() and job.dataset_id in str(path)]
    return result_of(file.read_bytes())

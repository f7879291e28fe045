"""Jobs on a real Ray cluster of this machine: `make test-cluster`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import Stack, TestDatabase, metadata, open_stack
from tests.jobs_service.jobs.test_create_job import ANN
from tests.jobs_service.trainers import get
from tests.trainer.dispatcher.conftest import (
    dispatching_on,
    eventually,
    expected_result,
    queue,
    result_of_job,
    until,
)
from trainer.dispatcher.loop import Dispatcher
from trainer.dispatcher.ray import RayEngine
from trainer.settings import DispatcherSettings

pytestmark = pytest.mark.cluster
QUEUED, COMPLETED = jobs_pb2.JOB_STATUS_QUEUED, jobs_pb2.JOB_STATUS_COMPLETED
GPUS = ["--num-gpus", "2", "--resources", '{"accelerator_type:A100-80G": 1}']


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Ray:
    """A head without GPUs, and nodes that come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, dashboard = folder, free_port(), free_port()
        self.url = f"http://127.0.0.1:{dashboard}"
        self.processes: list[subprocess.Popen[bytes]] = []
        head = ["--head", "--port", str(self.port), "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)]
        self.start(*head, "--temp-dir", str(folder / "ray"), "--num-gpus", "0", "--disable-usage-stats")
        self.wait(lambda: httpx.get(f"{self.url}/api/version").is_success)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A node, as `ray start --block` runs it."""
        program = Path(sys.executable).parent
        environment = {**os.environ, "PATH": f"{program}:{os.environ['PATH']}", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
        with (self.folder / "ray.log").open("ab") as log:
            process = subprocess.Popen(
                [program / "ray", "start", "--block", "--num-cpus", "2", *arguments],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def node(self) -> subprocess.Popen[bytes]:
        """A node with two GPUs."""
        before = self.alive()
        process = self.start("--address", f"127.0.0.1:{self.port}", *GPUS)
        self.wait(lambda: self.alive() > before)
        return process

    def alive(self) -> int:
        """How many nodes there are."""
        listed = httpx.get(f"{self.url}/api/v0/nodes?detail=true").json()["data"]["result"]["result"]
        return sum(node["state"] == "ALIVE" for node in listed)

    def jobs(self) -> dict[str, str]:
        """Status of each job."""
        return {job["submission_id"]: job["status"] for job in httpx.get(f"{self.url}/api/jobs/").json()}

    def wait(self, condition: object, seconds: float = 120) -> None:
        """Waits until something is true."""
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():  # type: ignore[operator]
                    return
            except (httpx.HTTPError, KeyError):
                pass
            assert time.monotonic() < end, (self.folder / "ray.log").read_text()[-2000:]
            time.sleep(0.1)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kills a node and all that runs on it, at once; returns when Ray has seen it."""
        before = self.alive()
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        # Nobody may see another one's end and tidy up.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for member in family:
                if member.is_running():
                    member.send_signal(number)
        process.wait()
        self.processes.remove(process)
        if self.processes:
            self.wait(lambda: self.alive() < before)

    def stop(self) -> None:
        """Ends the head and the nodes that are left."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Stack]:
    """The services over gRPC, with leases that outlast a submission: Ray's first one starts an agent."""
    leases = {"lease_ms": 20_000, "renew_ms": 2_000, "sweep_ms": 50, "max_attempts": 3}
    async with open_stack("grpc", database.url, tmp_path, **leases) as opened:
        yield opened


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    """A Ray cluster for the module; under /tmp, because its sockets' paths are long."""
    folder = Path(f"/tmp/pipeline-ray-{os.getpid()}")
    folder.mkdir()
    cluster = Ray(folder)
    try:
        cluster.node()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def dispatcher(
    stack: Stack, ray: Ray, pod_environment: dict[str, str], tmp_path: Path
) -> AsyncIterator[Dispatcher]:
    """A dispatcher of the Ray cluster."""
    async with dispatching_on_ray(stack, ray, pod_environment) as dispatcher:
        yield dispatcher


@asynccontextmanager
async def dispatching_on_ray(stack: Stack, ray: Ray, environment: dict[str, str]) -> AsyncIterator[Dispatcher]:
    """A dispatcher whose name no other test's has."""
    name = f"test-{environment['PIPELINE_JOBS_ADDRESS'].rpartition(':')[2]}"
    settings = DispatcherSettings(dispatcher_poll_seconds=0.3, dispatcher_name=name, ray_variables=environment)
    engine = RayEngine(ray.url, settings)
    try:
        async with dispatching_on(stack, engine, settings) as dispatcher:
            yield dispatcher
    finally:
        engine.close()


def is_training(job: jobs_pb2.Job) -> bool:
    """Whether a job has a step behind it."""
    return job.current_step > 0


def driver(job: jobs_pb2.Job) -> psutil.Process:
    """The process that Ray started for a job."""
    marked = job.id.replace("-", "")
    for process in psutil.process_iter():
        try:
            if (
                "-m trainer" in " ".join(process.cmdline())
                and json.loads(process.environ().get("PIPELINE_TRAINER_LEASE", "{}")).get("job_id", "").replace("-", "")
                == marked
                and "sh" not in process.name()
            ):
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    raise AssertionError("it does not run")


async def test_jobs_run_one_after_the_other_to_their_results(
    stack: Stack, ray: Ray, dispatcher: Dispatcher, tmp_path: Path
) -> None:
    """Each lease is one Ray job, only fitting jobs are leased, and ended jobs are deleted from Ray."""
    first, second = await queue(stack), await queue(stack)
    await until(stack, first, is_training)
    assert (await get(stack, second.id)).status == QUEUED
    for job in (first, second):
        done = await until(stack, job, lambda now: now.status == COMPLETED)
        assert (done.attempt, done.external_job_id) == (1, f"job-{job.id.replace('-', '')}-1")
        assert await result_of_job(stack, job) == await expected_result(tmp_path, job)
    await eventually(lambda: not [name for name in ray.jobs() if first.id.replace("-", "") in name])


async def test_a_cancelled_job_is_stopped(stack: Stack, ray: Ray, dispatcher: Dispatcher) -> None:
    """Cancelling ends Ray's job and its process."""
    job = await queue(stack)
    await until(stack, job, is_training)
    process = driver(job)
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))
    await eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    await eventually(lambda: not [name for name in ray.jobs() if job.id.replace("-", "") in name])


async def test_a_killed_driver_is_tried_again(
    stack: Stack, ray: Ray, dispatcher: Dispatcher, admin: asyncpg.Connection
) -> None:
    """Ray's message about a dead driver reaches the owner, and the next attempt completes the job."""
    job = await queue(stack)
    await until(stack, job, is_training)
    driver(job).kill()
    done = await until(stack, job, lambda now: now.status == COMPLETED)
    assert done.attempt == 2
    data = await admin.fetchval("select data from job_events where type = 'retried'")
    assert "exit code" in str(data)


async def test_a_successor_adopts_rays_jobs(
    stack: Stack, ray: Ray, pod_environment: dict[str, str], tmp_path: Path
) -> None:
    """A new dispatcher continues with existing jobs, and submits none of them again."""
    async with dispatching_on_ray(stack, ray, pod_environment):
        job = await queue(stack)
        await until(stack, job, is_training)
    async with dispatching_on_ray(stack, ray, pod_environment):
        done = await until(stack, job, lambda now: now.status == COMPLETED)
    assert done.attempt == 1


async def test_a_lost_node_is_made_up_for_by_another(
    stack: Stack, ray: Ray, dispatcher: Dispatcher, tmp_path: Path
) -> None:
    """After a node died, the job is retried on another node, with the same bytes as its result."""
    job = await queue(stack)
    await until(stack, job, is_training)
    ray.kill(ray.processes[-1])
    ray.node()
    done = await until(stack, job, lambda now: now.status == COMPLETED)
    assert done.attempt == 2
    assert await result_of_job(stack, job) == await expected_result(tmp_path, job)

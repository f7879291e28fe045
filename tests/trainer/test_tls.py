"""Trainers and dispatchers with client certificates."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline.workers.v1 import workers_pb2
from pipeline.workers.v1.workers_pb2_grpc import WorkerServiceServicer

from rpc.process.settings import CommonSettings
from rpc.process.tls import channel_credentials
from tests.certificates import Authority
from tests.conftest import ISSUER, SECRET, token
from tests.jobs_service.trainers import TRAINER
from tests.rpc.conftest import boundary
from tests.serving import serving
from tests.trainer.dispatcher.cluster import Cluster
from trainer.client import Trainer
from trainer.settings import TrainerSettings

WORKER_SERVICE = workers_pb2.DESCRIPTOR.services_by_name["WorkerService"]
REPOSITORY = Path(__file__).parents[2]
COMMANDS = {
    "trainer": ["-m", "trainer", "--simulate", "--gpus", "A100-80GB=1"],
    "dispatcher": ["-m", "deploy.cli", "dispatcher", "--kubernetes"],
}


class Queue(WorkerServiceServicer):
    """A Jobs service without jobs. `called` is set by the first request for jobs."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def LeaseJobs(self, request: workers_pb2.LeaseJobsRequest, call: Any) -> workers_pb2.LeaseJobsResponse:
        self.called.set()
        await asyncio.sleep(min(1, request.wait_ms / 1000))
        return workers_pb2.LeaseJobsResponse()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs certificates of servers and trainers."""
    return Authority(tmp_path, "ours")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with free GPUs."""
    with Cluster(tmp_path, environment={}) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
async def test_a_certificate_is_shown_to_servers_that_ask(
    authority: Authority, cluster: Cluster, tmp_path: Path, command: str
) -> None:
    """With a client certificate trainers and dispatchers reach a server that requires one; without it they do not."""
    secret, queue = tmp_path / "token", Queue()
    secret.write_text(token(TRAINER, role="worker"))
    strict = {"jwt_secret": SECRET, "jwt_issuer": ISSUER, "tls_require_client": True, "drain_seconds": 0.2}
    settings = CommonSettings(**strict, tls_ca_file=authority.ca, **authority.issue("jobs"))
    async with serving({WORKER_SERVICE: queue}, boundary(), settings) as address:
        without = TrainerSettings(tls_ca_file=authority.ca)
        with Trainer(address, secret, gpus={"H100": 1}, credentials=channel_credentials(without)) as trainer:
            assert await asyncio.to_thread(trainer.lease, wait_seconds=0.5) == []
        assert not queue.called.is_set()
        files = {"tls_ca_file": authority.ca, **authority.issue("trainer")}
        variables = {f"PIPELINE_{name.upper()}": str(file) for name, file in files.items()}
        variables["KUBECONFIG"] = str(cluster.kubeconfig(tmp_path / "kubeconfig"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *COMMANDS[command], "--address", address, "--token-file", str(secret),
            env={**os.environ, **variables}, cwd=REPOSITORY,
        )  # fmt: skip
        try:
            await asyncio.wait_for(queue.called.wait(), 30)
        finally:
            process.terminate()
            await process.wait()

"""`pipeline serve` and servers that share their port, as processes."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import psutil
import pytest
from pipeline.estimator.v1 import estimator_pb2
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub

from deploy.settings import environment
from tests.clients import http_client
from tests.conftest import ISSUER, SECRET, NewDataset, TestDatabase, metadata, token
from tests.deploy.processes import RECOVERY_SECONDS, patience

ANN = "aaaaaaaa-0000-4000-8000-000000000001"
HYPERPARAMETERS = {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16}


def free_ports() -> dict[str, int]:
    """A port for each server."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(("gateway_port", "estimator_port", "jobs_port"), ports, strict=True))


@asynccontextmanager
async def process(*command: str, **settings: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program with these settings, stopped in the end."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, env=environment(**settings), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        await started.communicate()


async def until_ready(url: str) -> Mapping[str, Any]:
    """Waits until a gateway says that it is ready, and returns what it said."""
    async with asyncio.timeout(patience(RECOVERY_SECONDS)), http_client() as client:
        while True:
            try:
                answer = await client.get(f"{url}/readyz")
                if answer.status_code == 200:
                    return dict(answer.json())
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_one_process_answers_everything(
    database: TestDatabase, new_dataset: NewDataset, tmp_path: Path, workers: int
) -> None:
    """`pipeline serve` estimates and queues over HTTP and gRPC at the same price; workers share all three ports."""
    dataset_id, ports = await new_dataset(ANN), free_ports()
    settings = {"database_url": database.url, "jwt_secret": SECRET, "jwt_issuer": ISSUER, "log_format": "json", **ports}
    async with process(
        "deploy.cli", "serve", f"--workers={workers}", storage_url=f"file://{tmp_path}", **settings
    ) as served:
        url = f"http://127.0.0.1:{ports['gateway_port']}"
        assert (await until_ready(url))["checks"] == {"estimator": True, "jobs": True}
        everyone = psutil.Process(served.pid).children(recursive=True)
        assert len(everyone) == (workers if workers > 1 else 0)

        sent = {
            "dataset_id": dataset_id,
            "gpu_config": {"type": "A100-80GB", "count": 2},
            "hyperparameters": HYPERPARAMETERS,
        }
        headers = {"authorization": f"Bearer {token(ANN)}"}
        async with http_client(url, headers=headers) as client:
            priced = (await client.post("/api/jobs/estimate", json=sent)).json()["data"]
            made = await client.post("/api/jobs", json={**sent, "preset_id": "balanced"})
            assert made.status_code == 201, made.text
            assert made.json()["data"]["estimated_total_cost"] == priced["estimated_cost"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['estimator_port']}") as channel:
            request = estimator_pb2.EstimateCostRequest(
                dataset_id=dataset_id,
                gpu_config=estimator_pb2.GpuConfig(**sent["gpu_config"]),
                hyperparameters=estimator_pb2.Hyperparameters(**HYPERPARAMETERS),
            )
            stub = EstimatorServiceStub(channel)
            assert (await stub.EstimateCost(request, metadata=metadata(ANN))).estimated_cost == priced["estimated_cost"]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.EstimateCost(request, metadata=[("x-user-id", ANN)])
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

        served.send_signal(signal.SIGTERM)
        _, said = await served.communicate()
        assert served.returncode == 0, said
        assert not [each for each in everyone if each.is_running()]
        lines = [json.loads(line) for line in said.splitlines()]
        assert {line["request_id"] for line in lines if line.get("rpc", "").endswith("/CreateJob")} <= {
            line["request_id"] for line in lines if line["event"] == "http"
        }


async def test_workers_that_have_just_started_are_stopped_too() -> None:
    """N01: stopping a worker that has just started is no failure; killing one is."""
    program = """
import os, re, signal, time
from rpc.process.workers import run_workers
def main(index):
    # Once the parent passes signals on.
    while not int(re.search("SigCgt:.(.*)", open(f"/proc/{os.getppid()}/status").read())[1], 16) >> signal.SIGHUP - 1 & 1:
        time.sleep(0.01)
    os.write(1, b".")
    time.sleep(60)
    return 0
raise SystemExit(run_workers(2, main))
"""
    for number, code in ((signal.SIGTERM, 0), (signal.SIGKILL, 1)):
        served = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
        assert served.stdout is not None
        await served.stdout.readexactly(2)
        (psutil.Process(served.pid).children()[0] if code else served).send_signal(number)
        await served.communicate()
        assert served.returncode == code


@pytest.mark.slow
async def test_a_server_takes_no_port_that_another_has(database: TestDatabase) -> None:
    """N09: a second server on the same port ends with code 2 and names the port."""
    settings = {"database_url": database.url, "jwt_secret": SECRET, "jwt_issuer": ISSUER, **free_ports()}
    for module, name in (("estimator_service", "estimator_port"), ("gateway", "gateway_port")):
        async with process(module, **settings) as first:
            assert first.stderr is not None
            await first.stderr.readline()
            async with process(module, **settings) as second:
                _, said = await second.communicate()
            assert second.returncode == 2, said
            assert f"port {settings[name]} on 127.0.0.1" in said.decode().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "settings", "words"),
    [
        ("estimator_service", {}, ["PIPELINE_DATABASE_URL", "PIPELINE_JWT_ISSUER"]),
        ("jobs_service", {"jwt_issuer": "x", "database_url": "postgresql://x"}, ["PIPELINE_JWT_SECRET"]),
        ("gateway", {"jwt_issuer": "x", "jwt_secret": "short"}, ["at least 32 bytes"]),
        ("gateway", {"jwt_issuer": "x", "jwt_secret": SECRET, "gateway_port": "x"}, ["PIPELINE_GATEWAY_PORT"]),
        ("gateway", {"jwt_issuer": "x", "jwks_url": "https://x", "dev_issuer": 1}, ["PIPELINE_DEV_ISSUER"]),
        ("deploy.cli serve", {"jwt_issuer": "x"}, ["PIPELINE_DATABASE_URL"]),
    ],
)
async def test_missing_settings_are_one_line(module: str, settings: dict[str, str], words: list[str]) -> None:
    """N10: a server with a missing, mistyped or too short setting ends with code 2 and one line."""
    async with process(*module.split(), **settings) as refused:
        _, said = await refused.communicate()
    assert refused.returncode == 2, said
    assert said.decode().count("\n") == 1, said
    for word in words:
        assert word in said.decode()

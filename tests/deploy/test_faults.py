"""Faults of group 16: requests while processes die under load, and the database afterwards."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from tests.clients import http_client
from tests.deploy.processes import Stack, child, find_child, patience, stack, wait_for

pytestmark = pytest.mark.slow

CLIENTS = 6
STOP_SECONDS, BACK_SECONDS = 25.0, 5.0
# What a client of ours does: a few more tries, a little apart, of what is safe to repeat.
TRIES, PAUSE_SECONDS = 60, 0.1
SERVERS = ["estimator_service", "jobs_service", "gateway"]


@pytest.fixture(scope="module")
def up(shared_folder: Path) -> Iterator[Stack]:
    """A stack without a limit on open jobs."""
    with stack(shared_folder, max_open_jobs=1_000_000, simulated_trainer=False) as started:
        yield started


class Load:
    """Clients that queue and list jobs without a pause. `answers` counts statuses of single tries; 0: no answer."""

    def __init__(self, up: Stack, dataset: str) -> None:
        self._client = http_client(up.running.gateway, headers={"authorization": f"Bearer {up.token}"}, timeout=15)
        self._asked = {
            "dataset_id": dataset,
            "gpu_config": {"type": "A100-80GB", "count": 2},
            "hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16},
            "preset_id": "balanced",
        }
        self.answers: Counter[int] = Counter()
        self.made: set[str] = set()
        self.done = 0
        self.failed: list[Any] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the load while the body runs, and waits for the last responses."""
        stop = asyncio.Event()
        async with self._client, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._work(stop), name=f"client-{number}")
            try:
                yield
            finally:
                stop.set()

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            key = {"idempotency-key": str(uuid.uuid4())}
            made = await self._insist("POST", "/api/jobs", json=self._asked, headers=key)
            if made is not None and made.status_code == 201:
                self.made.add(made.json()["data"]["id"])
            await self._insist("GET", "/api/jobs?limit=5")

    async def _insist(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        answer = None
        for _ in range(TRIES):
            try:
                answer = await self._client.request(method, path, **options)
                self.answers[answer.status_code] += 1
                if answer.status_code < 300:
                    self.done += 1
                    # An answer with status 200 is whole.
                    answer.json()
                    return answer
                if answer.status_code != 503:
                    break
            except httpx.TransportError:
                self.answers[0] += 1
            await asyncio.sleep(PAUSE_SECONDS)
        self.failed.append((method, path, answer and answer.text))
        return None


async def started_again(up: Stack, name: str, old: int, seconds: float) -> psutil.Process:
    """Waits for the process that replaces one."""

    def new() -> psutil.Process | None:
        child = find_child(up, name)
        return child if child is not None and child.pid != old else None

    return await asyncio.to_thread(wait_for, new, seconds)


async def some_more(load: Load, count: int, seconds: float) -> None:
    """Waits until that many more requests got a response."""
    expected = load.done + count
    async with asyncio.timeout(patience(seconds)):
        while load.done < expected:
            await asyncio.sleep(0.02)


async def dataset_of(up: Stack) -> str:
    """The demo dataset."""
    async with http_client(headers={"authorization": f"Bearer {up.token}"}) as client:
        async with asyncio.timeout(patience(BACK_SECONDS)):
            while (listed := await client.get(f"{up.running.gateway}/api/datasets")).status_code != 200:
                await asyncio.sleep(PAUSE_SECONDS)
    return str(listed.json()["data"]["datasets"][0]["id"])


@pytest.mark.parametrize("name", SERVERS)
async def test_a_stopping_server_drops_no_request(up: Stack, name: str) -> None:
    """N01, N05: under load, SIGTERM fails no retried request; the server ends soon and returns at its port."""
    load = Load(up, await dataset_of(up))
    async with load.running():
        await some_more(load, 20, 30)
        old = child(up, name)
        old.terminate()
        stopped = time.monotonic()
        await asyncio.to_thread(wait_for, lambda: not old.is_running(), STOP_SECONDS)
        print(f"{name}: gone after {time.monotonic() - stopped:.2f} s")
        await started_again(up, name, old.pid, STOP_SECONDS)
        await some_more(load, 50, 30)
    print(f"{name}: {dict(load.answers)}")
    assert load.failed == []
    assert set(load.answers) <= {0, 200, 201, 503}


@pytest.mark.parametrize("name", SERVERS)
async def test_a_killed_server_loses_no_job(up: Stack, name: str) -> None:
    """N02, N05: SIGKILL under load: clients see 503 or a broken connection only, and answers come again within seconds.

    Every job that was acknowledged is there, and each has its one notification.
    """
    load = Load(up, await dataset_of(up))
    async with load.running():
        await some_more(load, 20, 30)
        old = child(up, name)
        old.kill()
        await started_again(up, name, old.pid, BACK_SECONDS)
        back = time.monotonic()
        await some_more(load, CLIENTS, BACK_SECONDS)
        print(f"{name}: answers {time.monotonic() - back:.2f} s after its new start")
        await some_more(load, 50, 30)
    print(f"{name}: {dict(load.answers)}")
    assert load.failed == []
    assert set(load.answers) <= {0, 200, 201, 503}

    connection = await asyncpg.connect(up.running.database_url)
    try:
        there = {str(row["id"]) for row in await connection.fetch("select id from lora_training_jobs")}
        rows = await connection.fetch(
            "select metadata ->> 'job_id' as id from lora_notifications where type = 'job_queued'"
        )
    finally:
        await connection.close()
    assert load.made <= there
    assert sorted(row["id"] for row in rows) == sorted(there)

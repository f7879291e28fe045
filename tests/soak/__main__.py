"""`make soak`: mixed load for a quarter of an hour; memory, errors, latency and logs must stay where they were."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
from rich.console import Console
from rich.table import Table

from rpc.process.logs import setup_logs
from tests.conftest import insert_dataset
from tests.deploy.processes import Stack, stack

USERS, CLIENTS = 20, 12
CALL_SECONDS = 15.0
SAMPLE_SECONDS = 5.0
# The first part is not judged: caches fill and pools open.
WARM_UP_SHARE = 0.25
MAX_GROWTH = 0.05
# Small processes may grow by this much whatever their share.
MAX_GROWTH_BYTES = 4 * 2**20
MAX_LATENCY_RATIO = 2.0
MAX_LOG_BYTES_PER_CALL = 2_000
JOB = {
    "preset_id": "balanced",
    "gpu_config": {"type": "A100-80GB", "count": 1},
    "hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16},
}
LINE = b'{"prompt": "What is a lease?", "completion": "The right to a job until a moment."}\n'


@dataclass
class Load:
    """Clients that call the gateway in a fixed mix, and what they measured."""

    client: httpx.AsyncClient
    users: list[tuple[dict[str, str], str]]
    random: random.Random
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    latencies: list[tuple[float, float]] = field(default_factory=list)

    async def run(self, until: float) -> None:
        """Calls until the loop's time is `until`."""
        calls: list[tuple[int, Callable[..., Awaitable[None]]]] = [
            (40, self.estimate), (20, self.list_jobs), (15, self.create), (10, self.watch), (10, self.cancel), (5, self.upload),
        ]  # fmt: skip
        weights, methods = zip(*calls, strict=True)
        while time.monotonic() < until:
            (method,) = self.random.choices(methods, weights)
            await method(*self.random.choice(self.users))

    async def call(self, name: str, method: str, path: str, headers: dict[str, str], **body: Any) -> Any:
        """Makes one call and returns its JSON; counts its status (0: no answer)."""
        started = time.monotonic()
        try:
            response = await self.client.request(method, path, headers=headers, **body)
            status, data = response.status_code, response.json()
        except (httpx.HTTPError, ValueError):
            status, data = 0, None
        self.statuses[name, status] += 1
        self.latencies.append((started, time.monotonic() - started))
        return data

    async def estimate(self, headers: dict[str, str], dataset: str) -> None:
        """Estimates with and without a base model."""
        body = {key: value for key, value in JOB.items() if key != "preset_id"} | {"dataset_id": dataset}
        if self.random.random() < 0.5:
            body |= {"base_model": "llama-3.1-8b", "training": {"method": "qlora"}}
        await self.call("estimate", "POST", "/api/jobs/estimate", headers, json=body)

    async def list_jobs(self, headers: dict[str, str], _: str) -> None:
        """Lists a page of jobs."""
        await self.call("list", "GET", f"/api/jobs?limit=20&page={self.random.randint(1, 3)}", headers)

    async def create(self, headers: dict[str, str], dataset: str) -> None:
        """Creates a job."""
        key = {"idempotency-key": str(uuid.UUID(int=self.random.getrandbits(128), version=4))}
        await self.call("create", "POST", "/api/jobs", headers | key, json={**JOB, "dataset_id": dataset})

    async def cancel(self, headers: dict[str, str], _: str) -> None:
        """Cancels the oldest queued job, so that open jobs stay bounded."""
        page = await self.call("list", "GET", "/api/jobs?status=queued&limit=50", headers)
        for job in (page or {}).get("data", {}).get("jobs", [])[-3:]:
            await self.call("cancel", "POST", f"/api/jobs/{job['id']}/cancel", headers, json={})

    async def watch(self, headers: dict[str, str], _: str) -> None:
        """Watches all jobs for a second."""
        try:
            async with asyncio.timeout(1), self.client.stream("GET", "/api/jobs/events", headers=headers) as response:
                self.statuses["watch", response.status_code] += 1
                async for _line in response.aiter_lines():
                    pass
        except (TimeoutError, httpx.HTTPError):
            pass

    async def upload(self, headers: dict[str, str], _: str) -> None:
        """Imports a dataset and deletes it."""
        kind = {"content-type": "application/jsonl"}
        name = f"soak-{self.random.getrandbits(64):x}"
        content = LINE * self.random.randint(1, 2_000)
        made = await self.call("upload", "POST", f"/api/datasets?name={name}", headers | kind, content=content)
        if made and made.get("success"):
            await self.call("delete", "DELETE", f"/api/datasets/{made['data']['id']}", headers)


async def soak(running: Stack, minutes: float, seed: int, report: Callable[[str], None]) -> int:
    """Runs the load and prints the table. Returns the number of promises that broke."""
    issuer = running.running.issuer
    assert issuer is not None
    tokens, chance = issuer.open(), random.Random(seed)
    admin = await asyncpg.connect(running.running.database_url)
    users = []
    for number in range(USERS):
        user = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        dataset = await insert_dataset(admin, user, name=f"Soak {number}")
        users.append(({"authorization": f"Bearer {tokens.token(user, seconds=7200)}"}, dataset))
    await admin.close()
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=50)
    async with httpx.AsyncClient(base_url=running.running.gateway, timeout=CALL_SECONDS, limits=limits) as client:
        load = Load(client, users, chance)
        start = time.monotonic()
        end = start + minutes * 60
        clients = [asyncio.create_task(load.run(end), name=f"client-{number}") for number in range(CLIENTS)]
        samples: dict[str, list[tuple[float, int]]] = {}
        while (now := time.monotonic()) < end:
            for name, size in memory(running).items():
                samples.setdefault(name, []).append((now, size))
            failed = sum(count for (_, status), count in load.statuses.items() if status >= 500 or not status)
            report(f"{(now - start) / 60:.1f} of {minutes:.0f} min: {len(load.latencies):,} calls, {failed} failed")
            await asyncio.sleep(min(SAMPLE_SECONDS, max(0.1, end - now)))
        await asyncio.gather(*clients)
    return judge(load, samples, start, end, running.output.parent / "logs")


def memory(running: Stack) -> dict[str, int]:
    """Returns the resident bytes of each server, by the module that it runs."""
    sizes: Counter[str] = Counter()
    for process in psutil.Process(running.process.pid).children():
        try:
            command = process.cmdline()
            if "-m" in command:
                name = " ".join(command[command.index("-m") + 1 :][:2])
                sizes[name] += process.memory_info().rss
        except psutil.Error:
            continue  # it ended meanwhile
    return dict(sizes)


def judge(load: Load, samples: dict[str, list[tuple[float, int]]], start: float, end: float, logs: Path) -> int:
    """Prints what was measured beside what was promised. Returns the number of promises that broke."""
    warm, middle = start + (end - start) * WARM_UP_SHARE, start + (end - start) * (1 + WARM_UP_SHARE) / 2
    table = Table("promise", "measured", "limit", "")
    broken = 0

    def row(promise: str, measured: str, limit: str, holds: bool) -> None:
        nonlocal broken
        broken += not holds
        table.add_row(promise, measured, limit, "ok" if holds else "BROKEN")

    for name, points in sorted(samples.items()):
        before = statistics.median(size for moment, size in points if warm <= moment < middle)
        after = statistics.median(size for moment, size in points if moment >= middle)
        limit = max(before * MAX_GROWTH, MAX_GROWTH_BYTES)
        row(
            f"memory of {name}",
            f"{before / 2**20:.0f} → {after / 2**20:.0f} MiB",
            f"{MAX_GROWTH:.0%}",
            after - before <= limit,
        )
    failed = {key: count for key, count in load.statuses.items() if key[1] >= 500 or key[1] == 0}
    row("no 5xx, no broken answer", str(failed or 0), "0", not failed)
    early, late = (
        statistics.quantiles([seconds for moment, seconds in load.latencies if first <= moment < last], n=100)[98]
        for first, last in ((warm, middle), (middle, end))
    )
    ratio = late / early
    row(
        "p99 is steady",
        f"{early * 1000:.0f} → {late * 1000:.0f} ms",
        f"ratio {MAX_LATENCY_RATIO:g}",
        ratio <= MAX_LATENCY_RATIO,
    )
    per_call = sum(file.stat().st_size for file in logs.iterdir()) / len(load.latencies)
    row(
        "logs are bounded",
        f"{per_call:.0f} bytes a call",
        f"{MAX_LOG_BYTES_PER_CALL}",
        per_call <= MAX_LOG_BYTES_PER_CALL,
    )
    console = Console(width=110)
    console.print(table)
    console.print(f"{len(load.latencies):,} calls in {(end - start) / 60:.1f} min; by status:")
    console.print(", ".join(f"{name} {status}: {count:,}" for (name, status), count in sorted(load.statuses.items())))
    return broken


def main() -> int:
    """Returns the exit code: 1 if a promise broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()
    setup_logs("warning")
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="pipeline-soak-", dir="/tmp") as folder, stack(Path(folder)) as running:
        report = partial(print, flush=True)
        return int(asyncio.run(soak(running, arguments.minutes, arguments.seed, report)) > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Imports a large file into a Jobs server of its own process, and says what that took of it and of its other callers.

`python -m tests.bench.import_file --megabytes 500` starts a PostgreSQL and a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from tempfile import TemporaryDirectory

import grpc
import orjson
import psutil
from pipeline.datasets.v1 import datasets_pb2
from pipeline.datasets.v1.datasets_pb2_grpc import DatasetServiceStub
from pipeline.notifications.v1 import notifications_pb2
from pipeline.notifications.v1.notifications_pb2_grpc import NotificationServiceStub

from tests.bench.load import cpu_seconds
from tests.bench.scratch import migrated, scratch_database
from tests.conftest import metadata
from tests.processes import environment, running

CHUNK = 256 * 1024
SEED = 11


@dataclass(frozen=True)
class Measured:
    """Memory in MB, times in seconds. `idle`: latencies of another caller before, `busy`: while the import runs."""

    dataset: datasets_pb2.Dataset
    seconds: float
    cpu_seconds: float
    rss_before: float
    rss_peak: float
    idle: list[float]
    busy: list[float]

    def __str__(self) -> str:
        size = self.dataset.file_size / 1e6
        return (
            f"{size:.0f} MB in {self.seconds:.1f} s ({size / self.seconds:.1f} MB/s), "
            f"{size / self.cpu_seconds:.1f} MB a second of the server's processor time, "
            f"{self.dataset.total_training_pairs} pairs, {self.dataset.total_tokens} tokens; "
            f"resident {self.rss_before:.0f} MB before, {self.rss_peak:.0f} MB at most; another caller waited "
            f"{percentiles(self.idle)} before and {percentiles(self.busy)} meanwhile ({len(self.busy)} calls)"
        )


def percentiles(latencies: list[float]) -> str:
    """The median and the 99th percentile."""
    return f"{statistics.median(latencies) * 1e3:.1f} ms (p99 {p99(latencies) * 1e3:.1f})"


def p99(latencies: list[float]) -> float:
    """The 99th percentile."""
    return sorted(latencies)[int(len(latencies) * 0.99)]


def lines() -> list[bytes]:
    """A thousand conversations of English words, some long, some short."""
    random = Random(SEED)
    words = [
        "the",
        "a",
        "model",
        "data",
        "train",
        "step",
        "loss",
        "rate",
        "layer",
        "token",
        "batch",
        "adapter",
        "rank",
        "merge",
        "learn",
        "text",
        "line",
        "file",
        "run",
    ]

    def said(most: int) -> str:
        return " ".join(random.choices(words, k=random.randint(3, most)))

    return [
        orjson.dumps({"messages": [{"role": "user", "content": said(60)}, {"role": "assistant", "content": said(600)}]})
        for _ in range(1000)
    ]


async def pieces(size: int) -> AsyncIterator[datasets_pb2.ImportDatasetRequest]:
    """A file of about `size` bytes, as a client sends it."""
    yield datasets_pb2.ImportDatasetRequest(name="large", file_name="large.jsonl")
    block = b"\n".join(lines()) + b"\n"
    sent = 0
    while sent < size:
        for start in range(0, len(block), CHUNK):
            yield datasets_pb2.ImportDatasetRequest(chunk=block[start : start + CHUNK])
        sent += len(block)


async def measure(address: str, pid: int, size: int, caller: list[tuple[str, str]]) -> Measured:
    """Imports `size` bytes, watching the server's memory and how long another call takes."""
    process = psutil.Process(pid)
    async with grpc.aio.insecure_channel(address) as channel, grpc.aio.insecure_channel(address) as other:
        notifications = NotificationServiceStub(other)
        peak = 0

        async def call() -> float:
            nonlocal peak
            started = time.perf_counter()
            await notifications.ListNotifications(
                notifications_pb2.ListNotificationsRequest(), metadata=caller, timeout=10
            )
            peak = max(peak, process.memory_info().rss)
            return time.perf_counter() - started

        for _ in range(20):
            await call()
        idle = [await call() for _ in range(200)]
        before = process.memory_info().rss
        started, cpu_started = time.perf_counter(), cpu_seconds(process)
        importing = asyncio.ensure_future(_import(channel, size, caller))
        busy = []
        while not importing.done():
            busy.append(await call())
            await asyncio.sleep(0.005)
        dataset = await importing
        seconds, cpu = time.perf_counter() - started, cpu_seconds(process) - cpu_started
        return Measured(dataset, seconds, cpu, before / 1e6, peak / 1e6, idle, busy)


async def _import(channel: grpc.aio.Channel, size: int, caller: list[tuple[str, str]]) -> datasets_pb2.Dataset:
    answer = await DatasetServiceStub(channel).ImportDataset(pieces(size), metadata=caller, timeout=1_800)
    return answer.dataset


async def main(megabytes: int) -> None:
    """Measures once and prints it."""
    with scratch_database() as url, TemporaryDirectory() as folder:
        service_url = await migrated(url)
        async with running("jobs_service", environment(service_url, PIPELINE_STORAGE_URL=f"file://{folder}")) as server:
            address = await server.address()
            await server.logged("database", lambda line: bool(line["healthy"]))
            print(await measure(address, server.process.pid, megabytes * 1_000_000, metadata()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    asyncio.run(main(parser.parse_args().megabytes))

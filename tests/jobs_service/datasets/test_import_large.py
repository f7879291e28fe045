"""A large import into a separate server process: its memory, and the latency of other calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline.datasets.v1 import datasets_pb2

from tests.bench.import_file import measure, p99
from tests.conftest import TestDatabase, metadata
from tests.processes import environment, running


@pytest.mark.slow
async def test_a_large_file_takes_little_memory_and_delays_nobody(database: TestDatabase, tmp_path: Path) -> None:
    """60 MB are imported under 300 MB resident, at most 130 MB of them for the import, and other calls are answered.

    Some 50 MB are the vocabulary of Tekken, which stays.
    """
    variables = environment(database.url, PIPELINE_STORAGE_URL=f"file://{tmp_path}")
    async with running("jobs_service", variables) as server:
        address = await server.address()
        await server.logged("database", lambda line: bool(line["healthy"]))
        result = await measure(address, server.process.pid, 60_000_000, metadata())
        print(result)
    assert result.dataset.status == datasets_pb2.DATASET_STATUS_READY
    assert result.dataset.file_size >= 60_000_000
    assert result.rss_peak < 300
    assert result.rss_peak - result.rss_before < 130
    # Off the event loop: a call waits for others' work on this machine, never for the import itself.
    assert p99(result.busy) < 1

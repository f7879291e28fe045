"""GetCapacity: GPUs of each type, and running and waiting jobs of all users."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import pytest
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import NewDataset, Stack, metadata
from tests.jobs_service.jobs.test_create_job import ANN, BOB
from tests.jobs_service.trainers import OTHER, lease, queue, release, report


@pytest.fixture(autouse=True)
def _always_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call counts anew."""
    monkeypatch.setattr("jobs_service.queue.positions.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("jobs_service.queue.positions.COUNTING_SHARE", 1e9)


async def capacity(stack: Stack, user: str = ANN) -> dict[str, Any]:
    """Free and busy GPUs, and running, starting and queued jobs, by GPU type."""
    response = await stack.jobs.GetCapacity(jobs_pb2.GetCapacityRequest(), metadata=metadata(user))
    return {
        each.gpu_type: (each.free_gpus, each.busy_gpus, each.running_jobs, each.starting_jobs, each.queued_jobs)
        for each in response.gpu_types
    }


async def test_capacity_counts_the_jobs_of_all(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Jobs wait, start and run, offers count until they are a minute old, and any user sees the same numbers."""
    assert await capacity(stack) == {}
    for user in (ANN, BOB, BOB):
        await queue(stack, new_dataset, user)
    await admin.execute(
        "update lora_training_jobs set queued_at = queued_at - interval '1 hour' where user_id = $1", ANN
    )
    assert await capacity(stack) == {"A100-80GB": (0, 0, 0, 0, 3)}
    (response,) = (await stack.jobs.GetCapacity(jobs_pb2.GetCapacityRequest(), metadata=metadata(BOB))).gpu_types
    assert response.longest_wait_seconds == pytest.approx(3600, abs=60)
    gpus = [{"type": "A100-80GB", "count": 6}, {"type": "H100", "count": 1}]
    leases = await lease(stack, gpus=gpus, max_jobs=2, deferred=True)
    assert await capacity(stack) == {"A100-80GB": (2, 0, 0, 2, 1), "H100": (1, 0, 0, 0, 0)}
    await report(stack, leases[0])
    assert await capacity(stack, str(uuid.uuid4())) == {"A100-80GB": (2, 2, 1, 1, 1), "H100": (1, 0, 0, 0, 0)}
    await release(stack, leases[1])
    await lease(stack, OTHER, gpus=[{"type": "H100", "count": 4}])
    assert await capacity(stack) == {"A100-80GB": (4, 2, 1, 0, 2), "H100": (5, 0, 0, 0, 0)}
    await admin.execute("update trainer_offers set seen_at = seen_at - interval '2 minutes'")
    assert await capacity(stack) == {"A100-80GB": (0, 2, 1, 0, 2)}

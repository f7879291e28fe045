"""What a job costs, and the limits that stop it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from tests.conftest import NewDataset, Stack, metadata
from tests.door import refused
from tests.jobs_service.jobs.test_create_job import ANN, new_request
from tests.jobs_service.trainers import (
    complete,
    fail,
    get,
    lapse,
    lease,
    notices,
    queue,
    report,
    until,
)

pytestmark = pytest.mark.parametrize("stack", ["grpc"], indirect=True)


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """A sweeper that comes often, and leases that outlast a slow machine."""
    return {"lease_ms": 60_000, "sweep_ms": 20}


async def trains_for(admin: asyncpg.Connection, job_id: str, hours: float) -> None:
    """Moves the beginning of a lease's billing back."""
    statement = "update lora_training_jobs set billed_from = billed_from - $2 * interval '1 hour' where id = $1"
    await admin.execute(statement, job_id, hours)


async def test_cost_is_rate_times_time_over_all_attempts(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Two GPUs at 3.50 for 1.5 hours in two attempts cost 10.50 dollars, plus storage once; waiting is free."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    await trains_for(admin, job.id, 1)
    assert (await get(stack, job.id)).current_cost == pytest.approx(7.0, abs=0.011)
    await fail(stack, leased, retryable=True)
    await admin.execute("update lora_training_jobs set updated_at = updated_at - interval '9 hours'")
    waiting = await get(stack, job.id)
    assert (waiting.current_cost, waiting.billed_seconds) == (pytest.approx(7.0, abs=0.011), pytest.approx(3600, abs=5))
    assert not waiting.HasField("final_cost")
    (leased,) = await lease(stack)
    await report(stack, leased)
    await trains_for(admin, job.id, 0.5)
    await complete(stack, leased)
    done = await get(stack, job.id)
    assert done.final_cost == done.current_cost == pytest.approx(10.5 + 0.5, abs=0.021)
    records = await admin.fetch("select * from cost_records order by lease_epoch")
    assert [(row["attempt"], row["outcome"]) for row in records] == [(1, "failed"), (2, "completed")]
    stored = await admin.fetchrow("select final_cost, billed_seconds from lora_training_jobs")
    assert sum(row["cost_usd"] for row in records) == stored["final_cost"]
    assert sum(row["billed_seconds"] for row in records) == pytest.approx(stored["billed_seconds"])


async def test_the_rate_is_frozen(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """A job is billed at the rate of its creation, exactly."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    await complete(stack, leased)
    row = await admin.fetchrow("select * from cost_records")
    assert row["hourly_rate"] == Decimal("7.0")
    seconds = Decimal(str((row["ended_at"] - row["started_at"]).total_seconds()))
    assert row["cost_usd"] - row["storage_usd"] == pytest.approx(Decimal(7) * seconds / 3600)
    assert row["storage_usd"] == Decimal("0.5")
    assert (await get(stack, job.id)).estimated_total_cost == 6.03


async def test_time_after_an_expired_lease_is_not_billed(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """An expired lease is billed until its expiry, however late the sweeper runs."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    await report(stack, leased)
    await trains_for(admin, job.id, 2)
    await lapse(admin, job.id)

    async def lost() -> bool:
        return (await get(stack, job.id)).attempt == 2

    await until(lost)
    assert (await get(stack, job.id)).current_cost == pytest.approx(7.0 + 7.0 * 60 / 3600, abs=0.02)


async def test_a_cost_limit_warns_and_stops(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """The owner is notified at 80 % of the limit; at 100 % the job is stopped and costs no more."""
    job = await queue(stack, new_dataset, max_cost_usd=10)
    (leased,) = await lease(stack)
    assert leased.seconds_left == pytest.approx(10 / 7 * 3600, abs=5)
    await report(stack, leased)
    await trains_for(admin, job.id, 1.2)

    async def warned() -> bool:
        return "job_cost_warning" in await notices(admin, job.id)

    await until(warned)
    now = await get(stack, job.id)
    assert (now.status, now.cost_limit_share) == (jobs_pb2.JOB_STATUS_RUNNING, pytest.approx(0.84, abs=0.01))
    await trains_for(admin, job.id, 5)

    async def stopped() -> bool:
        return (await get(stack, job.id)).is_final

    await until(stopped)
    now = await get(stack, job.id)
    assert (now.status, now.status_reason) == (jobs_pb2.JOB_STATUS_FAILED, jobs_pb2.STATUS_REASON_COST_LIMIT)
    assert (now.final_cost, now.cost_limit_share, now.error_message) == (10, 1, "Stopped at its cost limit of $10.")
    kinds = await notices(admin, job.id)
    assert kinds == ["job_queued", "job_started", "job_cost_warning", "job_cost_limit", "job_failed"]
    status = await report(stack, leased)
    assert (status.stop, status.stop_reason) == (True, workers_pb2.STOP_REASON_COST_LIMIT)
    assert (await admin.fetchval("select outcome from cost_records")) == "cost_limit"


@pytest.mark.parametrize("jobs_overrides", [{"lease_ms": 60_000, "sweep_ms": 60_000}])
async def test_a_report_stops_a_job_at_its_limit(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """A report that passes the limit stops the job without the sweeper, with both notifications."""
    job = await queue(stack, new_dataset, max_duration_seconds=3600, max_cost_usd=100)
    (leased,) = await lease(stack)
    assert leased.seconds_left == pytest.approx(3600, abs=5)
    await report(stack, leased)
    await trains_for(admin, job.id, 1)
    status = await report(stack, leased)
    assert (status.stop, status.stop_reason) == (True, workers_pb2.STOP_REASON_DURATION_LIMIT)
    now = await get(stack, job.id)
    assert (now.status, now.status_reason) == (jobs_pb2.JOB_STATUS_FAILED, jobs_pb2.STATUS_REASON_DURATION_LIMIT)
    job = await queue(stack, new_dataset, max_cost_usd=1)
    (leased,) = await lease(stack)
    await report(stack, leased)
    await trains_for(admin, job.id, 1)
    assert (await report(stack, leased)).stop_reason == workers_pb2.STOP_REASON_COST_LIMIT
    kinds = set(await notices(admin, job.id))
    assert kinds == {"job_queued", "job_started", "job_cost_warning", "job_cost_limit", "job_failed"}


async def test_limits_have_limits(stack: Stack, new_dataset: NewDataset) -> None:
    """Zero, non-finite and huge limits are refused with the field's name."""
    dataset = await new_dataset(ANN)
    for fields in (
        {"max_cost_usd": 0},
        {"max_cost_usd": float("nan")},
        {"max_cost_usd": 2e9},
        {"max_duration_seconds": 0},
        {"max_duration_seconds": 2**40},
        {"priority": -1},
        {"priority": 10},
    ):
        error = await refused(stack.jobs.CreateJob(new_request(dataset, **fields), metadata=metadata(ANN)))
        assert list(error.violations) == list(fields)

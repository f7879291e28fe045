"""Metrics of the queue, trainers, imports, webhooks, watches and estimates."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pipeline.datasets.v1 import datasets_pb2
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from prometheus_client import generate_latest

from jobs_service.monitoring.gauges import GAUGES, SQL
from tests.conftest import NewDataset, Stack, TestDatabase, metadata, open_stack
from tests.door import refused
from tests.jobs_service.api_keys.test_api_keys import JOBS, bearer, create
from tests.jobs_service.jobs.test_create_job import ANN, new_request
from tests.jobs_service.rows import job_row
from tests.jobs_service.trainers import OTHER, complete, fail, lapse, lease, queue, release, report, until
from tests.rpc.test_telemetry import exported

BEN = "bbbbbbbb-0000-4000-8000-000000000009"
A100 = "A100-80GB"


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Gauges are read often, and a job has two attempts."""
    return {"gauges_ms": 20, "sweep_ms": 20, "max_attempts": 2}


def values(stack: Stack) -> dict[tuple[str, ...], float]:
    """Returns the exported values."""
    return exported(generate_latest(stack.metrics.registry).decode())


async def shown(stack: Stack, **expected: float) -> None:
    """Waits until metrics have these values. A key is a name without its prefix, and its labels after `__`."""
    keys = {tuple(f"pipeline_{name}".replace("a100", A100).split("__")): value for name, value in expected.items()}

    def missing() -> dict[tuple[str, ...], float | None]:
        samples = values(stack)
        return {key: samples.get(key) for key, value in keys.items() if samples.get(key) != value}

    end = time.monotonic() + 10
    while differing := missing():
        assert time.monotonic() < end, differing
        await asyncio.sleep(0.01)


async def test_the_queue_is_counted_by_state_and_gpu_type(
    stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """Open jobs are counted by state, the oldest wait by GPU type, and jobs that no trainer can take."""
    await shown(stack, webhook_outbox_count=0)
    assert ("pipeline_jobs_count", A100, "queued") not in values(stack)
    old = await job_row(admin, await new_dataset(BEN), BEN, "queued")
    await admin.execute("update lora_training_jobs set queued_at = now() - interval '1 hour' where id = $1", old)
    await queue(stack, new_dataset)
    await shown(stack, jobs_count__a100__queued=2, unserved_jobs_count__a100=2)
    assert 3600 <= values(stack)["pipeline_queue_age_seconds", A100] < 3700
    [leased] = await lease(stack)
    await shown(
        stack,
        jobs_count__a100__queued=1,
        jobs_count__a100__initializing=1,
        unserved_jobs_count__a100=0,
        trainers_count__a100=1,
    )
    await report(stack, leased)
    await shown(stack, jobs_count__a100__running=1)
    await complete(stack, leased)
    await lease(stack, OTHER)
    await shown(stack, jobs_count__a100__initializing=1, trainers_count__a100=2)
    assert ("pipeline_jobs_count", A100, "queued") not in values(stack)
    assert ("pipeline_queue_age_seconds", A100) not in values(stack)


async def test_a_job_that_is_queued_again_waits_from_then_on(
    stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """The wait of a job whose attempt ended begins at that end, however old the job is."""
    job = await queue(stack, new_dataset)
    await admin.execute("update lora_training_jobs set queued_at = now() - interval '1 day' where id = $1", job.id)
    [leased] = await lease(stack)
    await fail(stack, leased, retryable=True)
    await shown(stack, jobs_count__a100__queued=1)
    assert values(stack)["pipeline_queue_age_seconds", A100] < 60


async def test_leases_are_counted_by_how_they_end(
    stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """Each end of a lease is counted once, repeated results are not, and jobs where they become final."""
    await queue(stack, new_dataset)
    [leased] = await lease(stack)
    await release(stack, leased)
    await release(stack, leased)
    [leased] = await lease(stack)
    await report(stack, leased)
    await complete(stack, leased)
    await complete(stack, leased)
    await queue(stack, new_dataset, BEN)
    [leased] = await lease(stack)
    await fail(stack, leased, retryable=True)
    [leased] = await lease(stack)
    # The sweeper ends this one, and with it the last attempt.
    await lapse(admin, leased.job_id)
    await shown(stack, leases_ended_total__lease_expired=1, jobs_finished_total__failed=1)
    await refused(report(stack, leased))
    for takes_it in (False, True):
        job = await queue(stack, new_dataset)
        if takes_it:
            await lease(stack)
        await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))
    await shown(
        stack,
        leases_total__a100=5,
        leases_ended_total__released=1,
        leases_ended_total__completed=1,
        leases_ended_total__failed=1,
        leases_ended_total__cancelled=1,
        leases_ended_total__cost_limit=0,
        jobs_finished_total__completed=1,
        jobs_finished_total__cancelled=2,
        queue_wait_seconds_count=3,
        forecast_duration_ratio_count=0,
    )
    refusals = {key[1:]: value for key, value in values(stack).items() if key[0] == "pipeline_calls_refused_total"}
    assert refusals == {("LEASE_LOST", "pipeline.workers.v1.WorkerService/ReportProgress"): 1}


async def test_costs_are_counted_by_credential(stack: Stack, new_dataset: NewDataset) -> None:
    """The final costs of jobs add up, those of people who signed in and those of programs with an API key apart."""
    key = (await create(stack, [JOBS])).key
    for caller, costs in (
        (metadata(ANN), {"token": 0.5, "api_key": 0.0}),
        (bearer(key), {"token": 0.5, "api_key": 0.5}),
        (bearer(key), {"token": 0.5, "api_key": 1.0}),
    ):
        job = (await stack.jobs.CreateJob(new_request(await new_dataset(ANN)), metadata=caller)).job
        [leased] = await lease(stack)
        assert leased.job_id == job.id
        await report(stack, leased)
        await complete(stack, leased)
        # It trained for a moment: what is left is the price of keeping the result.
        counted = values(stack)
        assert {name: round(counted["pipeline_final_cost_usd_total", name], 1) for name in costs} == costs


async def test_limits_are_counted_where_a_report_reaches_them(
    stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """A job that is stopped at its cost limit is one ended lease and one failed job."""
    job = await queue(stack, new_dataset, max_cost_usd=1000)
    [leased] = await lease(stack)
    await report(stack, leased)
    await admin.execute(
        "update lora_training_jobs set billed_from = now() - interval '1000 hours', hourly_rate = 100 where id = $1",
        job.id,
    )
    await shown(stack, leases_ended_total__cost_limit=1, jobs_finished_total__failed=1)


async def test_finished_jobs_are_compared_with_their_forecast(
    stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """Actual time over forecast time is observed for a real job that trained in one go, and for no other."""
    dataset = await new_dataset(ANN)
    for columns in ({}, {"simulated": True}, {"retry_count": 1}):
        job_id = await job_row(
            admin,
            dataset,
            ANN,
            "queued",
            base_model="mistral-7b",
            model_family="mistral",
            forecast_p10_seconds=50.0,
            forecast_seconds=100.0,
            forecast_p90_seconds=200.0,
            **{name: value for name, value in columns.items() if name != "simulated"},
        )
        [leased] = await lease(stack, simulated="simulated" in columns)
        await report(stack, leased)
        await admin.execute(
            "update lora_training_jobs set started_at = now() - interval '80 seconds' where id = $1", job_id
        )
        await complete(stack, leased)
    ratios = {
        key[-1]: value for key, value in values(stack).items() if key[0] == "pipeline_forecast_duration_ratio_bucket"
    }
    assert (ratios["0.67"], ratios["0.9"], ratios["+Inf"]) == (0, 1, 1)


async def test_imports_are_counted(stack: Stack) -> None:
    """Bytes, errors in rows and the time of imports are counted by outcome."""
    good = b'{"prompt": "a", "completion": "b"}\n'

    async def upload(content: bytes) -> Any:
        async def messages() -> Any:
            yield datasets_pb2.ImportDatasetRequest(name="Rows", chunk=content)

        return await stack.datasets.ImportDataset(messages(), metadata=metadata(ANN))

    await upload(good * 3)
    await upload(good + b"{}\n[]\n")
    await shown(
        stack,
        import_bytes_total=len(good) * 4 + 6,
        import_rejected_lines_total=2,
        import_duration_seconds_count__accepted=1,
        import_duration_seconds_count__rejected=1,
    )


async def test_estimates_are_counted_by_kind(stack: Stack, new_dataset: NewDataset) -> None:
    """Estimates of the reference, of a base model, comparisons and quotes are counted; refused ones are not."""
    dataset = await new_dataset(ANN)
    plain = {
        "dataset_id": dataset,
        "hyperparameters": {"epochs": 1, "batch_size": 4, "rank": 8, "learning_rate": 0.0001},
        "gpu_config": {"type": A100, "count": 1},
    }
    caller = metadata(ANN)
    await stack.estimator.EstimateCost(estimator_pb2.EstimateCostRequest(**plain), metadata=caller)
    await stack.estimator.EstimateCost(
        estimator_pb2.EstimateCostRequest(**plain, base_model="mistral-7b"), metadata=caller
    )
    await stack.estimator.CreateQuote(estimator_pb2.CreateQuoteRequest(**plain), metadata=caller)
    await refused(
        stack.estimator.EstimateCost(estimator_pb2.EstimateCostRequest(**plain, base_model="none"), metadata=caller)
    )
    await shown(
        stack,
        estimates_total__reference=1,
        estimates_total__forecast=1,
        estimates_total__quote=1,
        estimates_total__comparison=0,
    )
    assert values(stack)["pipeline_catalogue_price_age_seconds",] > 0


async def test_watches_show_how_far_they_are_behind(stack: Stack, new_dataset: NewDataset) -> None:
    """The lag of events is small while a watch is open, and grows while the database lets nothing be read."""
    await queue(stack, new_dataset)
    assert values(stack)["pipeline_events_lag_seconds",] == 0
    watch = stack.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(), metadata=metadata(ANN))
    await anext(aiter(watch))

    async def is_open() -> bool:
        return 0 < values(stack)["pipeline_events_lag_seconds",] < 5

    await until(is_open)
    watch.cancel()


async def test_events_behind_an_open_transaction_are_shown(
    stack: Stack, new_dataset: NewDataset, database: TestDatabase
) -> None:
    """The metric of events held back has the age of the oldest one while a transaction is open."""
    blocker = await asyncpg.connect(database.admin_url)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("select pg_current_xact_id()")
    await queue(stack, new_dataset)

    async def is_held_back() -> bool:
        # Missing before the first reading.
        return values(stack).get(("pipeline_events_held_back_seconds",), 0) > 0

    await until(is_held_back)
    await transaction.rollback()
    await blocker.close()
    await shown(stack, events_held_back_seconds=0)


async def test_the_outbox_is_counted_and_overdue_deliveries_have_an_age(
    database: TestDatabase, admin: asyncpg.Connection, tmp_path: Path, jobs_overrides: dict[str, Any]
) -> None:
    """An unsent delivery is overdue, except while its receiver pauses or its owner has a request under way."""
    async with open_stack("local", database.url, tmp_path, **jobs_overrides) as stack:
        webhook = await admin.fetchval(
            "insert into webhooks (user_id, url, secret) values ($1, 'https://a.example/', $2) returning id",
            ANN,
            b"0" * 32,
        )
        insert = (
            "insert into webhook_deliveries (webhook_id, user_id, type, body, status, next_attempt_at) "
            "values ($1, $2, 'job_completed', '{}', $3, now() + $4)"
        )
        await admin.execute(insert, webhook, ANN, "pending", timedelta(minutes=-30))
        await shown(stack, webhook_outbox_count=1)

        async def is_overdue() -> bool:
            return values(stack)["pipeline_webhook_overdue_seconds",] >= 1800

        await until(is_overdue)
        await admin.execute("update webhooks set paused_until = now() + interval '1 hour'")
        await shown(stack, webhook_overdue_seconds=0)
        await admin.execute("update webhooks set paused_until = null")
        await until(is_overdue)
        await admin.execute(insert, webhook, ANN, "sending", timedelta(minutes=1))
        await shown(stack, webhook_outbox_count=2, webhook_overdue_seconds=0)


async def test_gauges_that_cannot_be_read_are_missing(stack: Stack, admin: asyncpg.Connection) -> None:
    """Values are missing after a failed reading until the next one."""
    await shown(stack, webhook_outbox_count=0)
    await admin.execute("alter view live_offers rename to elsewhere")

    async def are_missing() -> bool:
        return not any(GAUGES[gauge][0] == name for gauge in GAUGES for name, *_ in values(stack))

    await until(are_missing)
    await admin.execute("alter view elsewhere rename to live_offers")
    await shown(stack, webhook_outbox_count=0)


def test_every_figure_has_a_metric() -> None:
    """The statement's gauges are those that have a metric."""
    assert set(re.findall(r"select '(\w+)'", SQL["gauges"])) == set(GAUGES)

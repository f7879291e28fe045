"""What finished jobs teach, through the real door, and what nobody may read from it."""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.estimator.v1 import estimator_pb2 as pb
from pipeline.jobs.v1 import jobs_pb2

from estimator_service.catalogue import base_models, gpus
from estimator_service.learning import lessons
from estimator_service.learning.admission import refusal, trust
from estimator_service.learning.corrections import (
    Correction,
    FinishedJob,
    correct_for,
    corrected,
    corrected_table,
    memory_prior,
    posterior,
    speed_prior,
)
from estimator_service.learning.finished_jobs import SQL
from estimator_service.physics.forecast import KINDS, POSITIONS, Point, features
from estimator_service.physics.forecast import forecast as forecast_of
from estimator_service.physics.parameters import fitted
from estimator_service.physics.workload import Workload
from tests.conftest import NewDataset, Stack, TestDatabase, metadata
from tests.estimator_service.requests import ANN, BALANCED, LLAMA, configuration
from tests.jobs_service import trainers

WORKERS = [str(uuid.UUID(int=number + 100)) for number in range(2)]
NEW, OLD, PACKED = (
    "torch 2.13, transformers 5.1, sdpa",
    "torch 2.6, transformers 4.50, sdpa",
    "torch 2.13, sdpa, packing",
)
OTHERS = [str(uuid.UUID(int=number + 1)) for number in range(6)]
Finish = Callable[..., Awaitable[str]]


POINT = Point(Workload(base_models.all_models()[LLAMA], batch=4, stack="plain"), gpus.all_gpus()["A100-80GB"], 2)
KIND = ("llama", "A100-80GB", "plain", POINT.workload.packed)
SHORT = Point(replace(POINT.workload, batch=1, length=256), POINT.gpu, 2)


def ran(times: float, *, training: float = 36_000, overhead: float = 600, about: Point = POINT) -> FinishedJob:
    """A run whose training took so many times what was said."""
    return FinishedJob(overhead + training * times, overhead + training, overhead, 1.0, features(about), 10.0, None)


def factors(*finished: FinishedJob, about: Point = POINT) -> tuple[float, float]:
    """Factors of speed and of the range's width after some runs."""
    result = corrected(about, {KIND: correct_for(finished)})
    return result.speed_correction, result.range_correction


def test_one_odd_run_moves_little_and_five_agreeing_runs_most_of_the_way() -> None:
    """One run four times slower moves the speed by less than a fifth; five runs 30 % slower move it most of the way."""
    assert factors(ran(4))[0] > 0.8
    five, narrower = factors(*[ran(1.3)] * 5)
    assert 0.75 < math.log(five) / math.log(1 / 1.3) <= 1
    assert narrower < 1
    # An odd one among five that agree does not undo them.
    assert factors(*[ran(1.3)] * 5, ran(6))[0] == pytest.approx(five, rel=0.05)


def test_a_job_of_more_tokens_is_no_slow_job() -> None:
    """A job of twice the tokens that took twice as long teaches what one does that went as forecast."""
    assert factors(*[ran(2)._replace(token_ratio=2.0)] * 5) == factors(*[ran(1)] * 5)
    assert factors(*[ran(1)._replace(token_ratio=1.5)] * 5)[0] > 1.3
    assert refusal(ran(1)._replace(token_ratio=0.01), "A100-80GB") == "other tokens than were forecast"


def test_runs_teach_most_about_their_like() -> None:
    """Long steps that were slow say less of short ones, which wait for the host and not for arithmetic."""
    runs = [ran(1.5)] * 5
    assert factors(*runs)[0] < factors(*runs, about=SHORT)[0] < 1


@given(
    times=st.lists(st.floats(0.7, 1.5), min_size=1, max_size=8),
    length=st.integers(256, 8192),
    count=st.integers(1, 8),
    zero=st.sampled_from([0, 3]),
)
def test_what_was_learned_obeys_physics(times: list[float], length: int, count: int, zero: int) -> None:
    """Whatever jobs on one GPU taught, more GPUs never beat perfect scaling and longer samples never take less time."""

    def step(length: int, count: int) -> float:
        at = Point(replace(POINT.workload, length=length, zero=zero), POINT.gpu, count)
        return forecast_of(corrected(at, corrections)).numbers.step

    one = Point(replace(POINT.workload, length=1024), POINT.gpu, 1)
    corrections = {KIND: correct_for([ran(each, about=one) for each in times])}
    assert step(length, count) >= step(length, 1) * (1 - 1e-9)
    assert step(2 * length, count) >= step(length, count)


def test_a_table_is_taught_as_its_points_are() -> None:
    """Corrections in a comparison are those of single estimates, bit by bit."""
    runs = [features(POINT), features(SHORT)]
    speed, memory = (
        posterior([-0.3, -0.2], rows, prior)
        for rows, prior in (
            (runs, speed_prior(fitted())),
            ([run[-POSITIONS - KINDS :] for run in runs], memory_prior(fitted())),
        )
    )
    corrections = {KIND: Correction(speed, memory)}
    points = [replace_count(point, count) for point in (POINT, SHORT) for count in (1, 2, 3, 8)]
    points.append(POINT._replace(gpu=gpus.all_gpus()["H100"]))
    assert corrected_table(points, corrections) == [corrected(point, corrections) for point in points]
    assert corrected_table(points, corrections)[-1] == points[-1]


def replace_count(point: Point, count: int) -> Point:
    """The same on another number of GPUs."""
    return point._replace(count=count)


@given(times=st.floats(0.1, 100), corrected=st.floats(0.5, 2))
def test_a_forecast_that_was_corrected_teaches_the_same(times: float, corrected: float) -> None:
    """What a job teaches does not depend on the correction that its forecast already had."""
    plain = ran(times)
    said = plain._replace(forecast_seconds=600 + 36_000 / corrected, correction=corrected)
    assert said.log_ratio == pytest.approx(plain.log_ratio, abs=1e-9)


@pytest.fixture
def finish(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> Finish:
    """Creates a job with a base model and finishes it after so many times what was said of it."""
    finished = itertools.count()

    async def made(
        user: str,
        times: float,
        peak_gib: float | None = None,
        worker: str | None = None,
        *,
        software: str | None = None,
        simulated: bool = False,
        **fields: object,
    ) -> str:
        dataset = await new_dataset(user, total_tokens=500_000_000, total_training_pairs=500_000)
        request = jobs_pb2.CreateJobRequest(
            **configuration(dataset, **{"base_model": LLAMA, **fields}), preset_id="PRESET_ID_BALANCED"
        )
        job = (await stack.jobs.CreateJob(request, metadata=metadata(user))).job
        await admin.execute("alter table lora_training_jobs disable trigger change_job")
        await admin.execute(
            "update lora_training_jobs set status = 'completed', completed_at = now(), final_cost = 0, "
            "peak_memory_gib = $3, worker_id = $4, started_at = now() - $2 * forecast_seconds * interval '1 second', "
            "software = $5, simulated = $6 "
            "where id = $1",
            uuid.UUID(job.id),
            times,
            peak_gib,
            uuid.UUID(worker or WORKERS[next(finished) % 2]),
            software,
            simulated,
        )
        return job.id

    return made


async def estimate(stack: Stack, dataset: str, user: str = ANN, **fields: object) -> pb.EstimateCostResponse:
    """What is said now."""
    request = pb.EstimateCostRequest(**configuration(dataset, **{"base_model": LLAMA, **fields}))
    return await stack.estimator.EstimateCost(request, metadata=metadata(user))


async def forecast(stack: Stack, dataset: str, user: str = ANN, **fields: object) -> pb.Forecast:
    """Of it, the forecast."""
    return (await estimate(stack, dataset, user, **fields)).forecast


async def test_a_persons_own_jobs_correct_what_they_are_told(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, finish: Finish
) -> None:
    """Five jobs a half slower raise the next forecast of that kind most of the way, of no other kind, and of nobody else."""
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    before = await forecast(stack, dataset)
    frozen = [await finish(ANN, 1.5) for _ in range(5)]
    async with asyncio.timeout(3):
        while (after := await forecast(stack, dataset)).learned_from_jobs < 5:
            await asyncio.sleep(0.1)
    assert 1.3 < after.hours.p50 / before.hours.p50 < 1.55
    assert (await forecast(stack, dataset, base_model="qwen2.5-7b")).learned_from_jobs == 0
    assert (await forecast(stack, dataset, training={"stack": "SOFTWARE_STACK_TUNED"})).learned_from_jobs == 0
    theirs = await new_dataset(OTHERS[0], total_tokens=500_000_000, total_training_pairs=500_000)
    assert (await forecast(stack, theirs, user=OTHERS[0])).hours == before.hours
    # What was said of a finished job is what was said then.
    kept = (await stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=frozen[0]), metadata=metadata(ANN))).job
    assert kept.forecast.hours == before.hours


async def test_peaks_that_trainers_measured_correct_the_memory(
    stack: Stack, new_dataset: NewDataset, finish: Finish
) -> None:
    """Five jobs that held a third more raise the next peak of that kind most of the way; a job that measured none does not.

    The parts add up to it, old jobs keep what was said of them, and a comparison says the same.
    """
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    before = (await estimate(stack, dataset)).memory
    assert (before.correction, before.learned_from_jobs) == (1, 0)
    frozen = await finish(ANN, 1.0)
    for _ in range(5):
        await finish(ANN, 1.0, peak_gib=before.total_gib * 4 / 3)
    async with asyncio.timeout(3):
        while (after := await estimate(stack, dataset)).forecast.learned_from_jobs < 6:
            await asyncio.sleep(0.1)
    memory = after.memory
    assert (memory.learned_from_jobs, memory.total_gib) == (5, pytest.approx(before.total_gib * 1.3, rel=0.05))
    assert memory.total_gib == pytest.approx(before.total_gib * memory.correction, abs=0.02)
    parts = ("weights", "adapters", "gradients", "optimizer", "activations", "logits", "overhead")
    assert sum(getattr(memory, f"{part}_gib") for part in parts) == pytest.approx(memory.total_gib, abs=0.05)
    grid = pb.CompareConfigurationsRequest(
        dataset_id=dataset, base_model=LLAMA, hyperparameters=BALANCED, gpu_types=["A100-80GB"], gpu_counts=[2],
        preset_ids=["PRESET_ID_CUSTOM"],
    )  # fmt: skip
    (point,) = (await stack.estimator.CompareConfigurations(grid, metadata=metadata(ANN))).points
    assert (point.memory_gib, point.verdict) == (memory.total_gib, memory.verdict)
    kept = (await stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=frozen), metadata=metadata(ANN))).job
    assert kept.memory == before


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets each forecast read the finished jobs anew."""
    monkeypatch.setattr("estimator_service.learning.finished_jobs.SHARED_FRESH_SECONDS", 0.0)
    monkeypatch.setattr("estimator_service.learning.finished_jobs.FRESH_SECONDS", 0.0)


UNCACHED = pytest.mark.usefixtures("uncached")


@UNCACHED
async def test_others_jobs_count_from_five_people_on(stack: Stack, new_dataset: NewDataset, finish: Finish) -> None:
    """Z11: four people's jobs correct nobody else's forecast; five people's do, and so they show in the accuracy."""
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    accuracy = pb.GetEstimateAccuracyRequest()
    for user in OTHERS[:4]:
        for _ in range(2):
            await finish(user, 1.2)
    assert (await forecast(stack, dataset)).learned_from_jobs == 0
    response = await stack.estimator.GetEstimateAccuracy(accuracy, metadata=metadata(ANN))
    assert (response.HasField("overall"), list(response.months)) == (False, [])
    assert "at least 5 users" in response.note
    await finish(OTHERS[4], 5.0)
    assert (await forecast(stack, dataset)).learned_from_jobs == 9
    response = await stack.estimator.GetEstimateAccuracy(accuracy, metadata=metadata(ANN))
    assert (response.overall.jobs, response.overall.inside_p10_p90) == (9, round(8 / 9, 4))
    assert response.overall.median_error == pytest.approx(0.2 / 1.2, abs=0.001)
    assert [(month.jobs, len(month.month)) for month in response.months] == [(9, 7)]


@UNCACHED
async def test_one_worker_teaches_nobody_and_an_operator_withdraws_lessons(
    stack: Stack,
    database: TestDatabase,
    new_dataset: NewDataset,
    finish: Finish,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """X06: jobs of six users on one worker change no other forecast; a second worker's do until an operator withdraws them."""
    monkeypatch.setenv("PIPELINE_DATABASE_URL", database.admin_url)
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    for user in OTHERS:
        await finish(user, 1.6, worker=WORKERS[0])
    assert (await forecast(stack, dataset)).learned_from_jobs == 0
    await finish(OTHERS[0], 1.6, worker=WORKERS[1])
    assert (await forecast(stack, dataset)).learned_from_jobs == 7
    assert await asyncio.to_thread(lessons.main, ["--withdraw", WORKERS[1], "--reason", "a broken clock"]) == 0
    assert "withdrawn" in capsys.readouterr().out
    assert (await forecast(stack, dataset)).learned_from_jobs == 0
    assert await asyncio.to_thread(lessons.main, ["--restore", WORKERS[1]]) == 0
    assert (await forecast(stack, dataset)).learned_from_jobs == 7


@pytest.fixture
def train(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> Finish:
    """Trains a job as a worker does, by its reports alone, in so many times what was said of it before anything was learned."""

    async def trained(user: str, times: float, worker: str, **measurements: object) -> str:
        dataset = await new_dataset(user, total_tokens=500_000_000, total_training_pairs=500_000)
        request = jobs_pb2.CreateJobRequest(**configuration(dataset, base_model=LLAMA), preset_id="PRESET_ID_BALANCED")
        job = (await stack.jobs.CreateJob(request, metadata=metadata(user))).job
        (leased,) = await trainers.lease(stack, worker)
        assert leased.job_id == job.id
        await trainers.report(stack, leased, worker)
        await admin.execute(
            "update lora_training_jobs set started_at = now() - $2 * forecast_seconds * interval '1 second' where id = $1",
            uuid.UUID(job.id),
            times,
        )
        await trainers.complete(stack, leased, worker, measurements=measurements)
        return job.id

    return trained


@UNCACHED
async def test_a_trainer_with_many_users_moves_nobody_elses_forecast_far(
    stack: Stack,
    database: TestDatabase,
    new_dataset: NewDataset,
    train: Finish,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """X06: whatever it reports for five accounts, of its own software or the others'; an operator sees from whom it came."""
    monkeypatch.setenv("PIPELINE_DATABASE_URL", database.admin_url)
    monkeypatch.setattr(lessons, "WIDTH", 1000)
    evil, honest = str(uuid.UUID(int=666)), {"torch": "2.13.0", "transformers": "5.1.0", "attention": "sdpa"}
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    for user, worker in zip(OTHERS[:5], itertools.cycle(WORKERS), strict=False):
        await train(user, 1.0, worker, stack=honest)
    before = await forecast(stack, dataset)
    assert (before.learned_from_jobs, before.learned_software) == (5, NEW)
    siblings = [str(uuid.UUID(int=number + 50)) for number in range(5)]
    for number, user in enumerate(siblings * 2):
        await train(user, 2.0, evil, stack=honest)
        await train(user, 2.0, evil, stack={"torch": f"\x1b[2J{number}", "kernels": "k" * 64})
        await train(user, 1.0, evil, stack=honest, trained_tokens=(0, 1, 2**53)[number % 3], peak_memory_gib=10_000)
        await train(user, 1e-6, evil, stack=honest)
    after = await forecast(stack, dataset)
    assert after.learned_software == NEW
    assert after.hours.p50 == pytest.approx(before.hours.p50, rel=0.06)
    assert after.hours.p10 == pytest.approx(before.hours.p10, rel=0.1)
    with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT"):
        await train(ANN, 1.0, evil, peak_memory_gib=math.nan)
    assert await asyncio.to_thread(lessons.main, []) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "│ llama" in line]
    assert len(lines) == 3
    (line,) = [line for line in lines if evil in line]
    assert "\x1b" not in line
    for words in ("and 10 others", " 5 ", "too short", "other tokens than were forecast", "%"):
        assert words in line, (words, line)


@UNCACHED
async def test_many_jobs_of_one_worker_push_out_nobody_elses(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, finish: Finish
) -> None:
    """Ten thousand later jobs of one worker leave what others taught as it was."""
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    for user in OTHERS[:5]:
        await finish(user, 1.3)
    before = await forecast(stack, dataset)
    assert before.learned_from_jobs == 5
    columns = (
        "user_id, dataset_id, preset_id, hyperparameters, gpu_config, status, total_epochs, total_steps, estimated_total_cost, "
        "hourly_rate, final_cost, base_model, training, estimate, model_family, stack, forecast_seconds, forecast_p10_seconds, "
        "forecast_p90_seconds, forecast_overhead_seconds, forecast_correction, forecast_slopes, forecast_model, forecast_tokens"
    )
    await admin.execute("alter table lora_training_jobs disable trigger check_job")
    await admin.execute(
        f"insert into lora_training_jobs ({columns}, worker_id, completed_at, started_at, software) "
        f"select {columns}, $1, now(), now(), n from (select * from lora_training_jobs limit 1) j, generate_series(1, 10000) n",
        uuid.UUID(int=666),
    )
    assert await forecast(stack, dataset) == before


async def test_software_is_listed_as_it_was_reported(
    database: TestDatabase, finish: Finish, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words of a trainer are text in the operator's list, whatever brackets they have."""
    monkeypatch.setenv("PIPELINE_DATABASE_URL", database.admin_url)
    await finish(ANN, 1.0, software="torch [/x], [red]")
    assert await asyncio.to_thread(lessons.main, []) == 0
    assert "torch [/x], [red]" in capsys.readouterr().out


@UNCACHED
async def test_what_one_software_taught_moves_no_other(stack: Stack, new_dataset: NewDataset, finish: Finish) -> None:
    """A forecast follows the software that most of the caller's latest jobs ran, and says which; packing is a part of it."""
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    before = await forecast(stack, dataset)

    async def ran_for(times: float, software: str) -> None:
        """A job took so many times what was said before any job taught."""
        now = await forecast(stack, dataset)
        await finish(ANN, times * before.seconds.p50 / now.seconds.p50, software=software)

    for _ in range(6):
        await ran_for(1.6, OLD)
    old = await forecast(stack, dataset)
    assert (old.learned_software, old.learned_from_jobs) == (OLD, 6)
    assert old.hours.p50 > 1.3 * before.hours.p50
    for _ in range(6):
        await ran_for(1.0, NEW)
    for _ in range(3):
        await ran_for(2.0, PACKED)
    new = await forecast(stack, dataset)
    assert (new.learned_software, new.learned_from_jobs) == (NEW, 6)
    assert new.hours.p50 == pytest.approx(before.hours.p50, rel=0.02)
    packed = await forecast(stack, dataset, training={"packing": True})
    assert (packed.learned_software, packed.learned_from_jobs) == (PACKED, 3)


@UNCACHED
async def test_nobody_alone_changes_whose_lessons_apply(stack: Stack, new_dataset: NewDataset, finish: Finish) -> None:
    """Ten later jobs of one user on another software change no other forecast; five users' do."""
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    for user in OTHERS[:5]:
        await finish(user, 1.2, software=OLD)
    for _ in range(10):
        await finish(OTHERS[0], 3.0, software=NEW)
    seen = await forecast(stack, dataset)
    assert (seen.learned_software, seen.learned_from_jobs) == (OLD, 5)
    for user in OTHERS[1:]:
        await finish(user, 3.0, software=NEW)
    assert (await forecast(stack, dataset)).learned_software == NEW


@UNCACHED
async def test_simulated_jobs_teach_nothing(stack: Stack, new_dataset: NewDataset, finish: Finish) -> None:
    """Neither their owner's forecasts nor others' learn from jobs that nobody trained."""
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    before = await forecast(stack, dataset)
    for user in [ANN, *OTHERS]:
        await finish(user, 1.6, peak_gib=30.0, simulated=True)
    assert await forecast(stack, dataset) == before
    await finish(ANN, 1.6)
    assert (await forecast(stack, dataset)).learned_from_jobs == 1


async def test_a_completed_job_keeps_the_fingerprint_of_its_software(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Versions without patch, attention, packing and kernels as the trainer reports them; nothing where it does not."""
    reported = {
        "torch": "2.13.0+cu130",
        "transformers": "5.1.2",
        "attention": "sdpa",
        "packing": True,
        "kernels": "liger",
    }
    for measurements, software in (
        ({"stack": reported}, "torch 2.13, transformers 5.1, sdpa, packing, liger"),
        ({"stack": {"torch": "2.13.0", "kernels": "unsloth"}}, "torch 2.13, unsloth"),
        ({"train_seconds": 3.0}, None),
    ):
        job = await trainers.queue(stack, new_dataset)
        (leased,) = await trainers.lease(stack)
        await trainers.report(stack, leased)
        await trainers.complete(stack, leased, measurements=measurements)
        row = await admin.fetchrow("select software from lora_training_jobs where id = $1", uuid.UUID(job.id))
        assert row is not None
        assert row["software"] == software


async def test_a_completed_job_keeps_the_tokens_that_its_trainer_counted(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Beside those that were forecast: all of the dataset in each epoch."""
    await trainers.queue(stack, new_dataset, base_model=LLAMA)
    (leased,) = await trainers.lease(stack)
    await trainers.report(stack, leased)
    await trainers.complete(stack, leased, measurements={"trained_tokens": 4_000_000})
    row = await admin.fetchrow("select forecast_tokens, trained_tokens, total_epochs from lora_training_jobs")
    assert row is not None
    assert (row["forecast_tokens"], row["trained_tokens"]) == (1_250_000 * row["total_epochs"], 4_000_000)


@UNCACHED
async def test_reports_that_cannot_be_true_teach_nothing(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, finish: Finish
) -> None:
    """X05, X06: instant jobs, denormal and huge peaks and broken rows neither fail an estimate nor correct it, for anybody."""
    dataset = await new_dataset(ANN, total_tokens=500_000_000, total_training_pairs=500_000)
    before = await estimate(stack, dataset)
    await admin.execute("alter table lora_training_jobs disable trigger check_job")
    for user, peak in zip([ANN, *OTHERS], [5e-324, 1e308, 1e-9, 9999.0, 0.0, -1.0, math.inf], strict=True):
        await finish(user, 1e-4, peak_gib=peak)  # faster than arithmetic
        broken = await finish(user, 1.0, peak_gib=peak)
        await admin.execute(
            "update lora_training_jobs set forecast_slopes = $2 where id = $1",
            uuid.UUID(broken), [math.nan, 1e308][: len(user) % 3] or None,
        )  # fmt: skip
    assert await estimate(stack, dataset) == before
    for user, peak in zip(OTHERS, [5e-324, 1e308, 1e-9, 9999.0, 1e-300, math.inf], strict=True):
        await finish(user, 1.0, peak_gib=peak)
    after = await estimate(stack, dataset)
    assert (after.forecast.learned_from_jobs, after.memory.learned_from_jobs) == (6, 0)
    assert after.memory.total_gib == before.memory.total_gib


@given(
    ratios=st.lists(st.floats(-2.3, 1.3), min_size=1, max_size=50),
    peaks=st.lists(st.floats(0.34, 2.9), min_size=50, max_size=50),
)
@settings(max_examples=30)
def test_corrections_stay_within_what_published_runs_span(ratios: list[float], peaks: list[float]) -> None:
    """However many jobs agree, speeds are corrected by a factor of 2 at most and peaks by 1.5."""
    jobs = [ran(math.exp(-ratio))._replace(peak_gib=10.0 * peak) for ratio, peak in zip(ratios, peaks, strict=False)]
    point = corrected(POINT, {KIND: correct_for(jobs)})
    assert 0.5 <= point.speed_correction <= 2
    assert 1 / 1.5 <= point.memory_correction <= 1.5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seconds": 30.0}, "too short"),
        ({"seconds": math.nan}, "a number is missing or not finite"),
        ({"forecast_seconds": 1e309}, "a number is missing or not finite"),
        ({"seconds": 4_000.0}, "faster than its arithmetic allows"),
        ({"seconds": 1e9}, "slower than a working run"),
        ({"correction": 0.0}, "the forecast is out of range"),
        ({"features": ()}, "a number is missing or not finite"),
        ({}, None),
    ],
)
def test_only_possible_jobs_teach(changes: dict[str, Any], reason: str | None) -> None:
    """A job teaches if its numbers are finite, its training long enough, and its speed one that the GPU can have."""
    assert refusal(ran(1.0)._replace(**changes), "A100-80GB") == reason


def test_workers_and_users_count_the_same() -> None:
    """Twenty jobs of one worker weigh as much as eight of another; its three users share equally; the largest weight is 1."""
    owners = [("ann", "w1")] * 20 + [("bob", "w2")] * 6 + [("eve", "w2"), ("joe", "w2")]
    weights = trust(owners)
    assert sum(weights[:20]) == pytest.approx(sum(weights[20:]))
    assert sum(weights[20:26]) == pytest.approx(weights[26])
    assert max(weights) == 1


# Honest workers with five users of one job each, the liars' jobs as (user, worker), and how far they move forecasts at most.
LIARS = {
    "a worker of two": (1, [(f"sibling{n % 5}", "evil") for n in range(25)], 1.35),
    "a worker of two, for users who are honest elsewhere": (1, [(f"user{n % 5}", "evil") for n in range(25)], 1.35),
    "a worker of three": (2, [(f"sibling{n % 5}", "evil") for n in range(25)], 1.06),
    "a worker of five": (4, [(f"sibling{n % 5}", "evil") for n in range(25)], 1.03),
    "a user of six": (2, [("evil", f"worker{n % 2}") for n in range(20)], 1.03),
    "three users of eight": (2, [(f"evil{n % 3}", f"worker{n % 2}") for n in range(50)], 1.1),
}


@pytest.mark.parametrize("name", LIARS)
def test_no_worker_and_no_few_users_move_forecasts_far(name: str) -> None:
    """Whatever speed they report, in however many jobs, corrections stay near what the others' five users taught."""
    workers, liars, bound = LIARS[name]
    honest = [(f"user{user}", f"worker{worker}") for user in range(5) for worker in range(workers)]
    for truth in (1.0, 1.4):
        before = correct_for([ran(truth)] * len(honest), trust(honest))
        for lie in (0.65, 0.75, 0.85, 1.2, 1.35, 1.5, 1.8, 2.5, 4.0, 8.0):
            jobs = [ran(truth)] * len(honest) + [ran(truth * lie)] * len(liars)
            after = correct_for(jobs, trust([*honest, *liars]))
            one, two = (corrected(POINT, {KIND: each}).speed_correction for each in (before, after))
            assert 1 / bound < one / two < bound, (truth, lie)


async def test_without_finished_jobs_it_says_so(stack: Stack) -> None:
    """There is no figure before there are jobs, and the answer says so."""
    response = await stack.estimator.GetEstimateAccuracy(pb.GetEstimateAccuracyRequest(), metadata=metadata(ANN))
    assert response.note.startswith("No figure yet")


async def test_the_services_login_reads_finished_forecasts_and_nothing_else(
    stack: Stack, database: object, finish: Finish, new_dataset: NewDataset
) -> None:
    """Z08: the login that makes the figures sees finished jobs with a forecast, by these columns only."""
    await finish(ANN, 1.0)
    waiting = jobs_pb2.CreateJobRequest(**configuration(await new_dataset(ANN)), preset_id="PRESET_ID_BALANCED")
    await stack.jobs.CreateJob(waiting, metadata=metadata(ANN))
    service = await asyncpg.connect(database.url)  # type: ignore[attr-defined]
    try:
        assert await service.fetchval("select count(model_family) from lora_training_jobs") == 1
        for column in ("*", "id", "dataset_id", "hyperparameters"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await service.fetch(f"select {column} from lora_training_jobs")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.fetch("select * from lora_quotes")
    finally:
        await service.close()


async def test_what_everybody_is_told_is_read_by_an_index_up_to_a_bound(
    stack: Stack, database: TestDatabase, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """Figures over all users come from the latest finished jobs, in the order of an index, and never from all there are."""
    await admin.execute("alter table lora_training_jobs disable trigger check_job")
    await admin.execute(
        "insert into lora_training_jobs (user_id, dataset_id, preset_id, hyperparameters, gpu_config, status, total_epochs,"
        " total_steps, estimated_total_cost, hourly_rate, completed_at, final_cost, model_family, worker_id, forecast_model)"
        " select user_id, id, 'fast', '{}', '{\"type\": \"A100-80GB\", \"count\": 1}', 'completed', 1, 1, 1, 1, now(), 0,"
        " 'llama', md5((n % 20)::text)::uuid, $2 from lora_datasets, generate_series(1, 5000) n where id = $1",
        uuid.UUID(await new_dataset(ANN)),
        fitted().version,
    )
    await admin.execute("analyze lora_training_jobs")
    service = await asyncpg.connect(database.url)
    try:
        for name, index, arguments in (
            ("accuracy", "accuracy", [5]),
            ("shared_finished_jobs", "lessons", [fitted().version, 10, 25]),
        ):
            plan = "\n".join(line[0] for line in await service.fetch("explain " + SQL[name], *arguments))
            assert "Limit" in plan, plan
            assert f"lora_training_jobs_{index}_idx" in plan, plan
            assert "Seq Scan on lora_training_jobs" not in plan, plan
    finally:
        await service.close()

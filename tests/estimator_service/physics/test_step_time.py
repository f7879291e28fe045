"""Properties of the time model."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from estimator_service.catalogue import base_models, gpus
from estimator_service.physics.forecast import Point, forecast, table
from estimator_service.physics.parameters import fitted
from estimator_service.physics.step_time import slopes, step_time
from estimator_service.physics.workload import Workload, demand

LLAMA = base_models.all_models()["llama-3.1-8b"]
GPUS = gpus.all_gpus()


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("gpu", ["A100-80GB", "L4", "H100"])
def test_more_gpus_never_beat_perfect_scaling(method: str, gpu: str) -> None:
    """N GPUs train at most N times as many tokens a second as one."""
    work = Workload(LLAMA, method=method, weight_bits=4 if method == "qlora" else 16)  # type: ignore[arg-type]
    one = forecast(Point(work, GPUS[gpu], 1)).numbers.tokens_per_s
    for count in range(2, 17):
        assert forecast(Point(work, GPUS[gpu], count)).numbers.tokens_per_s <= one * count * (1 + 1e-12)


def test_a_longer_sequence_never_takes_less_time() -> None:
    """The step grows with the sequence length."""
    steps = [
        forecast(Point(Workload(LLAMA, length=n), GPUS["A100-80GB"], 1)).numbers.step for n in (128, 512, 4096, 9000)
    ]
    assert steps == sorted(steps)


def test_a_larger_model_never_takes_less_time() -> None:
    """Within the generic geometry the step grows with the parameter count."""
    sizes = [base_models.inferred(size) for size in (1, 3, 7, 13, 34, 70)]
    steps = [forecast(Point(Workload(model), GPUS["H100"], 1)).numbers.step for model in sizes]
    assert steps == sorted(steps)


def test_a_table_agrees_with_single_forecasts_to_the_digit() -> None:
    """The same point gets the same bits alone and among others."""
    points = [
        Point(replace(Workload(LLAMA), batch=batch, checkpointing=bool(batch % 2)), gpu, count)
        for gpu in GPUS.values()
        for count in (1, 2, 8)
        for batch in (1, 2, 4)
    ]
    many = table(points)
    for index, point in enumerate(points):
        one = forecast(point).numbers
        assert (one.step_p10, one.step, one.step_p90, one.tokens_per_s) == (
            many.step_p10[index], many.step[index], many.step_p90[index], many.tokens_per_s[index]
        )  # fmt: skip
        assert one.peak.total == many.peak.total[index]
        assert one.verdict == many.verdict[index]


def test_outside_the_evidence_the_range_is_wider_and_the_reason_is_named() -> None:
    """A GPU type that no measured run used widens the range and says why."""
    seen = forecast(Point(Workload(LLAMA, stack="plain"), GPUS["A100-80GB"], 1))
    unseen = forecast(Point(Workload(LLAMA, stack="plain"), GPUS["RTX-4090"], 1))
    assert seen.confidence == "high"
    assert unseen.confidence == "medium"
    assert "RTX-4090" in unseen.reasons[0]
    assert unseen.numbers.step_p90 / unseen.numbers.step > seen.numbers.step_p90 / seen.numbers.step


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize(
    ("stack", "precision"), [("plain", "bf16"), ("legacy", "bf16"), ("megatron", "fp8"), ("megatron", "fp4")]
)
def test_slopes_are_those_of_the_formula(method: str, stack: str, precision: str) -> None:
    """Each slope is the change of the log speed with the log of its parameter, whatever the stack and the parallelism."""
    work = Workload(
        LLAMA, method=method, stack=stack, precision=precision, weight_bits=4 if method == "qlora" else 16,  # type: ignore[arg-type]
        tensor=2, pipeline=2, accumulation=4,
    )  # fmt: skip
    counted, machines, p = demand(work, zero=3, count=16), gpus.hardware(GPUS["A100-80GB"], 16, 4), fitted().time
    for name, slope in zip(p._fields, slopes(counted, machines, p), strict=True):
        up, down = (
            step_time(counted, machines, p._replace(**{name: getattr(p, name) * (1 + aside)})).step
            for aside in (1e-6, -1e-6)
        )
        assert slope == pytest.approx(math.log(down / up) / 2e-6, abs=1e-6), name


@pytest.mark.parametrize(("field", "degree"), [("tensor", 2), ("tensor", 8), ("pipeline", 4), ("context", 4)])
def test_a_model_spread_over_gpus_takes_its_share_of_time_and_memory(field: str, degree: int) -> None:
    """A replica of n GPUs is faster than one GPU, at most n times, and needs less memory on each."""
    one = forecast(Point(Workload(LLAMA, accumulation=8, stack="megatron"), GPUS["H100"], 1)).numbers
    work = replace(Workload(LLAMA, accumulation=8, stack="megatron"), **{field: degree})  # type: ignore[arg-type]
    many = forecast(Point(work, GPUS["H100"], degree)).numbers
    assert one.step / degree <= many.step < one.step
    assert many.peak.total < one.peak.total


def test_fewer_bits_are_faster_and_a_pipeline_has_a_bubble() -> None:
    """FP8 beats 16 bits and FP4 beats FP8; more micro-batches shrink the idle share of a pipeline."""
    works = [Workload(LLAMA, stack="megatron", precision=name) for name in ("bf16", "fp8", "fp4")]  # type: ignore[arg-type]
    steps = [forecast(Point(work, GPUS["B200"], 1)).numbers.step for work in works]
    assert steps == sorted(steps, reverse=True)
    few, many = (
        forecast(
            Point(Workload(LLAMA, stack="megatron", pipeline=4, accumulation=k), GPUS["H100"], 4)
        ).numbers.tokens_per_s
        for k in (2, 32)
    )
    assert many > 1.5 * few

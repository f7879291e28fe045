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
        assert one.memory.total == many.memory.total[index]
        assert one.verdict == many.verdict[index]


def test_outside_the_evidence_the_range_is_wider_and_the_reason_is_named() -> None:
    """A GPU type that no measured run used widens the range and says why."""
    seen = forecast(Point(Workload(LLAMA, stack="plain"), GPUS["A100-80GB"], 1))
    unseen = forecast(Point(Workload(LLAMA, stack="plain"), GPUS["MI300X"], 1))
    assert seen.confidence == "high"
    assert unseen.confidence == "medium"
    assert "MI300X" in unseen.reasons[0]
    assert unseen.numbers.step_p90 / unseen.numbers.step > seen.numbers.step_p90 / seen.numbers.step


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_slopes_are_those_of_the_formula(method: str) -> None:
    """What is learned by is how the speed really changes with each number of the model."""
    work = Workload(LLAMA, method=method, weight_bits=4 if method == "qlora" else 16)  # type: ignore[arg-type]
    asked, machines, numbers = demand(work, sharded=True), gpus.hardware(GPUS["A100-80GB"], 4), fitted().time
    for name, slope in zip(numbers._fields, slopes(asked, machines, numbers), strict=True):
        up, down = (
            step_time(asked, machines, numbers._replace(**{name: getattr(numbers, name) * (1 + aside)})).step
            for aside in (1e-6, -1e-6)
        )
        assert slope == pytest.approx(math.log(down / up) / 2e-6, abs=1e-6), name

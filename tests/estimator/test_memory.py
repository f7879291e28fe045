"""Properties of the memory model."""

from __future__ import annotations

import pytest

from estimator_service import hardware, models
from estimator_service.forecast import Point, forecast
from estimator_service.repairs import repairs
from estimator_service.workload import Workload

MODELS, GPUS = models.catalogue(), hardware.catalogue()


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("count", [1, 4])
def test_the_parts_add_up(method: str, count: int) -> None:
    """Weights, adapters, gradients, optimizer, activations, logits and overhead make the peak."""
    work = Workload(MODELS["llama-3.1-8b"], method=method, weight_bits=4 if method == "qlora" else 16)  # type: ignore[arg-type]
    used = forecast(Point(work, GPUS["A100-80GB"], count)).numbers.memory
    assert sum(used[1:]) == pytest.approx(used.total)
    assert min(used) >= 0


@pytest.mark.parametrize(
    ("model", "gpu", "method", "verdict"),
    [
        ("llama-3.1-8b", "A100-80GB", "lora", "fits"),
        ("llama-3.1-70b", "A100-80GB", "lora", "does_not_fit"),
        ("llama-3.1-70b", "A100-80GB", "qlora", "fits"),
        ("llama-3.1-8b", "T4", "lora", "does_not_fit"),
    ],
)
def test_the_verdict_is_what_everyone_knows(model: str, gpu: str, method: str, verdict: str) -> None:
    """Well-known cases on one GPU get the well-known answer."""
    work = Workload(MODELS[model], method=method, weight_bits=4 if method == "qlora" else 16)  # type: ignore[arg-type]
    assert forecast(Point(work, GPUS[gpu], 1)).verdict == verdict


def test_every_repair_makes_the_job_fit() -> None:
    """At most five repairs, each of which fits; none for a job that fits."""
    point = Point(Workload(MODELS["llama-3.1-70b"]), GPUS["A100-80GB"], 1)
    found = repairs(point, list(GPUS.values()))
    assert 1 <= len(found) <= 5
    assert {repair.forecast.verdict for repair in found} == {"fits"}
    assert repairs(Point(Workload(MODELS["llama-3.1-8b"]), GPUS["A100-80GB"], 1)) == []

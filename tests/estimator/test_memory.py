"""Properties of the memory model."""

from __future__ import annotations

import pytest

from estimator_service import hardware, models
from estimator_service.forecast import Point, forecast
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

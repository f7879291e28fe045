"""Properties of the memory model."""

from __future__ import annotations

import pytest

from estimator_service.catalogue import base_models, gpus
from estimator_service.physics.forecast import Point, forecast
from estimator_service.physics.workload import Method, Workload

MODELS, GPUS = base_models.all_models(), gpus.all_gpus()


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("count", [1, 4])
def test_the_parts_add_up(method: str, count: int) -> None:
    """Weights, adapters, gradients, optimizer, activations, logits and overhead make the peak."""
    work = Workload(MODELS["llama-3.1-8b"], method=method, weight_bits=4 if method == "qlora" else 16)  # type: ignore[arg-type]
    used = forecast(Point(work, GPUS["A100-80GB"], count)).numbers.peak
    assert sum(used[1:]) == pytest.approx(used.total)
    assert min(used) >= 0


# (model, GPU, GPUs, method, batch, tokens, checkpointing): what ran, and what did not, as everyone who tried knows.
RAN: list[tuple[str, str, int, Method, int, int, bool]] = [
    ("llama-3.1-8b", "A100-80GB", 1, "lora", 4, 2048, True),
    ("llama-2-7b", "RTX-4090", 1, "lora", 1, 512, True),  # 7B LoRA in 16 bits on 24 GB
    ("llama-2-7b", "T4", 1, "qlora", 1, 512, True),  # 7B QLoRA on the free 16 GB
    ("llama-30b", "RTX-4090", 1, "qlora", 1, 512, True),  # QLoRA paper: 33B on 24 GB
    ("llama-65b", "RTX-A6000", 1, "qlora", 1, 512, True),  # QLoRA paper: 65B on 48 GB
    ("llama-3.1-70b", "A100-80GB", 1, "qlora", 1, 1024, True),
    ("llama-3.1-70b", "A100-80GB", 8, "lora", 1, 2048, True),
    ("llama-2-7b", "A100-80GB", 8, "full", 1, 2048, True),
    ("mistral-7b", "A10G", 1, "qlora", 1, 1024, True),
    ("gpt-oss-20b", "H100", 1, "lora", 1, 1024, True),
]
DID_NOT: list[tuple[str, str, int, Method, int, int, bool]] = [
    ("llama-2-7b", "RTX-4090", 1, "full", 1, 512, True),  # 16 bits and Adam: 8 bytes a weight at the very least
    ("llama-2-7b", "A100-40GB", 1, "full", 1, 2048, True),
    ("llama-2-13b", "A100-80GB", 1, "full", 1, 2048, True),
    ("llama-2-13b", "RTX-3090", 1, "lora", 1, 512, True),  # 26 GB of weights
    ("llama-3.1-8b", "T4", 1, "lora", 1, 512, True),
    ("llama-3.1-70b", "A100-80GB", 1, "lora", 1, 512, True),
    ("llama-3.1-70b", "A100-40GB", 1, "qlora", 1, 512, True),
    ("mixtral-8x7b", "H100", 1, "lora", 1, 512, True),  # 93 GB of weights
    ("llama-30b", "T4", 1, "qlora", 1, 512, True),
    ("llama-3.1-8b", "RTX-4090", 1, "lora", 8, 4096, False),  # activations of every layer kept
    ("llama-3.1-8b", "A100-40GB", 1, "lora", 16, 4096, False),
    ("llama-3.1-8b", "A10G", 1, "qlora", 8, 8192, True),  # logits of 65,536 tokens over 128,256 words
    ("llama-3.1-70b", "A100-80GB", 4, "full", 1, 2048, True),
    ("llama-2-7b", "A100-40GB", 2, "full", 16, 4096, True),
    ("llama-3.1-405b", "H100", 8, "lora", 1, 2048, True),
]


@pytest.mark.parametrize(
    ("case", "fits"), [*[(case, True) for case in RAN], *[(case, False) for case in DID_NOT]], ids=str
)
def test_the_verdict_is_what_everyone_knows(case: tuple[str, str, int, Method, int, int, bool], fits: bool) -> None:
    """What is known to run is never refused, and what is known to end for want of memory is."""
    model, gpu, count, method, batch, length, checkpointing = case
    work = Workload(
        MODELS[model], method, batch=batch, length=length, checkpointing=checkpointing, stack="plain",
        weight_bits=4 if method == "qlora" else 16,
    )  # fmt: skip
    assert (forecast(Point(work, GPUS[gpu], count)).verdict != "does_not_fit") == fits

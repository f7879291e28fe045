"""Reading of what published runs say in free text."""

from __future__ import annotations

import pytest

from estimator_service.calibration.notes import parallelism_of


@pytest.mark.parametrize(
    ("text", "degrees"),
    [
        ("tp=2 pp 4", (2, 4, 1)),
        ("tensor_model_parallel_size=4; context_parallel_size=2", (4, 1, 2)),
        ("8-way tp", (8, 1, 1)),
        ("config 8x8x1xtp4pp1cp2", (4, 1, 2)),
        ("tp4, sequence parallel", (4, 1, 1)),
        ("http 2 step 3", (1, 1, 1)),
    ],
)
def test_degrees_are_read_in_every_spelling(text: str, degrees: tuple[int, int, int]) -> None:
    """Letters, words and names of settings give the same degrees; other words that end alike give none."""
    read = parallelism_of(text, 8, "megatron")
    assert (read.tensor, read.pipeline, read.context) == degrees


@pytest.mark.parametrize(
    ("text", "zero"),
    [
        ("fsdp2", 3), ("fsdp1 on 8", 3), ("fsdp 1 cp 8", 0), ("zero_stage=3", 3), ("ds_z3_config", 3),
        ("zero-3 offload", 3), ("deepspeed stage 2", 2), ("shard_grad_op", 2), ("ddp", 0), ("nothing", None),
    ],
)  # fmt: skip
def test_stages_are_read_in_every_spelling(text: str, zero: int | None) -> None:
    """A version of FSDP shards everything, a degree of one nothing."""
    assert parallelism_of(text, 8, "plain").zero == zero

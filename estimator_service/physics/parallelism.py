"""How a model is spread over several GPUs where a run does not say: the smallest sharding that fits."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from estimator_service.catalogue.gpus import Gpu
from estimator_service.physics import memory
from estimator_service.physics.memory import MemoryParameters, footprint
from estimator_service.physics.workload import Workload

MAX_TENSOR = 8  # beyond the GPUs of one node, all-reduces of every layer leave the fast links


def zero_stage(w: Workload, gpu: Gpu, count: int, p: MemoryParameters) -> int:
    """ZeRO stage of a run: the stated one, else 0 where a copy of the model fits on each GPU, else 3.

    Full fine-tuning of plain and tuned stacks shards the weights, as their guides have it; Megatron-style stacks shard the
    optimizer's states.
    """
    if w.zero is not None:
        return w.zero
    if count <= w.gpus_per_replica:
        return 0
    if w.stack == "megatron":
        return 1
    if w.method == "full":
        return 3
    return 0 if _copy_bytes(w, p) < memory.TIGHT_FROM * gpu.usable_bytes else 3


@lru_cache(maxsize=4096)
def _copy_bytes(w: Workload, p: MemoryParameters) -> float:
    """Peak of a GPU that holds a whole copy of the model, the allocator's reserve included."""
    f = footprint(w, zero=0, count=2 * w.gpus_per_replica)
    return memory.peak(memory.allocated(f, p), f, p, math.inf).total


def with_tensor_parallel(w: Workload, gpu: Gpu, count: int, p: MemoryParameters) -> Workload:
    """The workload with the fewest GPUs for each replica (tensor parallel, a power of two) on which it fits."""
    tensor = 1
    while True:
        spread = replace(w, tensor=tensor)
        f = footprint(spread, zero=zero_stage(spread, gpu, count, p), count=count)
        full = memory.peak(memory.allocated(f, p), f, p, gpu.usable_bytes).total
        if full < memory.TIGHT_FROM * gpu.usable_bytes or tensor * 2 > min(count, MAX_TENSOR) or count % (tensor * 2):
            return spread
        tensor *= 2

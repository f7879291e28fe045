"""Time of a training step: a roofline with overheads. Every formula works on floats and on numpy arrays alike.

Only + - * / and square roots are used, which IEEE 754 rounds the same way in both, so that a point computed alone and the
same point computed among 512 agree to the digit. Formulas, units and sources: docs/forecasts.md, "Time".
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from estimator_service.catalogue.gpus import Hardware
from estimator_service.physics.workload import Demand

EXPOSED_REDUCTION = (
    0.5  # of the gradients' exchange: it can only start in the last backward pass, and weights come back after it
)
HOST_BANDWIDTH = 25e9  # bytes/s of a host's memory for each of its GPUs: eight share about 200 GB/s


class TimeParameters(NamedTuple):
    """Fitted parameters of the time model; values, priors and provenance are in fitted.toml."""

    matmul: float  # share of the sustained FLOP/s that large matrix products reach
    attention: float  # the same for attention kernels, relative to matrix products
    traffic_plain: float  # element-wise bytes moved, times those of the leanest kernels
    traffic_tuned: float
    traffic_megatron: float
    legacy: float  # traffic of legacy stacks, times that of plain ones
    launch_plain_s: float  # host time of one module pass
    launch_tuned_s: float
    engine_launch: float  # times that, where plain stacks train all weights under a sharding engine
    dequant_bytes: float  # bytes moved for each weight unpacked from 4 bits
    dequant_s: float  # and seconds that do not depend on the GPU
    sharding: float  # bytes on the links between replicas, times those that have to be exchanged
    sharded_launch: float  # more host time where weights are gathered module by module
    exposed: float  # traffic within a replica that does not overlap with arithmetic, times its bytes
    straggler: float  # share of a step lost to waiting for other GPUs, when there are many
    megatron: float  # arithmetic of Megatron-style stacks, times that of the others
    fp8: float  # arithmetic in 8 bits, times that in 16
    fp4: float  # arithmetic in 4 bits, times that in 16


class StepTime(NamedTuple):
    """Seconds of one optimizer step and of its parts. The parts overlap: their sum is more than the step."""

    step: float
    arithmetic: float
    memory_traffic: float
    dequantisation: float
    launch: float
    communication: float
    optimizer: float
    pipeline: float


def step_time(d: Demand, h: Hardware, p: TimeParameters) -> StepTime:
    """Seconds of one optimizer step of each GPU; fields of `d` and `h` are floats, or arrays of one shape.

    Host, device and the links between replicas run side by side and the slowest sets the pace: a 4-norm, smooth where they
    are close. Traffic within a replica adds to the device's time, and so does gathering weights in plain stacks: their engines
    fetch a module's weights when it is called.
    """
    plain, k = 1.0 - d.tuned, d.accumulation
    speed = h.flops * p.matmul * (1.0 + d.megatron * (p.megatron - 1.0))
    low = 1.0 + d.fp8 * (p.fp8 - 1.0) + d.fp4 * (p.fp4 * h.fp4 - 1.0)
    kernels = p.attention * (h.attention + d.megatron * (1.0 - h.attention))
    arithmetic = k * (d.layer_flops / low + d.head_flops + d.attention_flops / kernels) / speed
    fused = p.traffic_tuned + d.megatron * (p.traffic_megatron - p.traffic_tuned)
    traffic = p.traffic_plain * plain * (1.0 + d.legacy * (p.legacy - 1.0)) + fused * d.tuned
    memory_traffic = k * ((d.layer_bytes + d.logit_bytes) * traffic + d.score_bytes) / h.bandwidth
    dequantisation = k * d.dequantised * (p.dequant_bytes / h.bandwidth + p.dequant_s)
    host = p.launch_plain_s * plain * (1.0 + d.full * (p.engine_launch - 1.0)) + p.launch_tuned_s * d.tuned
    launch = k * d.launches * host * (1.0 + d.sharded * p.sharded_launch)
    within = k * d.replica_bytes * p.exposed / h.link
    between, exposed = _between(d, h, p)
    optimizer = d.optimizer_bytes / h.bandwidth + d.host_bytes / HOST_BANDWIDTH
    device = arithmetic + memory_traffic + dequantisation + within
    pipeline = device * d.bubble
    busy = _slowest(device + pipeline, launch, between - exposed) + exposed + optimizer
    step = busy * (1.0 + p.straggler * (h.count - 1.0) / h.count)
    return StepTime(step, arithmetic, memory_traffic, dequantisation, launch, within + between, optimizer, pipeline)


def _between(d: Demand, h: Hardware, p: TimeParameters) -> tuple[float, float]:
    """Seconds of the exchange between replicas, and those of them in which nothing else runs."""
    replicas = h.count / d.replica
    link = p.sharding * (replicas - 1.0) / replicas / h.between
    gathered, reduced = d.accumulation * d.gathered_bytes * link, d.reduced_bytes * link
    return gathered + reduced, gathered * (1.0 - d.tuned) + reduced * EXPOSED_REDUCTION


def _slowest(device: float, launch: float, links: float) -> float:
    device, launch, links = device * device, launch * launch, links * links
    root = np.sqrt if isinstance(device, np.ndarray) else math.sqrt
    return root(root(device * device + launch * launch + links * links))


def slopes(d: Demand, h: Hardware, p: TimeParameters) -> tuple[Any, ...]:
    """How the log of the speed changes with the log of each parameter, in their order; floats or arrays as `d` and `h` are.

    Device, host and links move the step by their shares of the 4-norm, to the fourth power.
    """
    t, k, plain = step_time(d, h, p), d.accumulation, 1.0 - d.tuned
    waiting = p.straggler * (h.count - 1.0) / h.count
    busy = t.step / (1.0 + waiting)
    between, exposed = _between(d, h, p)
    within = t.communication - between
    pace = busy - t.optimizer - exposed
    device = t.arithmetic + t.memory_traffic + t.dequantisation + within + t.pipeline
    share = device / pace
    of_device = share * share * share / busy * (1.0 + d.bubble)
    share = t.launch / pace
    of_host = share * share * share / busy * t.launch
    share = (between - exposed) / pace
    of_links = share * share * share / busy * (between - exposed) + exposed / busy
    megatron, low = 1.0 + d.megatron * (p.megatron - 1.0), 1.0 + d.fp8 * (p.fp8 - 1.0) + d.fp4 * (p.fp4 * h.fp4 - 1.0)
    speed = h.flops * p.matmul * megatron
    kernels = p.attention * (h.attention + d.megatron * (1.0 - h.attention))
    products = of_device * k * d.layer_flops / low / speed / low
    moved = of_device * k * (d.layer_bytes + d.logit_bytes) / h.bandwidth
    eager, fused = moved * p.traffic_plain * plain, moved * d.tuned
    engine = 1.0 + d.full * (p.engine_launch - 1.0)
    hooks, joined = p.launch_plain_s * plain * engine, p.launch_tuned_s * d.tuned
    launched = of_host / (hooks + joined)
    unpacked = of_device * k * d.dequantised
    gathering = d.sharded * p.sharded_launch
    return (
        of_device * t.arithmetic,
        of_device * k * d.attention_flops / kernels / speed,
        -eager * (1.0 + d.legacy * (p.legacy - 1.0)),
        -fused * p.traffic_tuned * (1.0 - d.megatron),
        -fused * p.traffic_megatron * d.megatron,
        -eager * d.legacy * p.legacy,
        -launched * hooks,
        -launched * joined,
        -launched * hooks * d.full * p.engine_launch / engine,
        -unpacked * p.dequant_bytes / h.bandwidth,
        -unpacked * p.dequant_s,
        -of_links,
        -of_host * gathering / (1.0 + gathering),
        -of_device * within,
        -waiting / (1.0 + waiting),
        of_device * t.arithmetic * d.megatron * p.megatron / megatron,
        products * d.fp8 * p.fp8,
        products * d.fp4 * p.fp4 * h.fp4,
    )

"""Time of a training step: a roofline with overheads. Every formula works on floats and on numpy arrays alike.

Only + - * / and square roots are used, which IEEE 754 rounds the same way in both, so that a point computed alone and the
same point computed among 512 agree to the digit. Formulas, units and sources: README.md, "Time".
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from estimator_service.catalogue.gpus import Hardware
from estimator_service.physics.workload import Demand


class TimeParameters(NamedTuple):
    """Fitted numbers of the time model; values, priors and provenance are in fitted.toml."""

    matmul: float  # share of the sustained FLOP/s that large matrix products reach
    attention: float  # the same for attention kernels, relative to matrix products
    traffic_plain: float  # element-wise bytes moved, times those of the leanest kernels
    traffic_tuned: float
    launch_plain_s: float  # host time of one module pass
    launch_tuned_s: float
    engine_launch: float  # times that, where plain stacks train all weights under a sharding engine
    dequant_bytes: float  # bytes moved for each weight unpacked from 4 bits
    dequant_s: float  # and seconds that do not depend on the GPU
    sharding: float  # bytes on the links, times those that have to be exchanged
    sharded_launch: float  # more host time where weights are gathered module by module
    straggler: float  # share of a step lost to waiting for other GPUs, when there are many
    megatron: float  # arithmetic of Megatron-style stacks, times that of the others
    fp8: float  # arithmetic in 8 bits, times that in 16


class StepTime(NamedTuple):
    """Seconds of one optimizer step and of its parts. The parts overlap: their sum is more than the step."""

    step: float
    arithmetic: float
    memory_traffic: float
    dequantisation: float
    launch: float
    communication: float
    optimizer: float


def step_time(d: Demand, h: Hardware, p: TimeParameters) -> StepTime:
    """Seconds of one optimizer step of each GPU; fields of `d` and `h` are floats, or arrays of one shape.

    Host, device and links run side by side and the slowest sets the pace: a 4-norm, smooth where they are close.
    """
    plain, k = 1.0 - d.tuned, d.accumulation
    speed = h.flops * p.matmul * (1.0 + d.megatron * (p.megatron - 1.0)) * (1.0 + d.fp8 * (p.fp8 - 1.0))
    arithmetic = k * (d.matmul_flops + d.attention_flops / (p.attention * h.attention)) / speed
    traffic = p.traffic_plain * plain + p.traffic_tuned * d.tuned
    memory_traffic = k * ((d.layer_bytes + d.logit_bytes) * traffic + d.score_bytes) / h.bandwidth
    dequantisation = k * d.dequantised * (p.dequant_bytes / h.bandwidth + p.dequant_s)
    host = p.launch_plain_s * plain * (1.0 + d.full * (p.engine_launch - 1.0)) + p.launch_tuned_s * d.tuned
    launch = k * d.launches * host * (1.0 + d.sharded * p.sharded_launch)
    others = (h.count - 1.0) / h.count
    communication = (k * d.gathered_bytes + d.reduced_bytes) * p.sharding * others / h.link
    optimizer = d.optimizer_bytes / h.bandwidth
    device = arithmetic + memory_traffic + dequantisation
    step = (_slowest(device, launch, communication) + optimizer) * (1.0 + p.straggler * others)
    return StepTime(step, arithmetic, memory_traffic, dequantisation, launch, communication, optimizer)


def _slowest(device: float, launch: float, links: float) -> float:
    device, launch, links = device * device, launch * launch, links * links
    root = np.sqrt if isinstance(device, np.ndarray) else math.sqrt
    return root(root(device * device + launch * launch + links * links))


def slopes(d: Demand, h: Hardware, p: TimeParameters) -> tuple[Any, ...]:
    """How the log of the speed changes with the log of each parameter, in their order; floats or arrays as `d` and `h` are.

    A part of the device's, the host's or the links' time moves the step by its share of that time, to the fourth power as
    the 4-norm has it.
    """
    t, k, plain, others = step_time(d, h, p), d.accumulation, 1.0 - d.tuned, (h.count - 1.0) / h.count
    waiting = p.straggler * others
    busy = t.step / (1.0 + waiting)
    pace = busy - t.optimizer
    device = t.arithmetic + t.memory_traffic + t.dequantisation
    share = device / pace
    of_device = share * share * share / busy
    share = t.launch / pace
    of_host = share * share * share / busy * t.launch
    share = t.communication / pace
    of_links = share * share * share / busy * t.communication
    arithmetic = of_device * t.arithmetic
    megatron, fp8 = 1.0 + d.megatron * (p.megatron - 1.0), 1.0 + d.fp8 * (p.fp8 - 1.0)
    attention = k * d.attention_flops / (p.attention * h.attention) / (h.flops * p.matmul * megatron * fp8)
    moved = of_device * k * (d.layer_bytes + d.logit_bytes) / h.bandwidth
    engine = 1.0 + d.full * (p.engine_launch - 1.0)
    eager, fused = p.launch_plain_s * plain * engine, p.launch_tuned_s * d.tuned
    launched = of_host / (eager + fused)
    unpacked = of_device * k * d.dequantised
    gathering = d.sharded * p.sharded_launch
    return (
        arithmetic,
        of_device * attention,
        -moved * p.traffic_plain * plain,
        -moved * p.traffic_tuned * d.tuned,
        -launched * eager,
        -launched * fused,
        -launched * eager * d.full * p.engine_launch / engine,
        -unpacked * p.dequant_bytes / h.bandwidth,
        -unpacked * p.dequant_s,
        -of_links,
        -of_host * gathering / (1.0 + gathering),
        -waiting / (1.0 + waiting),
        arithmetic * d.megatron * p.megatron / megatron,
        arithmetic * d.fp8 * p.fp8 / fp8,
    )

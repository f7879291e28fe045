"""Measured runs behind a forecast: the class of a run, how much its range is widened, and the reasons to doubt it."""

from __future__ import annotations

from typing import Literal, get_args

from estimator_service.catalogue.gpus import Gpu
from estimator_service.physics.parameters import Evidence, Spread
from estimator_service.physics.workload import Workload

RunClass = Literal["one_gpu", "several_gpus", "fp8", "amd", "consumer"]
RUN_CLASSES = get_args(RunClass)
# Limits of the measured runs, whatever the GPU.
MEASURED_LENGTHS = (256, 65_536)
MEASURED_PARAMS_B = (0.4, 75.0)
MEASURED_GPUS = 512
# Standard deviations between the median and P90 of a normal distribution.
Z90 = 1.2816


def run_class(workload: Workload, gpu: Gpu, count: int) -> RunClass:
    """The class whose held-out errors calibrate the range of a run."""
    if gpu.is_amd:
        return "amd"
    if workload.precision in ("fp8", "fp4"):
        return "fp8"
    if gpu.is_consumer:
        return "consumer"
    return "one_gpu" if count == 1 else "several_gpus"


def doubts(w: Workload, gpu: Gpu, count: int, evidence: Evidence) -> tuple[str, ...]:
    """Properties of a run that lie outside the measured runs, in words; empty when none does."""
    reasons = []
    if gpu.id not in evidence.gpus:
        reasons.append(f"no measured run on this GPU type ({gpu.id})")
    if w.model.family not in evidence.families:
        reasons.append(f"no measured run of this model family ({w.model.family})")
    if w.stack not in evidence.stacks:
        reasons.append(f"no measured run of this software stack ({w.stack})")
    if w.precision not in evidence.precisions:
        reasons.append(f"no measured run in this precision ({w.precision})")
    if not MEASURED_LENGTHS[0] <= w.length <= MEASURED_LENGTHS[1]:
        reasons.append(f"measured runs had {MEASURED_LENGTHS[0]:,} to {MEASURED_LENGTHS[1]:,} tokens a sequence")
    if not MEASURED_PARAMS_B[0] <= w.model.params_b <= MEASURED_PARAMS_B[1]:
        reasons.append(f"measured models had {MEASURED_PARAMS_B[0]} to {MEASURED_PARAMS_B[1]} billion parameters")
    if count > MEASURED_GPUS:
        reasons.append(f"measured runs had at most {MEASURED_GPUS} GPUs")
    return tuple(reasons)


def widening(workload: Workload, gpu: Gpu, evidence: Evidence, spread: Spread) -> float:
    """How much wider the range of a run is for what no measured run has: its GPU type, model family and stack."""
    factor = 1.0
    if gpu.id not in evidence.gpus:
        factor *= spread.unseen_gpu
    if workload.model.family not in evidence.families:
        factor *= spread.unseen_family
    if workload.stack not in evidence.stacks:
        factor *= spread.unseen_stack
    return factor

"""Measured runs as the fit sees them: arrays of workloads and of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimator_service.calibration import published
from estimator_service.calibration.published import Run
from estimator_service.catalogue.gpus import Hardware, hardware
from estimator_service.physics import memory
from estimator_service.physics.memory import Footprint, MemoryParameters, footprint
from estimator_service.physics.parallelism import zero_stage
from estimator_service.physics.parameters import fitted
from estimator_service.physics.step_time import TimeParameters, step_time
from estimator_service.physics.workload import Demand, demand

Array = NDArray[np.float64]


class Observations(NamedTuple):
    """Measured runs as arrays: log tokens per second, and the index of the unknown length a run shares (-1: none)."""

    runs: list[Run]
    demand: Demand
    hardware: Hardware
    log_tokens_per_s: Array
    lengths: NDArray[np.int64]
    length_spreads: Array

    @property
    def sources(self) -> NDArray[np.str_]:
        """Held out together: rows of one publisher."""
        return np.array([run.source for run in self.runs])


class Peaks(NamedTuple):
    """Runs with a measured peak, logs of GiB: what the allocator handed out, and all that was reserved (NaN: not stated)."""

    runs: list[Run]
    footprint: Footprint
    capacity: Array
    log_allocated: Array
    log_peak: Array


# Data sets whose mean length a source does not state: (group, word in the notes) → assumed tokens, log spread of it.
UNKNOWN_LENGTHS: tuple[tuple[str, str, float, float], ...] = (
    ("IISWC24", "commonsense", 79.0, 0.2),
    ("IISWC24", "math", 174.0, 0.2),
    ("H2O", "", 250.0, 2.0),
    ("litgpt-A100-40", "", 110.0, 0.3),
)
LITGPT_GLOBAL_BATCH = 128


def observe(runs: Sequence[Run]) -> Observations:
    """Runs with a measured speed; those of unknown length enter with a length that is fitted along."""
    observed: list[Run] = []
    speeds, lengths, names, spreads = [], [], [], []
    for run in runs:
        if run.tokens_per_s:
            observed.append(run)
            speeds.append(run.tokens_per_s)
            lengths.append(-1)
            continue
        for group, word, tokens, spread in UNKNOWN_LENGTHS:
            samples = _samples_per_s(run)
            if run.group == group and word in run.row["notes"] and samples:
                accumulation = max(1, LITGPT_GLOBAL_BATCH // run.workload.batch) if group.startswith("litgpt") else 1
                work = replace(run.workload, tokens=tokens, packed=False, accumulation=accumulation)
                observed.append(replace(run, workload=work))
                speeds.append(samples * tokens)
                name = f"{group} {word}".strip()
                if name not in names:
                    names.append(name)
                    spreads.append(spread)
                lengths.append(names.index(name))
                break
    columns = [demand(run.workload, zero=zero_of(run), count=run.count) for run in observed]
    machines = [hardware(run.gpu, run.count, run.workload.gpus_per_replica) for run in observed]
    return Observations(
        observed, Demand(*np.array(columns).T), Hardware(*np.array(machines).T), np.log(speeds),
        np.array(lengths), np.array(spreads),
    )  # fmt: skip


def zero_of(run: Run) -> int:
    """ZeRO stage of a run."""
    return zero_stage(run.workload, run.gpu, run.count, fitted().memory)


def _samples_per_s(run: Run) -> float | None:
    if samples := published.number(run.row.get("samples_per_s")):
        return samples
    if run.group == "H2O" and (seconds := published.number(run.row.get("train_time_s"))):
        return 10_000 / seconds  # rows of the data set are not stated: the fitted length absorbs them
    return None


def select(data: Observations, mask: NDArray[np.bool_]) -> Observations:
    """The observations where `mask` is true."""
    runs = [run for run, use in zip(data.runs, mask, strict=True) if use]
    return data._replace(
        runs=runs, demand=Demand(*np.array(data.demand)[:, mask]),
        hardware=Hardware(*np.array(data.hardware)[:, mask]),
        log_tokens_per_s=data.log_tokens_per_s[mask], lengths=data.lengths[mask],
    )  # fmt: skip


def predicted(data: Observations, parameters: TimeParameters) -> Array:
    """Log tokens per second of every observation."""
    step = step_time(data.demand, data.hardware, parameters).step
    log_speed: Array = np.log(data.demand.tokens * data.demand.accumulation * data.hardware.count / step)
    return log_speed


def observe_memory(runs: Sequence[Run]) -> Peaks:
    """Runs with a measured peak."""
    observed = [run for run in runs if run.allocated_gib or run.peak_gib]
    footprints = [footprint(run.workload, zero=zero_of(run), count=run.count) for run in observed]
    return Peaks(
        observed, Footprint(*np.array(footprints).T), np.array([run.gpu.usable_bytes for run in observed]),
        np.log([run.allocated_gib or np.nan for run in observed]), np.log([run.peak_gib or np.nan for run in observed]),
    )  # fmt: skip


def predicted_memory(data: Peaks, p: MemoryParameters) -> tuple[Array, Array]:
    """Log GiB (allocated, peak) of every run."""
    used = memory.allocated(data.footprint, p)
    peak = memory.peak(used, data.footprint, p, data.capacity)
    return np.log(used.total / memory.GIB), np.log(peak.total / memory.GIB)

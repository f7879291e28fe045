"""Forecast of one run or of many: time with its range, memory with its verdict, and the reasons to doubt them.

The same formulas serve one point (floats) and a table of points (arrays); `table` and `forecast` agree to the digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from estimator_service.catalogue.gpus import Gpu, Hardware, hardware
from estimator_service.physics import memory
from estimator_service.physics.evidence import Z90, doubts, run_class, widening
from estimator_service.physics.memory import TIGHT_FROM, Footprint, Memory, footprint
from estimator_service.physics.parallelism import zero_stage
from estimator_service.physics.parameters import Parameters, fitted
from estimator_service.physics.step_time import StepTime, slopes, step_time
from estimator_service.physics.workload import Demand, Method, Workload, demand

Confidence = Literal["high", "medium", "low"]
VERDICTS: tuple[memory.Verdict, ...] = ("fits", "tight", "does_not_fit")
METHODS = get_args(Method)
# Columns at the end of a point's features: its position (size, tokens of a sample, tokens of a micro-step) and its kinds.
POSITIONS, KINDS = 3, 2
# A run that is faster than its forecast by more than this factor is not possible, even if its steps wait for host or links.
MAX_SPEEDUP = 4.0


class Point(NamedTuple):
    """A configuration on `count` GPUs, with the correction factors from finished jobs: 1 without such jobs."""

    workload: Workload
    gpu: Gpu
    count: int  # type: ignore[assignment] # the field, not the method of a tuple
    speed_correction: float = 1.0
    range_correction: float = 1.0
    memory_correction: float = 1.0
    speed_jobs: int = 0  # finished jobs behind the speed correction
    memory_jobs: int = 0  # and behind the memory correction
    software: str = ""  # of those jobs


class Numbers(NamedTuple):
    """Seconds of an optimizer step (three quantiles), tokens per second of all GPUs, bytes of one GPU; floats or arrays."""

    step_p10: float
    step: float
    step_p90: float
    tokens_per_s: float
    parts: StepTime
    peak: Memory
    uncorrected_peak: float  # bytes, before finished jobs corrected it
    allocated: float  # bytes of the peak that the framework's allocator hands out
    verdict: Any  # index into VERDICTS


@dataclass(frozen=True, slots=True)
class Forecast:
    """Numbers of one point, and the reasons to doubt them."""

    numbers: Numbers
    confidence: Confidence
    reasons: tuple[str, ...]
    point: Point
    demand: Demand
    hardware: Hardware
    zero: int  # ZeRO stage that was taken

    @property
    def verdict(self) -> memory.Verdict:
        """Whether the run fits into the memory of its GPUs."""
        return VERDICTS[int(self.numbers.verdict)]

    @property
    def drivers(self) -> list[tuple[str, float]]:
        """Parts of a step's time with their shares, largest first."""
        parts = self.numbers.parts._asdict()
        parts.pop("step")
        total = sum(parts.values())
        return sorted(((name, seconds / total) for name, seconds in parts.items() if seconds), key=lambda x: -x[1])

    @property
    def features(self) -> tuple[float, ...]:
        """See `features`; and the log of the peak's GiB before corrections."""
        speed = slopes(self.demand, self.hardware, fitted().time)
        return *speed, *_position(self.point), math.log(self.numbers.uncorrected_peak / memory.GIB)


def forecast(point: Point, parameters: Parameters | None = None) -> Forecast:
    """Predicts one point."""
    p = parameters or fitted()
    d, h, f, zero = _counts(point, p)
    numbers = _numbers(d, h, f, *_range_factors(point, p), point.speed_correction, point.memory_correction, p)
    reasons = doubts(point.workload, point.gpu, point.count, p.evidence)
    confidence: Confidence = "high" if not reasons else "medium" if len(reasons) == 1 else "low"
    return Forecast(numbers, confidence, reasons, point, d, h, zero)


def features(point: Point, parameters: Parameters | None = None) -> tuple[float, ...]:
    """Slopes of a point's speed, its position and its kinds: what finished jobs are learned from."""
    p = parameters or fitted()
    d, h, _, _ = _counts(point, p)
    return *slopes(d, h, p.time), *_position(point)


def features_table(points: Sequence[Point], parameters: Parameters | None = None) -> NDArray[np.float64]:
    """`features` of many points: a row for each."""
    p = parameters or fitted()
    d, h, _ = _columns(points, p)
    return np.column_stack([*slopes(d, h, p.time), np.array([_position(point) for point in points])])


def max_speedup(features: Sequence[float], gpu: Gpu | None) -> float:
    """Upper bound of real ÷ predicted speed: all but arithmetic vanishes, and that runs at the GPU's dense peak.

    `features` are those of the forecast; an unknown GPU type (None) has no room above the prediction.
    """
    if gpu is None:
        return 1.0
    arithmetic = features[0]  # slope of the speed with the share of FLOP/s that products reach: arithmetic's share
    peak = max(gpu.fp16_tflops, gpu.bf16_tflops or 0.0, gpu.fp8_tflops or 0.0) * 1e12
    return max(1.0, min(MAX_SPEEDUP, peak / gpu.sustained_flops / max(arithmetic, 1e-3)))


def _position(point: Point) -> tuple[float, ...]:
    """Logs of a point's size and of the tokens of a sample and a micro-step; its method, and whether it has one GPU."""
    w = point.workload
    tokens = w.tokens or w.length
    kinds = float(METHODS.index(w.method)), float(point.count == 1)
    return math.log(w.model.params_b), math.log(tokens), math.log(w.batch * tokens), *kinds


def table(points: Sequence[Point], parameters: Parameters | None = None) -> Numbers:
    """Predicts many points at once; every field is an array in their order.

    Points of a table share workloads and GPUs: each is counted once, then gathered by index.
    """
    p = parameters or fitted()
    ranges = _gather(
        [(id(point.workload), id(point.gpu), point.count, point.range_correction) for point in points],
        lambda row: _range_factors(points[row], p),
    )
    d, h, zeros = _columns(points, p)
    footprints = _footprints(points, zeros)
    corrections = np.array([point.speed_correction for point in points])
    peaks = np.array([point.memory_correction for point in points])
    return _numbers(d, h, footprints, ranges[0], ranges[1], corrections, peaks, p)


def _columns(points: Sequence[Point], p: Parameters) -> tuple[Demand, Hardware, list[int]]:
    zeros = _gather(
        [(id(point.workload), id(point.gpu), point.count > point.workload.gpus_per_replica) for point in points],
        lambda row: (zero_stage(points[row].workload, points[row].gpu, points[row].count, p.memory),),
    )[0].tolist()
    demands = _gather(
        [
            (id(point.workload), zero, point.count if zero in (1, 2) or not point.workload.packed else 1)
            for point, zero in zip(points, zeros, strict=True)
        ],
        lambda row: demand(points[row].workload, zero=int(zeros[row]), count=points[row].count),
    )
    machines = _gather(
        [(id(point.gpu), point.count, point.workload.gpus_per_replica) for point in points],
        lambda row: hardware(points[row].gpu, points[row].count, points[row].workload.gpus_per_replica),
    )
    return Demand(*demands), Hardware(*machines), [int(zero) for zero in zeros]


def _footprints(points: Sequence[Point], zeros: Sequence[int]) -> Footprint:
    footprints = _gather(
        [(id(point.workload), zero, _footprint_count(point, zero)) for point, zero in zip(points, zeros, strict=True)],
        lambda row: footprint(points[row].workload, zero=zeros[row], count=points[row].count),
    )
    return Footprint(*footprints)


def _footprint_count(point: Point, zero: int) -> int:
    """The GPU count as far as a footprint depends on it: one, several, or the count when states are sharded."""
    return point.count if zero else min(point.count, 2)


def _gather(keys: Sequence[Hashable], compute: Callable[[int], Sequence[float]]) -> NDArray[np.float64]:
    """Returns the columns of `compute` at each position, called once for each distinct key."""
    rows: dict[Hashable, int] = {}
    first: list[int] = []
    index = []
    for position, key in enumerate(keys):
        row = rows.get(key)
        if row is None:
            row = rows[key] = len(rows)
            first.append(position)
        index.append(row)
    counted = np.array([compute(position) for position in first], dtype=float)
    return counted[index].T


def _range_factors(point: Point, p: Parameters) -> tuple[float, float]:
    """(P10, P90) of the time of a step, as factors of P50."""
    width = p.widths[run_class(point.workload, point.gpu, point.count)].width
    width *= point.range_correction * widening(point.workload, point.gpu, p.evidence, p.spread)
    return _factors(math.hypot(width, Z90 * point.workload.token_spread))


@lru_cache(maxsize=256)
def _factors(width: float) -> tuple[float, float]:
    return math.exp(-width), math.exp(width)


def _counts(point: Point, p: Parameters) -> tuple[Demand, Hardware, Footprint, int]:
    workload, gpu, count = point.workload, point.gpu, point.count
    zero = zero_stage(workload, gpu, count, p.memory)
    return (
        demand(workload, zero=zero, count=count),
        hardware(gpu, count, workload.gpus_per_replica),
        footprint(workload, zero=zero, count=count),
        zero,
    )


def _numbers(
    d: Demand,
    h: Hardware,
    f: Footprint,
    p10_factor: Any,
    p90_factor: Any,
    speed_correction: Any,
    memory_correction: Any,
    p: Parameters,
) -> Numbers:
    parts = step_time(d, h, p.time)
    step = parts.step / speed_correction
    used, capacity = memory.allocated(f, p.memory), h.usable_bytes / memory_correction
    peak = memory.peak(used, f, p.memory, capacity)
    return Numbers(
        step_p10=step * p10_factor, step=step, step_p90=step * p90_factor,
        tokens_per_s=d.tokens * d.accumulation * h.count / step, parts=parts,
        peak=Memory(*(part * memory_correction for part in peak)), uncorrected_peak=peak.total, allocated=used.total,
        verdict=_verdict(used, f, capacity, p),
    )  # fmt: skip


def _verdict(used: Memory, f: Footprint, capacity: Any, p: Parameters) -> Any:
    """Index into VERDICTS. Refuses only what would not fit even if the forecast were too high by its margin."""
    smallest = used
    if isinstance(f.may_be_pure, np.ndarray) or f.may_be_pure:
        # A full fine-tuning that states no precision of its states is refused only if it does not fit in 16 bits either.
        pure = f.pure + f.may_be_pure * (1.0 - f.pure)
        smallest = memory.allocated(f._replace(pure=pure, wide=f.wide * (1.0 - f.may_be_pure)), p.memory)
    needed = smallest.total * (1.0 - p.spread.memory_margin) + p.memory.context_gib * memory.GIB
    full = memory.peak(used, f, p.memory, math.inf).total
    return (full > TIGHT_FROM * capacity) * 1 + (needed > capacity) * 1


def fits(point: Point, parameters: Parameters | None = None) -> bool:
    """Whether a point fits, with room to spare: a part of `forecast` that takes a tenth of its time."""
    p = parameters or fitted()
    zero = zero_stage(point.workload, point.gpu, point.count, p.memory)
    f = footprint(point.workload, zero=zero, count=point.count)
    return not _verdict(memory.allocated(f, p.memory), f, point.gpu.usable_bytes / point.memory_correction, p)

"""What a run will take: time with its range, memory with its verdict, and how far to trust them.

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
from estimator_service.physics import step_time as performance
from estimator_service.physics.memory import Footprint, Memory, footprint
from estimator_service.physics.parameters import Parameters, fitted
from estimator_service.physics.step_time import StepTime, step_time
from estimator_service.physics.workload import Demand, Method, Workload, demand, is_sharded

Confidence = Literal["high", "medium", "low"]
VERDICTS: tuple[memory.Verdict, ...] = ("fits", "tight", "does_not_fit")

# Beyond these the measured runs say nothing, whatever the GPU.
SEEN_LENGTHS = (256, 65_536)
SEEN_PARAMS_B = (0.4, 75.0)
SEEN_GPUS = 64
METHODS = get_args(Method)
# Numbers at the end of a point's features: where it stands, and of what kinds it is.
PLACES, KINDS = 3, 2
TIGHT_FROM = 0.95  # of the usable memory: above this one longer sample can end the run


class Point(NamedTuple):
    """A configuration on `count` GPUs; `correction` multiplies its speed, `memory` its peak, as finished jobs taught."""

    workload: Workload
    gpu: Gpu
    count: int  # type: ignore[assignment] # the field, not the method of a tuple
    correction: float = 1.0
    narrowing: float = 1.0
    memory: float = 1.0
    jobs: int = 0  # finished ones that taught of its speed
    peaks: int = 0  # and of its memory


class Numbers(NamedTuple):
    """Seconds of an optimizer step (three quantiles), tokens per second of all GPUs, bytes of one GPU; floats or arrays."""

    step_p10: float
    step: float
    step_p90: float
    tokens_per_s: float
    parts: StepTime
    memory: Memory
    uncorrected: float  # bytes of it before finished jobs corrected it
    allocated: float  # of those, what the framework's allocator hands out
    verdict: Any  # index into VERDICTS


@dataclass(frozen=True, slots=True)
class Forecast:
    """Numbers of one point, and why to trust them how much."""

    numbers: Numbers
    confidence: Confidence
    reasons: tuple[str, ...]
    point: Point
    asked: Demand
    machines: Hardware

    @property
    def verdict(self) -> memory.Verdict:
        """Whether the run fits into the memory of its GPUs."""
        return VERDICTS[int(self.numbers.verdict)]

    @property
    def drivers(self) -> list[tuple[str, float]]:
        """What takes the time of a step, and the share of it, largest first."""
        parts = self.numbers.parts._asdict()
        parts.pop("step")
        total = sum(parts.values())
        return sorted(((name, seconds / total) for name, seconds in parts.items() if seconds), key=lambda x: -x[1])

    @property
    def features(self) -> tuple[float, ...]:
        """See `features`; and the log of the peak's GiB before corrections."""
        slopes = performance.slopes(self.asked, self.machines, fitted().time)
        return *slopes, *_place(self.point), math.log(self.numbers.uncorrected / memory.GIB)


def forecast(point: Point, parameters: Parameters | None = None) -> Forecast:
    """Predicts one point."""
    p = parameters or fitted()
    d, h, f = _counts(point)
    numbers = _numbers(d, h, f, *_range(point, p), point.correction, point.memory, p)
    reasons = doubts(point, p)
    confidence: Confidence = "high" if not reasons else "medium" if len(reasons) == 1 else "low"
    return Forecast(numbers, confidence, reasons, point, d, h)


def features(point: Point, parameters: Parameters | None = None) -> tuple[float, ...]:
    """What finished jobs are learned from: how a point's speed changes with each number of the model, and where it stands."""
    d, h, _ = _counts(point)
    return *performance.slopes(d, h, (parameters or fitted()).time), *_place(point)


def features_table(points: Sequence[Point], parameters: Parameters | None = None) -> NDArray[np.float64]:
    """The same of many points: a row for each."""
    d, h = _columns(points)
    places = np.array([_place(point) for point in points])
    return np.column_stack([*performance.slopes(d, h, (parameters or fitted()).time), places])


def _place(point: Point) -> tuple[float, ...]:
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
        [(id(point.workload), id(point.gpu), point.narrowing) for point in points], lambda at: _range(points[at], p)
    )
    corrections = np.array([point.correction for point in points])
    d, h = _columns(points)
    feet = _footprints(points, np.asarray(d.sharded).tolist())
    peaks = np.array([point.memory for point in points])
    return _numbers(d, h, feet, ranges[0], ranges[1], corrections, peaks, p)


def _columns(points: Sequence[Point]) -> tuple[Demand, Hardware]:
    sharded = [is_sharded(point.workload, point.gpu, point.count) for point in points]
    demands = _gather(
        [(id(point.workload), split) for point, split in zip(points, sharded, strict=True)],
        lambda at: demand(points[at].workload, sharded=sharded[at]),
    )
    machines = _gather(
        [(id(point.gpu), point.count) for point in points], lambda at: hardware(points[at].gpu, points[at].count)
    )
    return Demand(*demands), Hardware(*machines)


def _footprints(points: Sequence[Point], sharded: Sequence[float]) -> Footprint:
    feet = _gather(
        [
            (id(point.workload), split, point.count if split else 1)
            for point, split in zip(points, sharded, strict=True)
        ],
        lambda at: footprint(points[at].workload, sharded=bool(sharded[at]), count=points[at].count),
    )
    return Footprint(*feet)


def _gather(keys: Sequence[Hashable], count: Callable[[int], Sequence[float]]) -> NDArray[np.float64]:
    """Columns of what `count` says of each position, asked once for each different key."""
    rows: dict[Hashable, int] = {}
    first: list[int] = []
    index = []
    for at, key in enumerate(keys):
        row = rows.get(key)
        if row is None:
            row = rows[key] = len(rows)
            first.append(at)
        index.append(row)
    found = np.array([count(at) for at in first], dtype=float)
    return found[index].T


def _counts(point: Point) -> tuple[Demand, Hardware, Footprint]:
    workload, gpu, count = point.workload, point.gpu, point.count
    sharded = is_sharded(workload, gpu, count)
    return demand(workload, sharded=sharded), hardware(gpu, count), _footprint_of(point)


def _footprint_of(point: Point) -> Footprint:
    sharded = is_sharded(point.workload, point.gpu, point.count)
    return footprint(point.workload, sharded=sharded, count=point.count if sharded else 1)


def _numbers(
    d: Demand, h: Hardware, f: Footprint, faster: Any, slower: Any, correction: Any, fuller: Any, p: Parameters
) -> Numbers:
    parts = step_time(d, h, p.time)
    step = parts.step / correction
    used, room = memory.allocated(f, p.memory), h.memory / fuller
    peak = memory.peak(used, f, p.memory, room)
    return Numbers(
        step_p10=step * faster, step=step, step_p90=step * slower,
        tokens_per_s=d.tokens * d.accumulation * h.count / step, parts=parts,
        memory=Memory(*(part * fuller for part in peak)), uncorrected=peak.total, allocated=used.total,
        verdict=_verdict(used, f, room, p),
    )  # fmt: skip


def _verdict(used: Memory, f: Footprint, capacity: Any, p: Parameters) -> Any:
    """Index into VERDICTS. A full fine-tuning is refused only if it does not fit even in 16 bits throughout."""
    least = used
    if isinstance(f.trained, np.ndarray) or f.trained:
        least = memory.allocated(f._replace(pure=f.pure * 0.0 + 1.0, wide=f.wide * (f.trained == 0.0)), p.memory)
    needed = least.total * (1.0 - p.spread.memory_margin) + p.memory.context_gib * memory.GIB
    full = memory.peak(used, f, p.memory, math.inf).total
    return (full > TIGHT_FROM * capacity) * 1 + (needed > capacity) * 1


def fits(point: Point, parameters: Parameters | None = None) -> bool:
    """Whether a point fits, with room to spare: a part of `forecast` at a tenth of its price."""
    p, f = parameters or fitted(), _footprint_of(point)
    return not _verdict(memory.allocated(f, p.memory), f, point.gpu.usable_bytes / point.memory, p)


def doubts(point: Point, p: Parameters) -> tuple[str, ...]:
    """What of the point lies outside the measured runs, in words; empty when nothing does."""
    w, evidence, found = point.workload, p.evidence, []
    if point.gpu.id not in evidence.gpus:
        found.append(f"no measured run on this GPU type ({point.gpu.id})")
    if w.model.family not in evidence.families:
        found.append(f"no measured run of this model family ({w.model.family})")
    if w.stack not in evidence.stacks:
        found.append(f"no measured run of this software stack ({w.stack})")
    if w.precision not in evidence.precisions:
        found.append(f"no measured run in this precision ({w.precision})")
    if not SEEN_LENGTHS[0] <= w.length <= SEEN_LENGTHS[1]:
        found.append(f"measured runs had {SEEN_LENGTHS[0]} to {SEEN_LENGTHS[1]} tokens a sequence")
    if not SEEN_PARAMS_B[0] <= w.model.params_b <= SEEN_PARAMS_B[1]:
        found.append(f"measured models had {SEEN_PARAMS_B[0]} to {SEEN_PARAMS_B[1]} billion parameters")
    if point.count > SEEN_GPUS:
        found.append(f"measured runs had at most {SEEN_GPUS} GPUs")
    return tuple(found)


def _range(point: Point, p: Parameters) -> tuple[float, float]:
    """(P10, P90) as factors of the time."""
    w, evidence, spread = point.workload, p.evidence, p.spread
    width = spread.p10_to_p50 * point.narrowing
    if point.gpu.id not in evidence.gpus:
        width *= spread.unseen_gpu
    if w.model.family not in evidence.families:
        width *= spread.unseen_family
    if w.stack not in evidence.stacks:
        width *= spread.unseen_stack
    return _factors(width)


@lru_cache(maxsize=256)
def _factors(width: float) -> tuple[float, float]:
    return math.exp(-width), math.exp(width)

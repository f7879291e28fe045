"""What finished runs of one kind teach: pure.

The numbers of the time model are not the same everywhere: a trainer's kernels, a provider's clocks. Finished runs say how the
ones at hand differ. A run that starving launches dominate tells of launches, so each run comes with its slopes: how its speed
changes with each number. Bayes' rule on a linear model, with a Student's t for runs that are odd; see README.md, "Learning".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimator_service.forecast import Point, slopes, slopes_table
from estimator_service.parameters import Parameters, fitted

Kind = tuple[str, str, str]  # model family, GPU type, software stack
Slopes = tuple[Any, ...]  # of log speed by log parameter, floats or arrays

FREEDOM = 4.0  # of Student's t: a run three deviations off counts half
ROUNDS = 24


class Lesson(NamedTuple):
    """How the model's numbers differ for a kind, as logs, the last for all of a run's time; and how sure that is."""

    jobs: int
    offsets: tuple[float, ...]
    before: tuple[float, ...]  # variances of the offsets
    now: tuple[tuple[float, ...], ...]  # covariances of the offsets
    misfit: float  # variance that no run of the kind tells of

    def apply(self, slopes: Slopes) -> tuple[Any, Any]:
        """(speed factor, width factor) for a run of these slopes; sums in a fixed order, so that tables get the same bits."""
        where = (*slopes, 1.0)
        moved, before, now = 0.0, self.misfit, self.misfit
        for slope, offset, variance, row in zip(where, self.offsets, self.before, self.now, strict=True):
            moved = moved + slope * offset
            before = before + slope * slope * variance
            across = 0.0
            for other, covariance in zip(where, row, strict=True):
                across = across + other * covariance
            now = now + slope * across
        if isinstance(moved, np.ndarray):
            factors = np.array([math.exp(each) for each in moved.tolist()])
            return factors, np.sqrt(now / before)
        return math.exp(moved), math.sqrt(now / before)


class Finished(NamedTuple):
    """A finished job: seconds it took, what its forecast said of all of it and of what is not training, and its slopes."""

    seconds: float
    forecast_seconds: float
    overhead_seconds: float
    correction: float
    slopes: tuple[float, ...]

    @property
    def log_ratio(self) -> float:
        """Log of measured ÷ predicted speed of the training itself, as the model says it without corrections.

        What is not training is taken as forecast, as long as that leaves the better part; else as it was in proportion.
        """
        training = self.forecast_seconds - self.overhead_seconds
        taken = self.seconds - self.overhead_seconds
        if taken < self.overhead_seconds:
            taken = self.seconds * training / self.forecast_seconds
        return math.log(training * self.correction / taken)


class Accuracy(NamedTuple):
    """How good forecasts were; `month` None: all of them."""

    month: str | None
    jobs: int
    inside: float
    median_error: float


Lessons = Mapping[Kind, Lesson]


def taught(point: Point, lessons: Lessons) -> tuple[Point, int]:
    """A point with what finished jobs of its kind taught, and how many they were."""
    found = lessons.get((point.workload.model.family, point.gpu.id, point.workload.stack))
    if found is None:
        return point, 0
    correction, narrowing = found.apply(slopes(point))
    return point._replace(correction=correction, narrowing=narrowing), found.jobs


def taught_together(points: Sequence[Point], lessons: Lessons) -> list[Point]:
    """`taught` for every point of a table, to the digit."""
    places = defaultdict(list)
    for place, point in enumerate(points):
        kind = point.workload.model.family, point.gpu.id, point.workload.stack
        if kind in lessons:
            places[kind].append(place)
    found = list(points)
    for kind, where in places.items():
        factors = lessons[kind].apply(slopes_table([points[place] for place in where]))
        for place, correction, narrowing in zip(where, *(each.tolist() for each in factors), strict=True):
            found[place] = points[place]._replace(correction=correction, narrowing=narrowing)
    return found


def lesson(log_ratios: Sequence[float], slopes: Sequence[Sequence[float]], p: Parameters | None = None) -> Lesson:
    """What runs of one kind teach: logs of measured ÷ predicted speed, each with its slopes."""
    parameters = p or fitted()
    spread, runs = parameters.spread, len(log_ratios)
    before = np.array([*((spread.looseness * sd) ** 2 for sd in parameters.time_sd), spread.source_sd**2])
    where = np.column_stack([np.array(slopes, dtype=float).reshape(runs, -1), np.ones(runs)])
    told = np.array(log_ratios)
    # One run alone has nobody to vouch for it.
    noise = (spread.run_sd * (1.0 + spread.alone / runs**2)) ** 2
    shared = (where * before) @ where.T
    weights, moved = np.ones(runs), np.zeros(runs)
    for _ in range(ROUNDS):
        moved = shared @ np.linalg.solve(shared + np.diag(noise / weights), told)
        weights = (FREEDOM + 1.0) / (FREEDOM + (told - moved) ** 2 / noise)
    gain: NDArray[np.float64] = (before[:, None] * where.T) @ np.linalg.inv(shared + np.diag(noise / weights))
    now = np.diag(before) - gain @ where * before
    return Lesson(
        runs,
        tuple((gain @ told).tolist()),
        tuple(before.tolist()),
        tuple(tuple(row) for row in now.tolist()),
        spread.misfit_sd**2,
    )

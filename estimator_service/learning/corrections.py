"""Corrections of forecasts from finished runs of one kind: pure.

Bayes' rule for a Gaussian process. A forecast is off because parameters of the model are off here (a trainer's kernels, a
provider's clocks), which slopes carry to other runs, and by a remainder that similar runs share. Outliers count less, by
Student's t; see docs/forecasts.md, "Learning".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimator_service.physics.forecast import KINDS, POSITIONS, Point, features, features_table
from estimator_service.physics.parameters import Parameters, fitted

Kind = tuple[str, str, str, bool]  # model family, GPU type, stack of the formulas, whether samples are packed
Array = NDArray[np.float64]

FREEDOM = 4.0  # of Student's t: a run three deviations off counts half
ROUNDS = 24
# Corrections stay within the errors of the published runs, their source held out: 99.7 % of speeds and 96 % of peaks are within
# a factor of 2, nine tenths of peaks within 1.5.
MAX_SPEED_CORRECTION, MAX_MEMORY_CORRECTION = 2.0, 1.5
DIGITS = 9  # of a factor: one point alone and among 512 get the same, in whatever order sums are taken


class Prior(NamedTuple):
    """Variances of logs before any run of a kind was seen, and the noise of a run measured again (standard deviation)."""

    slopes: Array  # of each number of the model
    shared: float  # of what moves all runs of a kind
    alike: float  # of what moves runs that are alike
    misfit: float  # of what stays, however many runs were seen
    noise: float
    alone: float  # how much noisier a run counts that no other vouches for
    apart: float  # natural logarithms of size or tokens after which runs are less alike
    same: int  # of a run's kinds, those that have to be the same

    def covariance(self, runs: Array, others: Array) -> Array:
        """How far what is off in some runs tells what is off in others; a row of `features` for each run."""
        slopes = len(self.slopes)
        near: Array = np.zeros((len(runs), len(others)))
        for column in range(slopes, slopes + POSITIONS):
            near += (runs[:, None, column] - others[None, :, column]) ** 2
        same: Any = 1.0
        for column in range(slopes + POSITIONS, slopes + POSITIONS + self.same):
            same = same * (runs[:, None, column] == others[None, :, column])
        linear: Array = (runs[:, :slopes] * self.slopes) @ others[:, :slopes].T
        covariance: Array = linear + self.shared + self.alike * same * np.exp(-0.5 * near / self.apart**2)
        return covariance

    def variance(self, runs: Array) -> Array:
        """`covariance` of each run with itself."""
        variance: Array = runs[:, : len(self.slopes)] ** 2 @ self.slopes + self.shared + self.alike
        return variance


@dataclass(frozen=True, eq=False, slots=True)
class Posterior:
    """How far runs of a kind are from what the formulas say. Told apart by identity."""

    jobs: int
    prior: Prior
    runs: Array
    weights: Array
    precision: Array

    def apply(self, runs: Array) -> tuple[list[float], list[float]]:
        """(factor, factor of the range's width) for runs of these features."""
        shared = self.prior.covariance(runs, self.runs)
        before = self.prior.variance(runs) + self.prior.misfit
        now = before - np.sum((shared @ self.precision) * shared, axis=1)
        factors = np.round(np.exp(shared @ self.weights), DIGITS)
        return factors.tolist(), np.round(np.sqrt(now / before), DIGITS).tolist()


class FinishedJob(NamedTuple):
    """A finished job: seconds it took, what its forecast said of all of it and of what is not training, and its features.

    `forecast_gib` is the peak as the model says it without corrections, `peak_gib` the trainer's; None: it measured none.
    `token_ratio`: tokens that the trainer counted, over those that were forecast. A job of twice the tokens is not a slow one.
    """

    seconds: float
    forecast_seconds: float
    overhead_seconds: float
    correction: float
    features: tuple[float, ...]
    forecast_gib: float
    peak_gib: float | None
    token_ratio: float = 1.0

    @property
    def log_ratio(self) -> float:
        """Log of measured ÷ predicted speed of the training itself, as the model says it without corrections.

        What is not training is taken as forecast, as long as that leaves the better part; else as it was in proportion.
        """
        training = self.forecast_seconds - self.overhead_seconds
        taken = self.seconds - self.overhead_seconds
        if taken < self.overhead_seconds:
            taken = self.seconds * training / self.forecast_seconds
        return math.log(training * self.correction * self.token_ratio / taken)


class Accuracy(NamedTuple):
    """How good forecasts were; `month` None: all of them."""

    month: str | None
    jobs: int
    inside: float
    median_error: float


class Correction(NamedTuple):
    """What finished jobs of one kind teach of speed, and of memory where trainers measured it.

    `software`: what their trainers reported that they run; all jobs are of the same.
    """

    speed: Posterior
    memory: Posterior | None
    software: str = ""


Corrections = Mapping[Kind, Correction]


def speed_prior(p: Parameters) -> Prior:
    """What is taken for granted of speeds. One GPU tells of several: else more GPUs would beat perfect scaling."""
    s = p.spread
    slopes = (s.looseness * np.array(p.time_sd)) ** 2
    return Prior(slopes, s.source_sd**2, s.alike_sd**2, s.misfit_sd**2, s.run_sd, s.alone, apart=2.0, same=1)


def memory_prior(p: Parameters) -> Prior:
    """The same of peaks of memory: no slopes are known, and one GPU says little of several, over which weights are spread."""
    return speed_prior(p)._replace(slopes=np.zeros(0), apart=1.0, same=2)


def correct_for(jobs: Sequence[FinishedJob], trust: Sequence[float] | None = None, software: str = "") -> Correction:
    """Returns the correction from finished jobs of one kind and software; `trust` weights each, 0 to 1 (None: all 1)."""
    weights = np.ones(len(jobs)) if trust is None else np.array(trust)
    speed = posterior([job.log_ratio for job in jobs], [job.features for job in jobs], speed_prior(fitted()), weights)
    measured = [index for index, job in enumerate(jobs) if job.peak_gib]
    if not measured:
        return Correction(speed, None, software)
    ratios = [math.log((jobs[index].peak_gib or 1.0) / jobs[index].forecast_gib) for index in measured]
    positions = [jobs[index].features[-POSITIONS - KINDS :] for index in measured]
    return Correction(speed, posterior(ratios, positions, memory_prior(fitted()), weights[measured]), software)


def corrected(point: Point, corrections: Corrections) -> Point:
    """A point with what finished jobs of its kind taught."""
    correction = corrections.get(_kind(point))
    return point if correction is None else _corrected([point], correction, np.array([features(point)]))[0]


def corrected_table(points: Sequence[Point], corrections: Corrections) -> list[Point]:
    """`corrected` for every point of a table, to the digit."""
    kinds = [_kind(point) for point in points]
    indices = [index for index, kind in enumerate(kinds) if kind in corrections]
    result = list(points)
    if not indices:
        return result
    runs = features_table([points[index] for index in indices])
    rows = defaultdict(list)
    for row, index in enumerate(indices):
        rows[kinds[index]].append(row)
    for kind, members in rows.items():
        corrected = _corrected([points[indices[row]] for row in members], corrections[kind], runs[members])
        for row, point in zip(members, corrected, strict=True):
            result[indices[row]] = point
    return result


def _corrected(points: Sequence[Point], corrections: Correction, runs: Array) -> list[Point]:
    speeds, widths = corrections.speed.apply(runs)
    jobs, measured = corrections.speed.jobs, corrections.memory.jobs if corrections.memory else 0
    peaks = corrections.memory.apply(runs[:, -POSITIONS - KINDS :])[0] if corrections.memory else [1.0] * len(points)
    return [
        Point(
            point.workload,
            point.gpu,
            point.count,
            _clamped(speed, MAX_SPEED_CORRECTION),
            width,
            _clamped(peak, MAX_MEMORY_CORRECTION),
            jobs,
            measured,
            corrections.software,
        )
        for point, speed, width, peak in zip(points, speeds, widths, peaks, strict=True)
    ]


def _clamped(factor: float, limit: float) -> float:
    return min(limit, max(1.0 / limit, factor))


def _kind(point: Point) -> Kind:
    return point.workload.model.family, point.gpu.id, point.workload.stack, point.workload.packed


def posterior(
    log_ratios: Sequence[float], runs: Sequence[Sequence[float]] | Array, prior: Prior, trust: Array | None = None
) -> Posterior:
    """Posterior of runs of one kind: logs of measured ÷ predicted, each with the run's features and its weight, 0 to 1."""
    observed, where = np.array(log_ratios), np.array(runs, dtype=float)
    count = len(observed)
    trusted = np.ones(count) if trust is None else trust
    noise = (prior.noise * (1.0 + prior.alone / float(np.sum(trusted)) ** 2)) ** 2 / trusted
    shared = prior.covariance(where, where)
    weights = np.ones(count)
    for _ in range(ROUNDS):
        moved = shared @ np.linalg.solve(shared + np.diag(noise / weights), observed)
        weights = (FREEDOM + 1.0) / (FREEDOM + (observed - moved) ** 2 / noise)
    precision: Any = np.linalg.inv(shared + np.diag(noise / weights))
    return Posterior(count, prior, where, precision @ observed, precision)

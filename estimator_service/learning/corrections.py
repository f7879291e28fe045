"""Corrects forecasts by finished jobs of the same kind. Pure.

A Gaussian process. A forecast has an error from parameters that differ for this kind (a trainer's kernels, a provider's
clocks), which the slopes of the forecast carry over to other jobs, and a remainder that similar jobs share. Outliers get less
weight, by Student's t; see docs/forecasts.md, "Learning".
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

DEGREES_OF_FREEDOM = 4.0  # of Student's t: a run that is three deviations off has about a third of the weight
ITERATIONS = 24
# Corrections stay within the errors of the published runs, their source held out: 99.7 % of speeds and 96 % of peaks are within
# a factor of 2, nine tenths of peaks within 1.5.
MAX_SPEED_CORRECTION, MAX_MEMORY_CORRECTION = 2.0, 1.5
DIGITS = 9  # of a factor: sums in another order must give one point the same factor as a table of 512


class Prior(NamedTuple):
    """The prior of log errors: variances of their parts, and the standard deviation of repeated measurements (`noise`)."""

    slopes: Array  # of each parameter of the model
    shared: float  # of the error that all runs of a kind share
    similar: float  # of the error that similar runs share
    residual: float  # of the error that remains with any number of runs
    noise: float
    single_run: float  # factor of the noise that is added if there is a single run
    length_scale: float  # of the kernel, in natural logarithms of size or tokens
    matching: int  # categories of a run that must be equal for runs to be similar

    def covariance(self, runs: Array, others: Array) -> Array:
        """Returns the covariance of the errors of two lists of runs, each a row of `features`."""
        slopes = len(self.slopes)
        distance: Array = np.zeros((len(runs), len(others)))
        for column in range(slopes, slopes + POSITIONS):
            distance += (runs[:, None, column] - others[None, :, column]) ** 2
        matches: Any = 1.0
        for column in range(slopes + POSITIONS, slopes + POSITIONS + self.matching):
            matches = matches * (runs[:, None, column] == others[None, :, column])
        linear: Array = (runs[:, :slopes] * self.slopes) @ others[:, :slopes].T
        covariance: Array = (
            linear + self.shared + self.similar * matches * np.exp(-0.5 * distance / self.length_scale**2)
        )
        return covariance

    def variance(self, runs: Array) -> Array:
        """Returns the `covariance` of each run with itself."""
        variance: Array = runs[:, : len(self.slopes)] ** 2 @ self.slopes + self.shared + self.similar
        return variance


@dataclass(frozen=True, eq=False, slots=True)
class Posterior:
    """The errors of the forecasts of a kind of runs, given those that finished. Compared by identity."""

    jobs: int
    prior: Prior
    runs: Array
    weights: Array
    precision: Array

    def apply(self, runs: Array) -> tuple[list[float], list[float]]:
        """Returns the factors of speed and the factors of the range's width for runs with these features."""
        shared = self.prior.covariance(runs, self.runs)
        prior_variance = self.prior.variance(runs) + self.prior.residual
        variance = prior_variance - np.sum((shared @ self.precision) * shared, axis=1)
        factors = np.round(np.exp(shared @ self.weights), DIGITS)
        return factors.tolist(), np.round(np.sqrt(variance / prior_variance), DIGITS).tolist()


class FinishedJob(NamedTuple):
    """A finished job with its forecast. Times in seconds: `overhead_seconds` is the forecast of everything but the training.

    `forecast_gib` is the forecast peak of memory without corrections, `peak_gib` the measured one; None: not measured.
    `token_ratio`: tokens that the trainer counted, divided by those forecast. A job with twice the tokens is not a slow one.
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
        """Log of the measured speed of the training divided by the forecast one, without corrections.

        The overhead counts as forecast if that leaves more than half of the time for the training, else in proportion.
        """
        training = self.forecast_seconds - self.overhead_seconds
        measured = self.seconds - self.overhead_seconds
        if measured < self.overhead_seconds:
            measured = self.seconds * training / self.forecast_seconds
        return math.log(training * self.correction * self.token_ratio / measured)


class Accuracy(NamedTuple):
    """The accuracy of the forecasts of jobs that finished in a month; `month` None: of all."""

    month: str | None
    jobs: int
    inside: float
    median_error: float


class Correction(NamedTuple):
    """The corrections of speed, and of memory where it was measured, from finished jobs of one kind and software."""

    speed: Posterior
    memory: Posterior | None
    software: str = ""


Corrections = Mapping[Kind, Correction]


def speed_prior(p: Parameters) -> Prior:
    """The prior of speeds. Runs on one and on several GPUs are similar: else more GPUs could beat perfect scaling."""
    s = p.spread
    slopes = (s.looseness * np.array(p.time_sd)) ** 2
    return Prior(slopes, s.source_sd**2, s.alike_sd**2, s.misfit_sd**2, s.run_sd, s.alone, length_scale=2.0, matching=1)


def memory_prior(p: Parameters) -> Prior:
    """The prior of peaks of memory. It has no slopes, and runs on one and on several GPUs, which may shard weights, differ."""
    return speed_prior(p)._replace(slopes=np.zeros(0), length_scale=1.0, matching=2)


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
    """Returns a point with the correction of its kind."""
    correction = corrections.get(_kind(point))
    return point if correction is None else _corrected([point], correction, np.array([features(point)]))[0]


def corrected_table(points: Sequence[Point], corrections: Corrections) -> list[Point]:
    """Returns `corrected` of every point, with the same digits."""
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
    """Returns the posterior of runs of one kind from logs of measured ÷ forecast, the runs' features and weights, 0 to 1."""
    observed, rows = np.array(log_ratios), np.array(runs, dtype=float)
    count = len(observed)
    trusted = np.ones(count) if trust is None else trust
    noise = (prior.noise * (1.0 + prior.single_run / float(np.sum(trusted)) ** 2)) ** 2
    shared = prior.covariance(rows, rows)
    # The outlier weight does not depend on trust. Otherwise many runs of low trust would outweigh a few of high trust.
    weights = trusted
    for _ in range(ITERATIONS):
        predicted = shared @ np.linalg.solve(shared + np.diag(noise / weights), observed)
        weights = trusted * (DEGREES_OF_FREEDOM + 1.0) / (DEGREES_OF_FREEDOM + (observed - predicted) ** 2 / noise)
    precision: Any = np.linalg.inv(shared + np.diag(noise / weights))
    return Posterior(count, prior, rows, precision @ observed, precision)

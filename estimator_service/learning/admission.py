"""Decides which finished jobs correct forecasts, and with what weight. Pure.

Trainers' reports must be physically possible, and no single user or worker can dominate a correction.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from estimator_service.catalogue.gpus import all_gpus
from estimator_service.learning.corrections import FinishedJob
from estimator_service.physics.forecast import max_speedup
from estimator_service.physics.step_time import TimeParameters

# Shorter trainings measure start-up rather than speed.
MIN_TRAINING_SECONDS = 60.0
# A run that is slower than its forecast by more than this factor is taken for broken.
MAX_SLOWDOWN = 10.0
# Largest ratio of counted and forecast tokens: tokenizers differ by a factor of three, and early stopping skips epochs.
MAX_TOKEN_RATIO = 20.0
# Plausible peaks of one GPU, GiB: from a CUDA context to more than any GPU has. Then their largest ratio to the forecast.
PEAK_GIB = (0.2, 1024.0)
MAX_PEAK_RATIO = 3.0
# Iterations that balance the weights of users and of workers by turns (iterative proportional fitting).
ROUNDS = 8
FEATURES = len(TimeParameters._fields) + 6


def refusal(job: FinishedJob, gpu_type: str) -> str | None:
    """Returns the reason why a finished job must not correct forecasts, or None if it may."""
    numbers = (
        job.seconds,
        job.forecast_seconds,
        job.overhead_seconds,
        job.correction,
        job.forecast_gib,
        job.token_ratio,
        *job.features,
    )
    if not all(map(math.isfinite, numbers)) or len(job.features) != FEATURES - 1:
        return "a number is missing or not finite"
    if not 0.01 <= job.correction <= 100.0 or job.forecast_seconds <= job.overhead_seconds or job.forecast_gib <= 0.0:
        return "the forecast is out of range"
    if not 1 / MAX_TOKEN_RATIO <= job.token_ratio <= MAX_TOKEN_RATIO:
        return "other tokens than were forecast"
    if job.seconds < MIN_TRAINING_SECONDS or job.forecast_seconds - job.overhead_seconds < MIN_TRAINING_SECONDS:
        return "too short"
    ratio = job.log_ratio
    if ratio > math.log(max_speedup(job.features, all_gpus().get(gpu_type))):
        return "faster than its arithmetic allows"
    return "slower than a working run" if ratio < -math.log(MAX_SLOWDOWN) else None


def with_possible_peak(job: FinishedJob) -> FinishedJob:
    """Returns the job, without its measured peak of memory if that is not possible."""
    peak = job.peak_gib
    if peak is None or (
        PEAK_GIB[0] <= peak <= PEAK_GIB[1] and 1 / MAX_PEAK_RATIO <= peak / job.forecast_gib <= MAX_PEAK_RATIO
    ):
        return job
    return job._replace(peak_gib=None)


def trust(owners: Sequence[tuple[str, str]]) -> tuple[float, ...]:
    """Returns the weights of jobs by their (user, worker), the largest 1.

    Every worker has the same weight in all, and so has every user as far as that allows.
    """
    weights = [1.0] * len(owners)
    for _ in range(ROUNDS):
        for owner in range(2):  # the user, then the worker
            totals: dict[str, float] = defaultdict(float)
            for weight, names in zip(weights, owners, strict=True):
                totals[names[owner]] += weight
            weights = [weight / totals[names[owner]] for weight, names in zip(weights, owners, strict=True)]
    return tuple(weight / max(weights) for weight in weights)

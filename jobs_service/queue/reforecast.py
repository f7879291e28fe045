"""A running job's time and cost, forecast anew from the speed of its own steps: pure.

The speed is measured by the database's clock between reports, from the end of the first step on. It is weighed against what was
forecast when the job was created, by Bayes' rule for the log of the speed, and stays within what physics allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from jobs_service.jobs.model import StatusReason

# A job is forecast anew after so many measured steps that took so long, and once more from this share of its steps on, percent.
# Trainers report twice a second: in less time, short steps are known to one or two only.
MIN_STEPS, MIN_TIME, SECOND_AT_PERCENT = 20, timedelta(seconds=2), 5.0
# Standard deviations of logs: one step against the mean step, since samples differ in length; the rest of a training against
# its beginning.
STEP_SD, DRIFT_SD = 0.2, 0.03
# How late a report is, against the step it names.
REPORT_SECONDS = 0.1
# A training so many times slower than forecast is not believed to go on like that; one without a base model, whose speed no
# physics bounds, so many times faster neither.
MAX_FACTOR = 100.0
# P90 ÷ P50 of an estimate without a base model.
ROUGH_SPREAD = 3.0
# Standard deviations between the median and P90 of a normal distribution.
Z90 = 1.2816
SHORTEST = 0.005  # seconds, half of the last digit that an estimate shows
SECONDS_PER_HOUR = 3600


class InitialForecast(NamedTuple):
    """What was forecast when the job was created, seconds. Without a base model (`is_rough`) that is one figure."""

    total: float
    total_p90: float
    training_p10: float
    training: float
    training_p90: float
    validation: float
    save: float
    fastest_training: float
    is_rough: bool


class Progress(NamedTuple):
    """Where a job is: columns of the statement measured_speed."""

    total_steps: int
    current_step: int
    measured_steps: int
    measured_seconds: float
    billed_seconds: float
    hourly_rate: Decimal
    storage_usd: Decimal
    max_cost_usd: Decimal | None
    max_duration_seconds: int | None
    simulated: bool


@dataclass(frozen=True, slots=True)
class Reforecast:
    """Seconds on GPUs over all attempts, at P10, P50 and P90, and what follows from them."""

    seconds: tuple[float, float, float]
    step: int
    measured_steps: int
    progress: float
    note: str
    exceeds_p90: bool
    limit: StatusReason | None
    hourly_rate: Decimal
    storage_usd: Decimal

    def document(self) -> dict[str, Any]:
        """Returns what the job keeps of it."""
        hours = [seconds / SECONDS_PER_HOUR for seconds in self.seconds]
        cost = [float(self.hourly_rate) * each + float(self.storage_usd) for each in hours]
        ranges = {"seconds": self.seconds, "hours": hours, "cost": cost}
        return {
            **{
                name: dict(zip(("p10", "p50", "p90"), (round(each, 2) for each in values), strict=True))
                for name, values in ranges.items()
            },
            "step": self.step,
            "measured_steps": self.measured_steps,
            "progress": self.progress,
            "note": self.note,
            "exceeds_p90": self.exceeds_p90,
            "limit": self.limit,
        }


def reforecast(progress: Progress, initial: InitialForecast) -> Reforecast:
    """Forecasts a job from its first measured steps."""
    if progress.simulated:
        # It reports steps alone: it validates and saves nothing, and no physics bounds it.
        initial = initial._replace(validation=0.0, save=0.0, fastest_training=0.0)
    slowdown, deviation = _slowdown(progress, initial)
    share_left = 1.0 - progress.current_step / progress.total_steps
    steps_left = (initial.training + initial.validation) * share_left * slowdown
    fastest = initial.fastest_training * share_left
    p10, p50, p90 = (
        progress.billed_seconds + max(fastest, steps_left * math.exp(z * deviation)) + initial.save
        for z in (-Z90, 0.0, Z90)
    )
    return Reforecast(
        seconds=(p10, p50, p90),
        step=progress.current_step,
        measured_steps=progress.measured_steps,
        progress=100.0 * progress.current_step / progress.total_steps,
        note=f"Was {_duration(initial.total)}, now {_duration_range(p10, p90)}.",
        exceeds_p90=not initial.is_rough and p50 > initial.total_p90,
        limit=_limit(p50, progress),
        hourly_rate=progress.hourly_rate,
        storage_usd=progress.storage_usd,
    )


def _slowdown(progress: Progress, initial: InitialForecast) -> tuple[float, float]:
    """How much slower the rest will be than forecast, and the standard deviation of its log."""
    training = max(initial.training, SHORTEST)
    measured = progress.measured_seconds * progress.total_steps / progress.measured_steps
    observed = math.log(max(measured, SHORTEST) / training)
    noise = math.hypot(
        STEP_SD / math.sqrt(progress.measured_steps), REPORT_SECONDS / max(progress.measured_seconds, SHORTEST)
    )
    if progress.simulated:
        return math.exp(observed), math.hypot(noise, DRIFT_SD)
    promised = max(
        math.log(max(initial.training_p90, SHORTEST) / training),
        math.log(training / max(initial.training_p10, SHORTEST)),
        DRIFT_SD,
    )
    # A speed that the promised range and the noise do not explain shows that forecasts of such jobs are further off: then it
    # counts for more (an empirical Bayes estimate of the variance).
    prior = max((promised / Z90) ** 2, observed**2 - noise**2)
    weight = prior / (prior + noise**2)
    slowdown = min(MAX_FACTOR, max(initial.fastest_training / training, math.exp(weight * observed)))
    return slowdown, math.hypot(math.sqrt(weight) * noise, DRIFT_SD)


def _limit(seconds: float, progress: Progress) -> StatusReason | None:
    """The limit of its owner that a job of so many seconds reaches."""
    cost = float(progress.hourly_rate) * seconds / SECONDS_PER_HOUR
    if progress.max_cost_usd is not None and cost >= float(progress.max_cost_usd):
        return StatusReason.COST_LIMIT
    if progress.max_duration_seconds is not None and seconds >= progress.max_duration_seconds:
        return StatusReason.DURATION_LIMIT
    return None


def _duration(seconds: float) -> str:
    size, unit = _unit(seconds)
    return f"{_digits(seconds / size)} {unit}"


def _duration_range(shortest: float, longest: float) -> str:
    size, unit = _unit(longest)
    texts = [_digits(each / size) for each in (shortest, longest)]
    return f"{'–'.join(dict.fromkeys(texts))} {unit}"  # noqa: RUF001 - the dash of a range


def _unit(seconds: float) -> tuple[float, str]:
    return (3600.0, "h") if seconds >= 5400 else (60.0, "min") if seconds >= 90 else (1.0, "s")


def _digits(number: float) -> str:
    return f"{number:,.1f}" if number < 10 else f"{number:,.0f}"

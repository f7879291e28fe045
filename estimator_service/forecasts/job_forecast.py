"""Forecasts a job from the forecast of its steps: number of steps, time and cost with their ranges.

The same formulas take one job (floats) and a table of jobs (arrays), and give both the same digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from estimator_service.catalogue.model import JobDefaults
from estimator_service.errors import DatasetTooLarge
from estimator_service.forecasts.plan import Plan
from estimator_service.physics.forecast import Confidence, Forecast, Numbers, Point, forecast, max_speedup, table
from estimator_service.physics.workload import WEIGHT_BYTES, adapter_params
from estimator_service.reference import MAX_STEPS, SECONDS_PER_HOUR

GB = 1e9
MAX_STARTUP_SHARE = 0.5  # above this the range is mostly that of the start-up


class Load(NamedTuple):
    """The amounts of a plan that do not depend on the GPUs: sequences and bytes, as floats or arrays."""

    sequences: float
    validation_sequences: float
    epochs: float
    per_step: float  # sequences that one GPU takes in an optimizer step
    forward_share: float  # of a training step's arithmetic
    loaded_bytes: float
    saved_bytes: float


class JobTotals(NamedTuple):
    """The forecast of a job, as floats or arrays: whole steps, hours and US dollars, unrounded."""

    steps_per_epoch: Any
    total_steps: Any
    startup: Any
    training: Any
    validation: Any
    save: Any
    hours_p10: Any
    hours: Any
    hours_p90: Any
    hourly_rate: Any
    compute: Any
    storage: Any
    cost_p10: Any
    cost: Any
    cost_p90: Any


class JobForecast(NamedTuple):
    """The forecast of one job: of the whole (`totals`) and of its step (`forecast`)."""

    plan: Plan
    point: Point
    totals: JobTotals
    forecast: Forecast
    defaults: JobDefaults

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons why the forecast is uncertain, as text: properties outside the measured runs, or not counted."""
        return self.plan.doubts + self.forecast.reasons + self._startup_doubt

    @property
    def _startup_doubt(self) -> tuple[str, ...]:
        share = self.totals.startup / self.totals.hours
        return (f"{share:.0%} of the time is start-up, which is assumed",) if share > MAX_STARTUP_SHARE else ()

    @property
    def confidence(self) -> Confidence:
        """The confidence in the range."""
        if self.plan.doubts:
            return "low"
        return "medium" if self._startup_doubt and self.forecast.confidence == "high" else self.forecast.confidence

    @property
    def training_seconds(self) -> tuple[float, float, float]:
        """P10, P50 and P90 of the time of the training steps, seconds."""
        steps, numbers = self.totals.total_steps, self.forecast.numbers
        return steps * numbers.step_p10, steps * numbers.step, steps * numbers.step_p90

    @property
    def fastest_training_seconds(self) -> float:
        """Lower bound of the time of the training steps, seconds, with any corrections."""
        uncorrected = self.training_seconds[1] * self.point.speed_correction
        return uncorrected / max_speedup(self.forecast.features, self.point.gpu)

    @property
    def is_quotable(self) -> bool:
        """Whether a quote may promise its price."""
        return self.confidence != "low"


def load(planned: Plan) -> Load:
    """Returns the amounts of a plan. Raises DatasetTooLarge."""
    w = planned.workload
    if planned.sequences * planned.epochs > MAX_STEPS:
        raise DatasetTooLarge
    stored = w.model.params_b * GB * WEIGHT_BYTES[16]
    return Load(
        sequences=planned.sequences,
        validation_sequences=planned.validation_sequences,
        epochs=float(planned.epochs),
        per_step=float(w.batch * w.accumulation),
        forward_share=1.0 / (2.0 + (w.method == "full") + w.checkpointing),
        loaded_bytes=stored,
        saved_bytes=adapter_params(w) * WEIGHT_BYTES[16],
    )


def totals(amounts: Load, numbers: Numbers, count: Any, price: Any, defaults: JobDefaults) -> JobTotals:
    """Returns the forecast of a job on `count` GPUs at `price` US dollars an hour each."""
    round_up = np.ceil if isinstance(numbers.step, np.ndarray) else math.ceil
    sequences_per_step = amounts.per_step * count
    steps_per_epoch = round_up(amounts.sequences / sequences_per_step)
    total_steps = steps_per_epoch * amounts.epochs
    validations = amounts.validation_sequences / sequences_per_step * amounts.forward_share * amounts.epochs
    startup = (defaults.startup_seconds + amounts.loaded_bytes / (defaults.load_gb_per_second * GB)) / SECONDS_PER_HOUR
    save = (defaults.save_seconds + amounts.saved_bytes / (defaults.save_gb_per_second * GB)) / SECONDS_PER_HOUR
    steps = total_steps + validations
    hours = startup + steps * numbers.step / SECONDS_PER_HOUR + save
    # The errors of start-up and training are independent: the squares of their distances from the median add up.
    earlier = (defaults.startup_seconds - defaults.startup_p10_seconds) / SECONDS_PER_HOUR
    later = (defaults.startup_p90_seconds - defaults.startup_seconds) / SECONDS_PER_HOUR
    faster = steps * (numbers.step - numbers.step_p10) / SECONDS_PER_HOUR
    slower = steps * (numbers.step_p90 - numbers.step) / SECONDS_PER_HOUR
    square_root = np.sqrt if isinstance(numbers.step, np.ndarray) else math.sqrt
    hours_p10 = hours - square_root(earlier * earlier + faster * faster)
    hours_p90 = hours + square_root(later * later + slower * slower)
    rate = price * count
    return JobTotals(
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        startup=startup,
        training=total_steps * numbers.step / SECONDS_PER_HOUR,
        validation=validations * numbers.step / SECONDS_PER_HOUR,
        save=save,
        hours_p10=hours_p10,
        hours=hours,
        hours_p90=hours_p90,
        hourly_rate=rate,
        compute=rate * hours,
        storage=defaults.storage_usd,
        cost_p10=rate * hours_p10 + defaults.storage_usd,
        cost=rate * hours + defaults.storage_usd,
        cost_p90=rate * hours_p90 + defaults.storage_usd,
    )


def job_forecast(planned: Plan, point: Point, price: float, defaults: JobDefaults) -> JobForecast:
    """Forecasts one job. Raises DatasetTooLarge."""
    step_forecast = forecast(point)
    job = totals(load(planned), step_forecast.numbers, point.count, price, defaults)
    return JobForecast(planned, point, job, step_forecast, defaults)


def job_table(
    plans: Sequence[Plan], points: Sequence[Point], prices: Sequence[float], defaults: JobDefaults
) -> tuple[JobTotals, Numbers]:
    """Forecasts many jobs at once; every field is an array in their order. Raises DatasetTooLarge."""
    numbers = table(points)
    rows: dict[int, int] = {}
    for planned in plans:
        rows.setdefault(id(planned), len(rows))
    by_id = {id(planned): planned for planned in plans}
    loads = np.array([load(by_id[key]) for key in rows])[[rows[id(planned)] for planned in plans]]
    counts = np.array([float(point.count) for point in points])
    return totals(Load(*loads.T), numbers, counts, np.array(prices), defaults), numbers

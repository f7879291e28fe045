"""Compares a job over GPU types, counts and presets: every point, the Pareto front and the best point for each goal. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimator_service.catalogue.gpus import Gpu
from estimator_service.catalogue.model import Catalogue, GpuType, ModelGpuType
from estimator_service.datasets.model import Dataset
from estimator_service.forecasts.configuration import reference_run
from estimator_service.forecasts.job_forecast import job_table
from estimator_service.forecasts.plan import Plan, TrainingSpec, plan
from estimator_service.learning.corrections import Corrections, corrected_table
from estimator_service.physics.evidence import doubts
from estimator_service.physics.forecast import VERDICTS, Point
from estimator_service.physics.memory import GIB
from estimator_service.physics.parameters import fitted
from estimator_service.reference import CLEAR_BELOW, CLEAR_OF_HALF, estimate, to_cents

MAX_POINTS = 512

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Choice(NamedTuple):
    """Hyperparameters to compare, of a preset or custom. `spec`: None without a base model."""

    preset_id: str
    batch_size: int
    epochs: int
    spec: TrainingSpec | None


class Grid(NamedTuple):
    """The points of a comparison: every GPU type with every count and choice. `machines`: None without a base model."""

    types: list[ModelGpuType]
    machines: list[Gpu] | None
    counts: list[int]
    choices: list[Choice]


class Comparison(NamedTuple):
    """The points in the order of the grid. Costs in US dollars and times in hours, rounded to hundredths.

    Without a base model the three quantiles are equal, and every point fits.
    """

    cost_p10: Floats
    cost: Floats
    cost_p90: Floats
    hours_p10: Floats
    hours: Floats
    hours_p90: Floats
    hourly_rate: Floats
    verdicts: NDArray[np.int64]  # index into VERDICTS
    memory_gib: Floats
    quotable: list[bool]
    plan: Plan | None  # of the first point, for its assumptions

    @property
    def fits(self) -> Flags:
        """Which points a job could be created with."""
        is_queued: Flags = self.verdicts != VERDICTS.index("does_not_fit")
        return is_queued


def compare(grid: Grid, dataset: Dataset, corrections: Corrections, catalogue: Catalogue) -> Comparison:
    """Returns every point with the same figures as a single estimate. Raises DatasetTooLarge."""
    if grid.machines is None:
        return _reference(grid, dataset, catalogue)
    return _forecast(grid, grid.machines, dataset, corrections, catalogue)


def _reference(grid: Grid, dataset: Dataset, catalogue: Catalogue) -> Comparison:
    estimates = [
        estimate(reference_run(gpu, count, choice.batch_size, choice.epochs, dataset), catalogue.reference)
        for gpu in grid.types
        if isinstance(gpu, GpuType)
        for count in grid.counts
        for choice in grid.choices
    ]
    cost, hours = (
        cents(np.array(column)) for column in zip(*((each.total, each.hours) for each in estimates), strict=True)
    )
    rates = cents(np.array([each.hourly_rate for each in estimates]))
    fits = np.zeros(len(estimates), dtype=np.int64)
    return Comparison(cost, cost, cost, hours, hours, hours, rates, fits, rates * 0.0, [True] * len(estimates), None)


def _forecast(
    grid: Grid, machines: list[Gpu], dataset: Dataset, corrections: Corrections, catalogue: Catalogue
) -> Comparison:
    plans: list[Plan] = []
    points: list[Point] = []
    prices: list[float] = []
    quotable: list[bool] = []
    plan_of: dict[tuple[int, object], Plan] = {}
    for entry, gpu in zip(grid.types, machines, strict=True):
        planned, trusted = [], []
        for index, choice in enumerate(grid.choices):
            assert choice.spec is not None
            key = index, gpu.traits
            if key not in plan_of:
                plan_of[key] = plan(choice.spec, gpu, dataset, catalogue.job_defaults)
            choice_plan = plan_of[key]
            planned.append(choice_plan)
            doubted = len(choice_plan.doubts) + len(doubts(choice_plan.workload, gpu, 1, fitted().evidence))
            trusted.append(not choice_plan.doubts and doubted < 2)
        for count in grid.counts:
            points += [Point(choice_plan.workload, gpu, count) for choice_plan in planned]
            plans += planned
            quotable += trusted
        prices += [entry.price_usd_per_hour] * (len(grid.counts) * len(planned))
    totals, numbers = job_table(plans, corrected_table(points, corrections), prices, catalogue.job_defaults)
    return Comparison(
        cost_p10=cents(totals.cost_p10),
        cost=cents(totals.cost),
        cost_p90=cents(totals.cost_p90),
        hours_p10=cents(totals.hours_p10),
        hours=cents(totals.hours),
        hours_p90=cents(totals.hours_p90),
        hourly_rate=cents(totals.hourly_rate),
        verdicts=numbers.verdict.astype(np.int64),
        memory_gib=cents(np.asarray(numbers.peak.total) / GIB),
        quotable=quotable,
        plan=plans[0],
    )


def cents(amounts: Floats) -> Floats:
    """Returns `to_cents` of every amount."""
    scaled = amounts * 100.0
    whole = np.floor(scaled)
    clear = (scaled >= 0.0) & (scaled < CLEAR_BELOW) & (np.abs(scaled - whole - 0.5) > CLEAR_OF_HALF)
    rounded: Floats = (whole + (scaled - whole > 0.5)) / 100.0
    for index in np.flatnonzero(~clear):
        rounded[index] = to_cents(float(amounts[index]))
    return rounded


def pareto(points: Comparison) -> Flags:
    """Returns the points that fit and are Pareto-optimal in cost and hours among those that fit."""
    is_best = np.zeros(len(points.cost), dtype=bool)
    order = np.lexsort((points.hours, points.cost))
    least_hours: float = np.inf
    cost_of_least: Any = None
    for index in order[points.fits[order]]:
        cost, hours = points.cost[index], points.hours[index]
        if hours < least_hours:
            least_hours, cost_of_least = hours, cost
            is_best[index] = True
        elif hours == least_hours and cost == cost_of_least:
            is_best[index] = True
    return is_best


def best(points: Comparison, deadline_hours: float | None, budget_usd: float | None) -> dict[str, int | None]:
    """Returns the index of the best point for each goal; the other goal breaks ties. None: no point fits and meets the goal."""
    cost, hours = points.cost, points.hours
    quotable = points.fits & np.array(points.quotable)
    goals = {"cheapest": (quotable, cost, hours), "fastest": (quotable, hours, cost)}
    if deadline_hours is not None:
        goals["cheapest_under_deadline"] = points.fits & (points.hours_p90 <= deadline_hours), cost, hours
    if budget_usd is not None:
        goals["fastest_under_budget"] = points.fits & (points.cost_p90 <= budget_usd), hours, cost
    return {goal: _first(*order) for goal, order in goals.items()}


def _first(allowed: Flags, first: Floats, second: Floats) -> int | None:
    order = np.lexsort((second, first))
    allowed_order = order[allowed[order]]
    return int(allowed_order[0]) if len(allowed_order) else None

"""The reference estimate: what a training job costs and how long it takes. Pure.

Source of the formula: a flat throughput per GPU type, linear in the GPU count; see the service's README. Arithmetic is in
doubles and in a fixed order, so that the same question gets the same bits everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from estimator_service.errors import DatasetTooLarge

CENT = Decimal("0.01")
# A product with 100 is off by less than this, in cents, up to so many cents.
CLEAR_OF_HALF = 1e-6
CLEAR_BELOW = 1e9
SECONDS_PER_HOUR = 3600
# Above this a double no longer holds every whole number, and neither does a JSON client.
MAX_STEPS = 2**53


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the reference estimate adds to training itself, and what it takes for a dataset without statistics."""

    startup_seconds: float
    validation_seconds_per_epoch: float
    save_seconds: float
    storage_usd: float
    default_pairs: int
    default_tokens_per_pair: int


class Run(NamedTuple):
    """What is to be trained on what. Price in US dollars and tokens per second are of one GPU; batch in pairs."""

    pairs: int | None
    tokens: int | None
    price_usd_per_hour: float
    tokens_per_second: float
    gpu_count: int
    batch_size: int
    epochs: int


class Estimate(NamedTuple):
    """Time in hours and money in US dollars, unrounded; throughput in tokens per second of all GPUs together."""

    steps_per_epoch: int
    total_steps: int
    throughput: float
    hours: float
    hourly_rate: float
    compute: float
    storage: float
    total: float


def estimate(run: Run, assumed: Assumptions) -> Estimate:
    """Estimates a run. Raises DatasetTooLarge."""
    pairs = run.pairs or assumed.default_pairs
    tokens = run.tokens or assumed.default_tokens_per_pair * pairs
    steps_per_epoch = -(-pairs // run.batch_size)
    total_steps = steps_per_epoch * run.epochs
    if total_steps > MAX_STEPS:
        raise DatasetTooLarge
    throughput = run.tokens_per_second * run.gpu_count
    train_seconds = total_steps * (tokens / pairs * run.batch_size) / throughput
    overhead_seconds = (
        assumed.startup_seconds + assumed.validation_seconds_per_epoch * run.epochs + assumed.save_seconds
    )
    hours = (train_seconds + overhead_seconds) / SECONDS_PER_HOUR
    hourly_rate = run.price_usd_per_hour * run.gpu_count
    compute = hourly_rate * hours
    storage = assumed.storage_usd
    return Estimate(
        steps_per_epoch, total_steps, throughput, hours, hourly_rate, compute, storage, total=compute + storage
    )


def to_cents(amount: float) -> float:
    """Rounds to two decimals, half away from zero on the exact binary value, as JavaScript's `toFixed(2)` does.

    `round()` rounds the same value half to even, and `amount * 100` already is another one: where that is clear of a half
    it tells all the same, in a tenth of the time.
    """
    scaled = amount * 100.0
    whole = math.floor(scaled)
    if 0.0 <= scaled < CLEAR_BELOW and abs(scaled - whole - 0.5) > CLEAR_OF_HALF:
        return (whole + (scaled - whole > 0.5)) / 100.0
    return float(Decimal(amount).quantize(CENT, ROUND_HALF_UP))

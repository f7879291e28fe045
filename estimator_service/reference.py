"""The reference estimate: time and cost of a job that names no base model. Pure.

It assumes one throughput for each GPU type, linear in the number of GPUs: docs/forecasts.md. The order of the operations is
fixed, so that the same request gets the same bits on every machine.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from estimator_service.errors import DatasetTooLarge

CENT = Decimal("0.01")
# `amount * 100` is off by less than CLEAR_OF_HALF cents for amounts below CLEAR_BELOW cents.
CLEAR_OF_HALF = 1e-6
CLEAR_BELOW = 1e9
SECONDS_PER_HOUR = 3600
# Above this a double, and so a number in JSON, cannot represent every whole number.
MAX_STEPS = 2**53


class Assumptions(BaseModel):
    """Time and cost beside training itself, and the size of a dataset without statistics: `[reference]` of the catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    startup_seconds: float = Field(ge=0, allow_inf_nan=False)
    validation_seconds_per_epoch: float = Field(ge=0, allow_inf_nan=False)
    save_seconds: float = Field(ge=0, allow_inf_nan=False)
    storage_usd: float = Field(ge=0, allow_inf_nan=False)
    default_pairs: int = Field(ge=1)
    default_tokens_per_pair: int = Field(ge=1)


class Run(NamedTuple):
    """A training run. Price in US dollars and tokens per second are those of one GPU; the batch is in pairs."""

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

    `round()` would round half to even. `amount * 100` is inexact, but decides in a tenth of the time unless close to a half.
    """
    scaled = amount * 100.0
    whole = math.floor(scaled)
    if 0.0 <= scaled < CLEAR_BELOW and abs(scaled - whole - 0.5) > CLEAR_OF_HALF:
        return (whole + (scaled - whole > 0.5)) / 100.0
    return float(Decimal(amount).quantize(CENT, ROUND_HALF_UP))

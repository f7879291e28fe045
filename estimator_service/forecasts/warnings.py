"""Warnings about settings that are likely to train badly, each with its published source. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from estimator_service.catalogue.model import LearningRateLimit
from estimator_service.forecasts.plan import TrainingSpec


class Warned(NamedTuple):
    """A field of the request, what is wrong with its value, and where that was published."""

    field: str
    message: str
    source: str


def learning_rate_warnings(
    spec: TrainingSpec, learning_rate: float, limits: Sequence[LearningRateLimit]
) -> list[Warned]:
    """Warns of a learning rate above those of published recipes, by the first limit for the method and the model's size."""
    method = spec.options.method or "lora"
    for limit in limits:
        if method in limit.methods and spec.model.params_b >= limit.min_params_b:
            if learning_rate <= limit.max:
                return []
            message = f"{learning_rate:g} is likely to diverge at rank {spec.rank} ({method}): {limit.recipe}"
            if method == "full":
                message = f"{learning_rate:g} is likely to diverge: {limit.recipe}"
            return [Warned("hyperparameters.learning_rate", message, limit.source)]
    return []

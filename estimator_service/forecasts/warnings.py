"""Warns of settings that are likely to train badly, each with its published source. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from estimator_service.catalogue.model import LearningRateLimit
from estimator_service.forecasts.plan import TrainingSpec


class SettingWarning(NamedTuple):
    """A field of the request, what is wrong with its value, and the source that says so."""

    field: str
    message: str
    source: str


def setting_warnings(
    spec: TrainingSpec, learning_rate: float, limits: Sequence[LearningRateLimit], longest: int | None
) -> list[SettingWarning]:
    """Returns the warnings of a job's settings. `longest`: tokens of the dataset's longest sample; None: not counted."""
    return _learning_rate(spec, learning_rate, limits) + _context(spec, longest)


def _context(spec: TrainingSpec, longest: int | None) -> list[SettingWarning]:
    """Warns of sequences longer than the model's context."""
    length, context = spec.options.sequence_length or longest or 0, spec.model.context_tokens
    if not context or length <= context:
        return []
    source = "" if spec.options.sequence_length else ", the longest sample,"
    message = f"{length:,} tokens{source} are above the {context:,} of {spec.model.name}: set at most {context}"
    return [SettingWarning("training.sequence_length", message, spec.model.source)]


def _learning_rate(
    spec: TrainingSpec, learning_rate: float, limits: Sequence[LearningRateLimit]
) -> list[SettingWarning]:
    """Warns of a learning rate above the first limit for the method and the model's size."""
    method = spec.options.method or "lora"
    for limit in limits:
        if method in limit.methods and spec.model.params_b >= limit.min_params_b:
            if learning_rate <= limit.max:
                return []
            message = f"{learning_rate:g} is likely to diverge at rank {spec.rank} ({method}): {limit.recipe}"
            if method == "full":
                message = f"{learning_rate:g} is likely to diverge: {limit.recipe}"
            return [SettingWarning("hyperparameters.learning_rate", message, limit.source)]
    return []

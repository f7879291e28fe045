"""The terms of a quote: what its price depends on, and how two sets of terms differ. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from estimator_service.catalogue.model import JobDefaults
from estimator_service.datasets.model import Dataset
from estimator_service.forecasts.configuration import JobConfiguration
from estimator_service.forecasts.plan import canonical, plan


@dataclass(frozen=True, slots=True)
class Terms:
    """What a price depends on: the configuration with its defaults, the dataset's revision and size, and the GPU's price."""

    configuration: Mapping[str, Any]
    dataset: Mapping[str, Any]
    price: Mapping[str, Any]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the configuration, 32 bytes."""
        return hashlib.sha256(orjson.dumps(self.configuration, option=orjson.OPT_SORT_KEYS)).digest()


def terms(
    configuration: JobConfiguration,
    hyperparameters: Mapping[str, Any],
    dataset_id: str,
    dataset: Dataset,
    defaults: JobDefaults,
) -> Terms:
    """Returns the terms of a configuration's price."""
    spec, placement = configuration.spec, configuration.placement
    fields = {
        "dataset_id": dataset_id.lower(),
        "gpu_config.type": configuration.gpu.type,
        "gpu_config.count": configuration.gpu_count,
        "provider": configuration.provider,
        **{f"hyperparameters.{name}": value for name, value in hyperparameters.items()},
    }
    if spec is not None and placement is not None:
        fields |= canonical(spec, plan(spec, placement.gpu, dataset, defaults))
    statistics = {"revision": dataset.revision, "training pairs": dataset.pairs, "tokens": dataset.tokens}
    price = {"type": configuration.gpu.type, "usd_per_hour": configuration.price.price_usd_per_hour}
    return Terms(fields, statistics, price)


def differences(then: Terms, now: Terms, cost_then: float, cost_now: float) -> list[str]:
    """Returns the differences in words, prices last, such as `A100-80GB $3.20 → $3.60/h`. Empty: the terms are equal."""
    names = dict.fromkeys([*then.configuration, *now.configuration])
    changes = [
        f"{name} {_shown(then.configuration.get(name))} → {_shown(now.configuration.get(name))}"
        for name in names
        if then.configuration.get(name) != now.configuration.get(name)
    ]
    if then.dataset["revision"] != now.dataset["revision"]:
        counts = [
            f"dataset {name} {_shown(then.dataset[name])} → {_shown(now.dataset[name])}"
            for name in now.dataset
            if name != "revision" and then.dataset[name] != now.dataset[name]
        ]
        changes += counts or ["dataset content changed"]
    if then.price != now.price and then.price["type"] == now.price["type"]:
        changes.append(f"{now.price['type']} ${then.price['usd_per_hour']:.2f} → ${now.price['usd_per_hour']:.2f}/h")
    if changes and f"{cost_then:.2f}" != f"{cost_now:.2f}":
        changes.append(f"total ${cost_then:.2f} → ${cost_now:.2f}")
    return changes


def _shown(value: Any) -> str:
    if value is None or value in ("", []):
        return "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)

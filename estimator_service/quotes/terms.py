"""What a price is promised on, and how two such promises differ. Pure."""

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
    """What a price is promised on: the configuration with everything filled in, the dataset's content, the GPU's price."""

    configuration: Mapping[str, Any]
    dataset: Mapping[str, Any]
    price: Mapping[str, Any]

    @property
    def digest(self) -> bytes:
        """Of the configuration: SHA-256, 32 bytes."""
        return hashlib.sha256(orjson.dumps(self.configuration, option=orjson.OPT_SORT_KEYS)).digest()


def terms(
    configuration: JobConfiguration,
    hyperparameters: Mapping[str, Any],
    dataset_id: str,
    dataset: Dataset,
    defaults: JobDefaults,
) -> Terms:
    """What a price of a configuration is promised on."""
    asked, spec, placement = configuration, configuration.spec, configuration.placement
    filled = {
        "dataset_id": dataset_id.lower(),
        "gpu_config.type": asked.gpu.type,
        "gpu_config.count": asked.gpu_count,
        "provider": asked.provider,
        **{f"hyperparameters.{name}": value for name, value in hyperparameters.items()},
    }
    if spec is not None and placement is not None:
        filled |= canonical(spec, plan(spec, placement.gpu, dataset, defaults))
    counted = {"revision": dataset.revision, "training pairs": dataset.pairs, "tokens": dataset.tokens}
    price = {"type": asked.gpu.type, "usd_per_hour": asked.price.price_usd_per_hour}
    return Terms(filled, counted, price)


def differences(then: Terms, now: Terms, cost_then: float, cost_now: float) -> list[str]:
    """What is not as it was, in words, the prices last: `A100-80GB 3.20 → 3.60 $/h`. Empty where everything is."""
    names = dict.fromkeys([*then.configuration, *now.configuration])
    found = [
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
        found += counts or ["dataset content changed"]
    if then.price != now.price and then.price["type"] == now.price["type"]:
        found.append(f"{now.price['type']} {then.price['usd_per_hour']:.2f} → {now.price['usd_per_hour']:.2f} $/h")
    if found and f"{cost_then:.2f}" != f"{cost_now:.2f}":
        found.append(f"total {cost_then:.2f} → {cost_now:.2f}")
    return found


def _shown(value: Any) -> str:
    if value is None or value in ("", []):
        return "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)

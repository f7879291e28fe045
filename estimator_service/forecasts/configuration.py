"""What a request asks to estimate, with every name looked up. Pure."""

from __future__ import annotations

from typing import NamedTuple

from estimator_service.catalogue.model import Dated, GpuType, ModelGpuType
from estimator_service.datasets.model import Dataset
from estimator_service.forecasts.plan import TrainingSpec
from estimator_service.forecasts.repairs import Placement
from estimator_service.reference import Run


class JobConfiguration(NamedTuple):
    """A job to estimate. `spec` and `placement`: when a base model is named; `provider` empty: the catalogue's price."""

    gpu: ModelGpuType
    gpu_count: int
    price: Dated
    provider: str
    batch: int
    epochs: int
    learning_rate: float
    spec: TrainingSpec | None
    placement: Placement | None

    @property
    def forecast_key(self) -> tuple[object, ...]:
        """What a forecast depends on. The learning rate, alpha and dropout change neither time nor memory."""
        return self.gpu.type, self.gpu_count, self.provider, self.spec


def reference_run(gpu: GpuType, count: int, batch: int, epochs: int, dataset: Dataset) -> Run:
    """What the reference estimate needs: the catalogue's own price, and a flat throughput."""
    return Run(dataset.pairs, dataset.tokens, gpu.price_usd_per_hour, gpu.tokens_per_second, count, batch, epochs)

"""The configuration of a job: what `requests.py` makes of a request, with GPU type, price and base model looked up. Pure."""

from __future__ import annotations

from typing import NamedTuple

from estimator_service.catalogue.gpus import Gpu
from estimator_service.catalogue.model import GpuPrice, GpuType, ModelGpuType
from estimator_service.datasets.model import Dataset
from estimator_service.forecasts.plan import TrainingSpec
from estimator_service.reference import Run


class Placement(NamedTuple):
    """The GPUs of a job: so many of one type, each at a price in US dollars an hour."""

    gpu: Gpu
    number: int
    price: float


class JobConfiguration(NamedTuple):
    """A job to estimate. `spec` and `placement`: None without a base model. `provider`: empty for the catalogue's own price."""

    gpu: ModelGpuType
    gpu_count: int
    price: GpuPrice
    provider: str
    batch: int
    epochs: int
    learning_rate: float
    spec: TrainingSpec | None
    placement: Placement | None

    @property
    def forecast_key(self) -> tuple[object, ...]:
        """Everything that a forecast depends on. The learning rate, alpha and dropout change neither time nor memory."""
        return self.gpu.type, self.gpu_count, self.provider, self.spec


def reference_run(gpu: GpuType, count: int, batch: int, epochs: int, dataset: Dataset) -> Run:
    """Returns the run of a reference estimate, which is at the catalogue's own price."""
    return Run(dataset.pairs, dataset.tokens, gpu.price_usd_per_hour, gpu.tokens_per_second, count, batch, epochs)

"""Computes estimates and the terms of quotes with one version of the catalogue."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service import wire
from estimator_service.catalogue.base_models import all_models
from estimator_service.catalogue.gpus import all_gpus
from estimator_service.catalogue.model import Catalogue, GpuType
from estimator_service.datasets.model import Dataset
from estimator_service.forecasts import requests
from estimator_service.forecasts import wire as forecast_wire
from estimator_service.forecasts.configuration import JobConfiguration, Placement, reference_run
from estimator_service.forecasts.plan import TrainingSpec
from estimator_service.forecasts.repairs import Forecaster, repairs
from estimator_service.forecasts.training_plan import forecast_plan, reference_plan
from estimator_service.forecasts.warnings import setting_warnings
from estimator_service.learning.corrections import Corrections
from estimator_service.quotes.terms import Terms, terms
from estimator_service.reference import Estimate, estimate

Value = TypeVar("Value")
# Entries of each cache. A page repeats a request when its user undoes a change.
CACHE_SIZE = 4096


class Estimator:
    """Estimates with one version of the catalogue. Each cached value is a pure function of its key."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        model = all_models()[catalogue.default_base_model]
        self._templates = {
            gpu.type: wire.reference_template(
                gpu, catalogue.version, reference_plan(model, all_gpus().get(gpu.type), 1, 1)
            )
            for gpu in catalogue.gpu_types
        }
        self._configurations: OrderedDict[Hashable, JobConfiguration] = OrderedDict()
        self._responses: OrderedDict[Hashable, pb.EstimateCostResponse] = OrderedDict()

    def configuration(self, request: requests.ConfiguredRequest) -> JobConfiguration:
        """Returns a request's configuration. Raises UnknownGpuType, UnknownBaseModel, UnknownProvider, ValidationFailed."""
        if not request.base_model:
            return requests.job_configuration(request, self.catalogue)
        key = request.SerializeToString()
        return _cached(self._configurations, key, lambda: requests.job_configuration(request, self.catalogue))

    def estimate(
        self, configuration: JobConfiguration, dataset: Dataset, corrections: Corrections
    ) -> pb.EstimateCostResponse:
        """Estimates a configuration. Raises DatasetTooLarge."""
        spec, placement = configuration.spec, configuration.placement
        if spec is None or placement is None:
            reference = self._reference(configuration, dataset)
            response = wire.reference_response(self._templates[configuration.gpu.type], reference, dataset)
            response.plan.batch_size = -(-configuration.batch // configuration.gpu_count)
            return response
        # All corrections are part of the key: repairs may have another GPU type or method than the configuration.
        key = configuration.forecast_key, dataset, *corrections.values()
        response = _cached(
            self._responses, key, lambda: self._forecast(configuration, spec, placement, dataset, corrections)
        )
        # The learning rate is not part of the key: it changes neither time nor memory.
        limits = self.catalogue.learning_rates
        if warnings := setting_warnings(spec, configuration.learning_rate, limits, dataset.longest):
            with_warnings = pb.EstimateCostResponse()
            with_warnings.CopyFrom(response)
            with_warnings.warnings.extend(forecast_wire.warning(each) for each in warnings)
            return with_warnings
        return response

    def terms(self, request: requests.ConfiguredRequest, configuration: JobConfiguration, dataset: Dataset) -> Terms:
        """Returns what the price of the request's configuration depends on."""
        values = requests.hyperparameters(request)
        return terms(configuration, values, request.dataset_id, dataset, self.catalogue.job_defaults)

    def _reference(self, configuration: JobConfiguration, dataset: Dataset) -> Estimate:
        assert isinstance(configuration.gpu, GpuType)
        run = reference_run(
            configuration.gpu, configuration.gpu_count, configuration.batch, configuration.epochs, dataset
        )
        return estimate(run, self.catalogue.reference)

    def _forecast(
        self,
        configuration: JobConfiguration,
        spec: TrainingSpec,
        placement: Placement,
        dataset: Dataset,
        corrections: Corrections,
    ) -> pb.EstimateCostResponse:
        forecaster = Forecaster(dataset, corrections, self.catalogue.job_defaults)
        job = forecaster.forecast(spec, placement)
        changes = []
        if job.forecast.verdict != "fits":
            others = [
                Placement(all_gpus()[entry.type], placement.number, entry.price_usd_per_hour)
                for entry in self.catalogue.by_type_for_models.values()
                if entry.type != placement.gpu.id
            ]
            changes = repairs(spec, placement, job, forecaster, others)
        reference = self._reference(configuration, dataset).total if isinstance(configuration.gpu, GpuType) else None
        response = forecast_wire.response(job, changes, dataset, configuration.price, self.catalogue.version, reference)
        response.plan.CopyFrom(forecast_plan(job.plan, spec.options, spec.batch))
        return response


def _cached(cache: OrderedDict[Hashable, Value], key: Hashable, make: Callable[[], Value]) -> Value:
    """Returns the cached value of a key, made on first use. The least recently used entry is dropped."""
    value = cache.get(key)
    if value is None:
        value = cache[key] = make()
        if len(cache) > CACHE_SIZE:
            cache.popitem(last=False)
    else:
        cache.move_to_end(key)
    return value

"""Estimates, comparisons and the terms of quotes from one version of the catalogue: messages in, messages out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service import wire, wire_comparison
from estimator_service.catalogue.catalogue import Catalogue, GpuType
from estimator_service.datasets.model import Dataset
from estimator_service.forecasts import wire as wire_forecast
from estimator_service.forecasts.comparison import Grid, compare
from estimator_service.forecasts.job_forecast import JobForecast, job_forecast
from estimator_service.forecasts.plan import JobDefaults, TrainingSpec, plan
from estimator_service.forecasts.repairs import Placement, repairs
from estimator_service.learning.corrections import Corrections, corrected
from estimator_service.physics.forecast import Point, fits
from estimator_service.quotes.terms import Configuration, Terms, reference_run, terms
from estimator_service.reference import Estimate, estimate

Value = TypeVar("Value")
# Configurations and answers that are remembered: a page asks the same again and again.
CACHE_SIZE = 4096


class Estimator:
    """What one version of the catalogue says. Everything it remembers is a pure function of its key."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._templates = {gpu.type: wire.reference_template(gpu, catalogue.version) for gpu in catalogue.gpu_types}
        self._configurations: OrderedDict[Hashable, Configuration] = OrderedDict()
        self._answers: OrderedDict[Hashable, pb.EstimateCostResponse] = OrderedDict()

    def configuration(self, request: wire.Configured) -> Configuration:
        """What a request is about. Raises UnknownGpuType, UnknownBaseModel, UnknownProvider, ValidationFailed."""
        if not request.base_model:
            return wire.configuration(request, self.catalogue)
        key = wire.configuration_key(request)
        return _remembered(self._configurations, key, lambda: wire.configuration(request, self.catalogue))

    def answer(
        self, configuration: Configuration, dataset: Dataset, corrections: Corrections
    ) -> pb.EstimateCostResponse:
        """The estimate of a configuration. Raises DatasetTooLarge."""
        spec, placement = configuration.spec, configuration.placement
        if spec is None or placement is None:
            found = self._reference(configuration, dataset)
            return wire.answer(self._templates[configuration.gpu.type], found, dataset)
        # Repairs may be of another kind than the configuration: all that was taught counts.
        key = configuration.what_counts, dataset, *corrections.values()
        return _remembered(
            self._answers, key, lambda: self._forecast(configuration, spec, placement, dataset, corrections)
        )

    def grid(self, request: pb.CompareConfigurationsRequest) -> Grid:
        """What a comparison is about. Raises what `configuration` does, and TooManyPoints."""
        return wire_comparison.grid(request, self.catalogue)

    def compare(
        self, request: pb.CompareConfigurationsRequest, grid: Grid, dataset: Dataset, corrections: Corrections
    ) -> pb.CompareConfigurationsResponse:
        """Every point of a comparison. Raises DatasetTooLarge."""
        compared = compare(grid, dataset, corrections, self.catalogue)
        return wire_comparison.answer(request, grid, compared, dataset, self.version)

    def terms(self, request: wire.Configured, configuration: Configuration, dataset: Dataset) -> Terms:
        """What a price of the request's configuration is promised on."""
        how = wire.hyperparameters(request)
        return terms(configuration, how, request.dataset_id, dataset, self.catalogue.job_defaults)

    @property
    def version(self) -> str:
        """Version of the catalogue."""
        return self.catalogue.version

    def _reference(self, configuration: Configuration, dataset: Dataset) -> Estimate:
        assert isinstance(configuration.gpu, GpuType)
        run = reference_run(
            configuration.gpu, configuration.gpu_count, configuration.batch, configuration.epochs, dataset
        )
        return estimate(run, self.catalogue.assumptions)

    def _forecast(
        self,
        configuration: Configuration,
        spec: TrainingSpec,
        placement: Placement,
        dataset: Dataset,
        corrections: Corrections,
    ) -> pb.EstimateCostResponse:
        forecaster = _Forecaster(dataset, corrections, self.catalogue.job_defaults)
        job = forecaster.forecast(spec, placement)
        found = []
        if job.forecast.verdict != "fits":
            others = [
                Placement(gpu, placement.number, entry.price_usd_per_hour)
                for gpu, entry in wire.gpus_for_models(self.catalogue)
                if gpu.id != placement.gpu.id
            ]
            found = repairs(spec, placement, job, forecaster, others)
        return wire_forecast.answer(job, found, dataset, configuration.price, self.version)


class _Forecaster(NamedTuple):
    """Forecasts of jobs on one dataset."""

    dataset: Dataset
    corrections: Corrections
    defaults: JobDefaults

    def fits(self, spec: TrainingSpec, placement: Placement) -> bool:
        planned = plan(spec, placement.gpu, self.dataset, self.defaults)
        return fits(corrected(Point(planned.workload, placement.gpu, placement.number), self.corrections))

    def forecast(self, spec: TrainingSpec, placement: Placement) -> JobForecast:
        planned = plan(spec, placement.gpu, self.dataset, self.defaults)
        point = corrected(Point(planned.workload, placement.gpu, placement.number), self.corrections)
        return job_forecast(planned, point, placement.price, self.defaults)


def _remembered(kept: OrderedDict[Hashable, Value], key: Hashable, make: Callable[[], Value]) -> Value:
    """What was made of a key before, or is made now; the least used is forgotten."""
    found = kept.get(key)
    if found is None:
        found = kept[key] = make()
        if len(kept) > CACHE_SIZE:
            kept.popitem(last=False)
    else:
        kept.move_to_end(key)
    return found

"""Estimates, comparisons and the terms of quotes from one version of the catalogue: messages in, messages out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service import wire, wire_comparison, wire_forecast
from estimator_service.catalogue import Catalogue, GpuType
from estimator_service.comparison import Grid, compare
from estimator_service.cost import Estimate, estimate
from estimator_service.dataset import Dataset
from estimator_service.forecast import Point, fits
from estimator_service.lesson import Taught, taught
from estimator_service.outlook import JobForecast, job_forecast
from estimator_service.plan import JobDefaults, Wanted, plan
from estimator_service.repairs import Place, repairs
from estimator_service.subject import Subject, Terms, reference_run, terms
from estimator_service.wire_forecast import gpu_price

Value = TypeVar("Value")
# Configurations and answers that are remembered: a page asks the same again and again.
CACHE_SIZE = 4096


class Desk:
    """What one version of the catalogue says. Everything it remembers is a pure function of its key."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._prices = {gpu.type: gpu_price(gpu) for gpu in catalogue.gpu_types}
        self._subjects: OrderedDict[Hashable, Subject] = OrderedDict()
        self._answers: OrderedDict[Hashable, pb.EstimateCostResponse] = OrderedDict()

    def subject(self, request: wire.Configured) -> Subject:
        """What a request is about. Raises UnknownGpuType, UnknownBaseModel, UnknownProvider, ValidationFailed."""
        if not request.base_model:
            return wire.subject(request, self.catalogue)
        key = wire.configuration_key(request)
        return _remembered(self._subjects, key, lambda: wire.subject(request, self.catalogue))

    def answer(self, subject: Subject, dataset: Dataset, lessons: Taught) -> pb.EstimateCostResponse:
        """The estimate of a subject. Raises DatasetTooLarge."""
        wanted, place = subject.wanted, subject.place
        if wanted is None or place is None:
            found = self._reference(subject, dataset)
            return wire.answer(found, dataset, self._prices[subject.gpu.type], self.version)
        # Repairs may be of another kind than the subject: all that was taught counts.
        key = subject.what_counts, dataset, *lessons.values()
        return _remembered(self._answers, key, lambda: self._forecast(subject, wanted, place, dataset, lessons))

    def grid(self, request: pb.CompareConfigurationsRequest) -> Grid:
        """What a comparison is about. Raises what `subject` does, and TooManyPoints."""
        return wire_comparison.grid(request, self.catalogue)

    def compare(
        self, request: pb.CompareConfigurationsRequest, grid: Grid, dataset: Dataset, lessons: Taught
    ) -> pb.CompareConfigurationsResponse:
        """Every point of a comparison. Raises DatasetTooLarge."""
        compared = compare(grid, dataset, lessons, self.catalogue)
        return wire_comparison.answer(request, grid, compared, dataset, self.version)

    def terms(self, request: wire.Configured, subject: Subject, dataset: Dataset) -> Terms:
        """What a price of the request's subject is promised on."""
        how = wire.hyperparameters(request)
        return terms(subject, how, request.dataset_id, dataset, self.catalogue.job_defaults)

    @property
    def version(self) -> str:
        """Version of the catalogue."""
        return self.catalogue.version

    def _reference(self, subject: Subject, dataset: Dataset) -> Estimate:
        assert isinstance(subject.gpu, GpuType)
        run = reference_run(subject.gpu, subject.gpu_count, subject.batch, subject.epochs, dataset)
        return estimate(run, self.catalogue.assumptions)

    def _forecast(
        self, subject: Subject, wanted: Wanted, place: Place, dataset: Dataset, lessons: Taught
    ) -> pb.EstimateCostResponse:
        forecaster = _Forecaster(dataset, lessons, self.catalogue.job_defaults)
        job = forecaster.forecast(wanted, place)
        found = []
        if job.forecast.verdict != "fits":
            others = [
                Place(gpu, place.number, entry.price_usd_per_hour)
                for gpu, entry in wire.gpus_for_models(self.catalogue)
                if gpu.id != place.gpu.id
            ]
            found = repairs(wanted, place, job, forecaster, others)
        return wire_forecast.answer(job, found, dataset, subject.price, self.version)


class _Forecaster(NamedTuple):
    """Forecasts of jobs on one dataset."""

    dataset: Dataset
    lessons: Taught
    defaults: JobDefaults

    def fits(self, wanted: Wanted, place: Place) -> bool:
        planned = plan(wanted, place.gpu, self.dataset, self.defaults)
        return fits(taught(Point(planned.workload, place.gpu, place.number), self.lessons))

    def forecast(self, wanted: Wanted, place: Place) -> JobForecast:
        planned = plan(wanted, place.gpu, self.dataset, self.defaults)
        point = taught(Point(planned.workload, place.gpu, place.number), self.lessons)
        return job_forecast(planned, point, place.price, self.defaults)


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

"""The RPCs of EstimatorService. `forecasts/requests.py` reads a request, `estimator.py` estimates it."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import Path

import structlog
from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue import wire as catalogue_wire
from estimator_service.catalogue.model import CatalogueError, read_catalogue
from estimator_service.datasets.model import Dataset
from estimator_service.datasets.store import Datasets
from estimator_service.errors import NotQuotable
from estimator_service.estimator import Estimator
from estimator_service.forecasts import comparison_wire
from estimator_service.forecasts.comparison import compare
from estimator_service.learning import wire as learning_wire
from estimator_service.learning.corrections import Corrections
from estimator_service.learning.finished_jobs import MIN_USERS, FinishedJobs
from estimator_service.quotes import wire as quote_wire
from estimator_service.quotes.store import Quotes
from rpc.boundary import Call
from rpc.telemetry.metrics import Metrics

log = structlog.get_logger()


class EstimatorService:
    """Estimates the cost and time of training jobs. Raises CatalogueError if the catalogue file is not valid."""

    def __init__(
        self,
        catalogue_file: Path,
        datasets: Datasets,
        quotes: Quotes,
        finished: FinishedJobs,
        metrics: Metrics,
    ) -> None:
        self._file = catalogue_file
        self._datasets = datasets
        self._quotes = quotes
        self._finished = finished
        catalogue = read_catalogue(catalogue_file)
        self._estimator, self._catalogue_response = Estimator(catalogue), catalogue_wire.catalogue(catalogue)
        metrics.watch(
            "pipeline_catalogue_price_age_seconds",
            "Time since the day on which the oldest price was read.",
            lambda: time.time() - _midnight(self._estimator.catalogue.oldest_price_date),
        )
        estimates = metrics.counter("pipeline_estimates_total", "Estimates, by kind.", ["kind"])
        self._references, self._forecasts = estimates.labels("reference"), estimates.labels("forecast")
        self._comparisons, self._quoted = estimates.labels("comparison"), estimates.labels("quote")

    def reload(self) -> None:
        """Reads the catalogue file again. If it is not valid, an error is logged and the previous catalogue is kept."""
        try:
            catalogue = read_catalogue(self._file)
            self._estimator, self._catalogue_response = Estimator(catalogue), catalogue_wire.catalogue(catalogue)
            log.info("catalogue_reloaded", version=catalogue.version)
        except CatalogueError as error:
            log.error("catalogue_kept", version=self._estimator.catalogue.version, error=str(error))

    async def EstimateCost(self, request: pb.EstimateCostRequest, call: Call) -> pb.EstimateCostResponse:
        estimator = self._estimator
        configuration = estimator.configuration(request)
        dataset, corrections = await self._inputs(request, call)
        response = estimator.estimate(configuration, dataset, corrections)
        (self._forecasts if request.base_model else self._references).inc()
        if not request.quote_id:
            return response
        quote = await self._quotes.get(call.identity, request.quote_id)
        quote.check(estimator.terms(request, configuration, dataset), response.estimated_cost)
        return quote_wire.quoted_response(quote)

    async def GetCatalogue(self, request: pb.GetCatalogueRequest, call: Call) -> pb.GetCatalogueResponse:
        return self._catalogue_response

    async def CompareConfigurations(
        self, request: pb.CompareConfigurationsRequest, call: Call
    ) -> pb.CompareConfigurationsResponse:
        catalogue = self._estimator.catalogue
        grid = comparison_wire.grid(request, catalogue)
        dataset, corrections = await self._inputs(request, call)
        comparison = compare(grid, dataset, corrections, catalogue)
        self._comparisons.inc()
        return comparison_wire.response(request, grid, comparison, dataset, catalogue.version)

    async def CreateQuote(self, request: pb.CreateQuoteRequest, call: Call) -> pb.CreateQuoteResponse:
        estimator = self._estimator
        configuration = estimator.configuration(request)
        dataset, corrections = await self._inputs(request, call)
        response = estimator.estimate(configuration, dataset, corrections)
        if response.HasField("forecast") and not response.forecast.is_quote:
            raise NotQuotable(details=response.forecast.note)
        quote = await self._quotes.create(
            call.identity,
            request.dataset_id,
            estimator.terms(request, configuration, dataset),
            estimator.catalogue.version,
            quote_wire.costs(response),
            (request.SerializeToString(), response.SerializeToString()),
            estimator.catalogue.quotes,
        )
        self._quoted.inc()
        return pb.CreateQuoteResponse(quote=quote_wire.quote(quote))

    async def GetQuote(self, request: pb.GetQuoteRequest, call: Call) -> pb.GetQuoteResponse:
        return pb.GetQuoteResponse(quote=quote_wire.quote(await self._quotes.get(call.identity, request.id)))

    async def GetEstimateAccuracy(
        self, request: pb.GetEstimateAccuracyRequest, call: Call
    ) -> pb.GetEstimateAccuracyResponse:
        return learning_wire.accuracy(await self._finished.accuracy(), MIN_USERS)

    async def _inputs(
        self, request: pb.EstimateCostRequest | pb.CreateQuoteRequest | pb.CompareConfigurationsRequest, call: Call
    ) -> tuple[Dataset, Corrections]:
        """Returns the dataset with its validation dataset, and the corrections from finished jobs if a base model is named."""
        dataset = await self._datasets.get(call.identity, request.dataset_id)
        if validation_id := request.training.validation_dataset_id:
            field = "training.validation_dataset_id"
            dataset = dataset.with_validation(await self._datasets.get(call.identity, validation_id, field))
        return dataset, await self._finished.corrections(call.identity) if request.base_model else {}


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()

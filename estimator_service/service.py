"""EstimatorService: a few lines for each RPC."""

from __future__ import annotations

from pathlib import Path

import structlog
from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service import wire
from estimator_service.catalogue.catalogue import CatalogueError, read_catalogue
from estimator_service.datasets.model import Dataset
from estimator_service.datasets.store import Datasets
from estimator_service.errors import NotQuotable
from estimator_service.estimator import Estimator
from estimator_service.learning.corrections import Corrections
from estimator_service.learning.finished_jobs import LEAST_USERS, FinishedJobs
from estimator_service.quotes import wire as wire_quote
from estimator_service.quotes.store import Quotes
from rpc.boundary import Call

log = structlog.get_logger()


class EstimatorService:
    """Says what a training job will cost and how long it will take. Raises CatalogueError where its file is no good."""

    def __init__(self, catalogue_file: Path, datasets: Datasets, quotes: Quotes, finished: FinishedJobs) -> None:
        self._file = catalogue_file
        self._datasets = datasets
        self._quotes = quotes
        self._finished = finished
        catalogue = read_catalogue(catalogue_file)
        self._estimator, self._shown = Estimator(catalogue), wire.catalogue(catalogue)

    def reload(self) -> None:
        """Reads the catalogue file again; a bad one changes nothing but the log."""
        try:
            catalogue = read_catalogue(self._file)
            self._estimator, self._shown = Estimator(catalogue), wire.catalogue(catalogue)
            log.info("catalogue_reloaded", version=catalogue.version)
        except CatalogueError as error:
            log.error("catalogue_kept", version=self._estimator.version, error=str(error))

    async def EstimateCost(self, request: pb.EstimateCostRequest, call: Call) -> pb.EstimateCostResponse:
        estimator = self._estimator
        configuration = estimator.configuration(request)
        dataset, corrections = await self._known(request, call)
        answer = estimator.answer(configuration, dataset, corrections)
        if not request.quote_id:
            return answer
        quote = await self._quotes.get(call.identity, request.quote_id)
        quote.hold(estimator.terms(request, configuration, dataset), answer.estimated_cost)
        return wire_quote.held(quote)

    async def GetCatalogue(self, request: pb.GetCatalogueRequest, call: Call) -> pb.GetCatalogueResponse:
        return self._shown

    async def CompareConfigurations(
        self, request: pb.CompareConfigurationsRequest, call: Call
    ) -> pb.CompareConfigurationsResponse:
        estimator = self._estimator
        grid = estimator.grid(request)
        dataset, corrections = await self._known(request, call)
        return estimator.compare(request, grid, dataset, corrections)

    async def CreateQuote(self, request: pb.CreateQuoteRequest, call: Call) -> pb.CreateQuoteResponse:
        estimator = self._estimator
        configuration = estimator.configuration(request)
        dataset, corrections = await self._known(request, call)
        answer = estimator.answer(configuration, dataset, corrections)
        if answer.HasField("forecast") and not answer.forecast.is_quote:
            raise NotQuotable(answer.forecast.note)
        quote = await self._quotes.create(
            call.identity,
            request.dataset_id,
            estimator.terms(request, configuration, dataset),
            estimator.version,
            wire_quote.costs(answer),
            (request.SerializeToString(), answer.SerializeToString()),
            estimator.catalogue.quotes,
        )
        return pb.CreateQuoteResponse(quote=wire_quote.quote(quote))

    async def GetQuote(self, request: pb.GetQuoteRequest, call: Call) -> pb.GetQuoteResponse:
        return pb.GetQuoteResponse(quote=wire_quote.quote(await self._quotes.get(call.identity, request.id)))

    async def GetEstimateAccuracy(
        self, request: pb.GetEstimateAccuracyRequest, call: Call
    ) -> pb.GetEstimateAccuracyResponse:
        return wire_quote.accuracy(await self._finished.accuracy(), LEAST_USERS)

    async def _known(
        self, request: pb.EstimateCostRequest | pb.CreateQuoteRequest | pb.CompareConfigurationsRequest, call: Call
    ) -> tuple[Dataset, Corrections]:
        """The dataset, and what finished jobs teach where a base model is named."""
        dataset = await self._datasets.get(call.identity, request.dataset_id)
        return dataset, await self._finished.corrections(call.identity) if request.base_model else {}

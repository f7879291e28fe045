"""EstimatorService: a few lines for each RPC."""

from __future__ import annotations

from pathlib import Path

import structlog
from pipeline.estimator.v1 import estimator_pb2

from estimator_service import wire
from estimator_service.catalogue import CatalogueError, read_catalogue
from estimator_service.cost import estimate
from estimator_service.datasets import Datasets
from rpc.boundary import Call

log = structlog.get_logger()


class EstimatorService:
    """Says what a training job will cost and how long it will take. Raises CatalogueError where its file is no good."""

    def __init__(self, catalogue_file: Path, datasets: Datasets) -> None:
        self._file = catalogue_file
        self._datasets = datasets
        self._catalogue = read_catalogue(catalogue_file)
        self._shown = wire.catalogue(self._catalogue)

    def reload(self) -> None:
        """Reads the catalogue file again; a bad one changes nothing but the log."""
        try:
            catalogue = read_catalogue(self._file)
            self._catalogue, self._shown = catalogue, wire.catalogue(catalogue)
            log.info("catalogue_reloaded", version=self._catalogue.version)
        except CatalogueError as error:
            log.error("catalogue_kept", version=self._catalogue.version, error=str(error))

    async def EstimateCost(
        self, request: estimator_pb2.EstimateCostRequest, call: Call
    ) -> estimator_pb2.EstimateCostResponse:
        catalogue = self._catalogue
        gpu = wire.gpu_type(request.gpu_config, catalogue)
        dataset = await self._datasets.get(call.identity, request.dataset_id)
        return wire.answer(estimate(wire.run(request, gpu, dataset), catalogue.assumptions), dataset)

    async def GetCatalogue(
        self, request: estimator_pb2.GetCatalogueRequest, call: Call
    ) -> estimator_pb2.GetCatalogueResponse:
        return self._shown

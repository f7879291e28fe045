"""Runs the Estimator: `python -m estimator_service [--workers N]`. Its commands are `fit`, `evaluate` and `lessons`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from importlib import import_module

from pipeline.estimator.v1 import estimator_pb2

from estimator_service.datasets.store import Datasets
from estimator_service.learning.finished_jobs import FinishedJobs
from estimator_service.quotes.store import Quotes
from estimator_service.service import EstimatorService
from estimator_service.settings import EstimatorSettings
from rpc.boundary import Boundary
from rpc.database.pool import Database
from rpc.identity.tokens import open_verifier
from rpc.process.lifetime import until_stopped
from rpc.process.settings import load
from rpc.process.workers import run_server
from rpc.server.grpc_server import Services, grpc_server
from rpc.telemetry.exporters import open_telemetry
from rpc.telemetry.metrics import Metrics

# `evaluate` and `fit` are for developers of the model, `lessons` is for operators.
COMMANDS = {
    "evaluate": "estimator_service.calibration.evaluate",
    "fit": "estimator_service.calibration.fit",
    "lessons": "estimator_service.learning.lessons",
}


def services(settings: EstimatorSettings, database: Database, metrics: Metrics) -> Services:
    """Returns the services of this process. SIGHUP reads the catalogue again. Raises CatalogueError."""
    servicer = EstimatorService(
        settings.catalogue_file, Datasets(database), Quotes(database), FinishedJobs(database), metrics
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, servicer.reload)
    return {estimator_pb2.DESCRIPTOR.services_by_name["EstimatorService"]: servicer}


async def serve(settings: EstimatorSettings, *, share_port: bool) -> None:
    """Serves until SIGTERM."""
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(open_telemetry(settings, "estimator"))
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(Database.open(url, size=settings.database_pool_size))
        verifier = await stack.enter_async_context(open_verifier(settings, database.is_disabled, database.find_api_key))
        served = services(settings, database, telemetry.metrics)
        boundary = Boundary(settings, verifier, telemetry)
        _, report = await stack.enter_async_context(
            grpc_server(served, boundary, settings, port=settings.estimator_port, share_port=share_port)
        )
        database.watch_pool(telemetry.metrics)
        verifier.watch_caches(telemetry.metrics)
        boundary.watch_limits("estimator")
        await until_stopped(asyncio.create_task(database.watch(report), name="watch-database"))


def main() -> int:
    """Returns the exit code: 2 for a fault that only the operator can repair."""
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        # Imported only here: fitting needs scipy, which a server does not have.
        return int(import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:]))
    arguments = argparse.ArgumentParser(prog="python -m estimator_service", description=__doc__)
    arguments.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the port")
    chosen = arguments.parse_args()
    return run_server("estimator_service", serve, load(EstimatorSettings), chosen.workers)


if __name__ == "__main__":
    sys.exit(main())

"""`pipeline trainer`: a trainer beside the stack on this machine, with tokens of its development issuer."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Callable

from deploy.local.processes import SetupError
from deploy.local.running import Issuer, Running
from deploy.settings import CatalogueSettings
from estimator_service.catalogue.model import CatalogueError, read_catalogue
from rpc.process.settings import load
from trainer.__main__ import run as run_trainer
from trainer.client import TrainerError

# Long enough for a slow call, short enough to be of little use if it leaks.
TOKEN_SECONDS = 300


def run(arguments: argparse.Namespace, running: Running | None, issuer: Callable[[], Issuer]) -> None:
    """Runs the trainer that the command line describes, until SIGINT or SIGTERM. Raises SetupError."""
    identity = str(uuid.uuid4())

    def token() -> str:
        return issuer().open().token(identity, role="worker", seconds=TOKEN_SECONDS)

    try:
        catalogue = read_catalogue(load(CatalogueSettings).catalogue_file)
        has_token = arguments.token_file is not None or arguments.demo_model is not None
        if not has_token:
            issuer()
        run_trainer(
            arguments,
            address=running.jobs if running is not None else "",
            token=None if has_token else token,
            known_types=catalogue.by_type,
        )
    except (TrainerError, CatalogueError) as error:
        raise SetupError(str(error)) from error

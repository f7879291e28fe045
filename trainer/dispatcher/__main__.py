"""Runs a dispatcher: `pipeline dispatcher --kubernetes`, or `--ray http://HOST:8265`."""

from __future__ import annotations

import argparse
import signal
from contextlib import ExitStack, closing
from pathlib import Path

import structlog

from rpc.process.logs import setup_logs
from rpc.process.settings import load
from rpc.process.tls import channel_credentials
from rpc.telemetry.exporters import Telemetry, serve_metrics
from trainer.client import Token, Trainer, TrainerError
from trainer.client.connection import Connection
from trainer.dispatcher.engine import Engine
from trainer.dispatcher.loop import Dispatcher
from trainer.dispatcher.metrics import DispatcherMetrics
from trainer.settings import DispatcherSettings

log = structlog.get_logger()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command-line options of a dispatcher."""
    engine = parser.add_mutually_exclusive_group(required=True)
    engine.add_argument("--kubernetes", action="store_true", help="run each job as a TrainJob of Kubeflow Trainer")
    engine.add_argument("--ray", metavar="URL", help="run each job on the Ray cluster with this dashboard")
    parser.add_argument("--address", help="where the Jobs service listens: HOST:PORT")
    parser.add_argument(
        "--token-file", type=Path, help="file with a token of the role worker, read again for each call"
    )


def run(arguments: argparse.Namespace) -> None:
    """Dispatches until SIGINT or SIGTERM. Raises TrainerError, with one line for the operator."""
    settings = load(DispatcherSettings)
    address = arguments.address or settings.jobs_address
    token: Token | None = arguments.token_file or settings.token
    if not address or token is None:
        raise TrainerError("set the address of the Jobs service (--address HOST:PORT) and a token (--token-file FILE)")
    setup_logs(settings.log_level, settings.log_format)
    telemetry = Telemetry()
    credentials = channel_credentials(settings)
    connection = Connection(address, token, credentials)
    trainer = Trainer(address, token, gpus={}, name=settings.trainer_name or _name(arguments), credentials=credentials)
    engine = _engine(arguments, settings)
    with trainer, closing(engine), closing(connection), ExitStack() as stack:
        stack.callback(serve_metrics(settings, telemetry))
        dispatcher = Dispatcher(
            trainer,
            connection,
            engine,
            DispatcherMetrics(telemetry.metrics),
            poll_seconds=settings.dispatcher_poll_seconds,
            start_seconds=settings.dispatcher_start_seconds,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: dispatcher.stop())
        log.info("dispatcher_started", engine=_name(arguments), service=address)
        dispatcher.run()


def _engine(arguments: argparse.Namespace, settings: DispatcherSettings) -> Engine:
    # Imported here: each engine's client is an extra of its own.
    if arguments.ray:
        from trainer.dispatcher.ray import RayEngine

        return RayEngine(arguments.ray, settings)
    try:
        from trainer.dispatcher.kubernetes import KubernetesEngine, connect
    except ImportError:
        raise TrainerError("--kubernetes needs its client: pip install 'pipeline-lora[kubernetes]'") from None
    client, namespace = connect()
    return KubernetesEngine(client, settings.kubernetes_namespace or namespace, settings)


def _name(arguments: argparse.Namespace) -> str:
    return "ray" if arguments.ray else "kubernetes"

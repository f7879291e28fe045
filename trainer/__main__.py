"""Runs a trainer: `python -m trainer`, or `pipeline trainer` beside a stack on this machine."""

from __future__ import annotations

import argparse
import math
import shlex
import signal
import socket
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from google.protobuf import json_format
from pipeline.workers.v1 import workers_pb2

from rpc.process.settings import load
from rpc.process.tls import channel_credentials
from trainer.client import Token, Trainer, TrainerError
from trainer.console import open_display
from trainer.dispatcher.engine import read_lease
from trainer.settings import LEASE_VARIABLE, NodeSettings, TrainerSettings
from trainer.simulate import NAME as SIMULATED
from trainer.simulate import STALL_SECONDS, Simulation, SimulationOptions
from trainer.supervisor import gpus as gpu_types
from trainer.supervisor.supervisor import Supervisor

# Most GPUs of one job.
GPUS_PER_JOB = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command-line options of a trainer."""
    parser.add_argument(
        "--gpus",
        type=_gpus,
        action="append",
        metavar="TYPE=N",
        help="GPUs to offer: A100-80GB=2; default: the GPUs of this machine",
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="folder with base models, named as the catalogue does"
    )
    parser.add_argument("--download", action="store_true", help="download base models from the Hugging Face hub")
    parser.add_argument("--once", action="store_true", help="end after one job")
    parser.add_argument("--demo-model", type=Path, metavar="DIR", help="only make the base model demo-tiny in DIR")
    parser.add_argument("--address", help="where the Jobs service listens: HOST:PORT")
    parser.add_argument(
        "--token-file", type=Path, help="file with a token of the role worker, read again for each call"
    )
    simulated = parser.add_argument_group("a simulated trainer")
    simulated.add_argument("--simulate", action="store_true", help="train nothing, and report made-up curves")
    simulated.add_argument(
        "--speed", type=_positive, metavar="N", help="N times faster than estimated; default: one minute for each job"
    )
    simulated.add_argument(
        "--jobs", type=int, choices=range(1, 65), default=4, metavar="N", help="jobs at once, 1 to 64"
    )
    simulated.add_argument("--slow", type=_positive, default=1.0, metavar="N", help="take N times as long")
    faults = {
        "crash": "kill the process",
        "hang": "stop reporting",
        "fail": "end with an error",
        "lie": "report random steps",
    }
    for name, effect in faults.items():
        simulated.add_argument(
            f"--{name}", type=_share, default=0.0, metavar="SHARE", help=f"share of jobs, 0 to 1, to {effect} in"
        )
    simulated.add_argument("--seed", type=int, default=0, help="seed for the random choice of these jobs")


def run(
    arguments: argparse.Namespace, *, address: str = "", token: Token | None = None, known_types: Iterable[str] = ()
) -> None:
    """Trains until SIGINT or SIGTERM. Raises TrainerError, with one line for the operator.

    `address` and `token` are used if neither the command line nor the environment has any. `known_types`: GPU types of the
    catalogue; empty without a catalogue, and then no type is refused.
    """
    settings = load(TrainerSettings)
    settings = settings.model_copy(
        update={
            "trainer_download": arguments.download or settings.trainer_download,
            "models_dir": arguments.models or settings.models_dir,
        }
    )
    if arguments.demo_model is not None:
        _make_demo_model(arguments.demo_model)
        return
    address = arguments.address or settings.jobs_address or address
    token = arguments.token_file or settings.token or token
    if not address or token is None:
        raise TrainerError("set the address of the Jobs service (--address HOST:PORT) and a token (--token-file FILE)")
    if arguments.simulate:
        _simulate(arguments, settings, address, token, known_types)
    else:
        _train(arguments, settings, address, token, frozenset(known_types))


def _train(
    arguments: argparse.Namespace, settings: TrainerSettings, address: str, token: Token, known_types: frozenset[str]
) -> None:
    if not settings.trainer_command:
        _require_torch()
    elif which(program := shlex.split(settings.trainer_command)[0]) is None:
        raise TrainerError(f"there is no program {program} here: correct PIPELINE_TRAINER_COMMAND")
    lease = _lease(settings)
    offered = dict(arguments.gpus or ()) if lease is None else {lease.gpu_config.type: lease.gpu_config.count}
    if not offered:
        offered, unknown = gpu_types.detect()
        for name in unknown:
            print(f"this machine's {name} is not offered: the catalogue has no such type", file=sys.stderr)  # noqa: T201
    gpu_types.check(offered, known_types)
    trainer = Trainer(
        address,
        token,
        gpus=offered,
        name=settings.trainer_name or socket.gethostname()[:100],
        transfer_seconds=settings.trainer_transfer_seconds,
        credentials=channel_credentials(settings),
    )
    node = load(NodeSettings)
    with trainer, open_display("") as show:
        # Each node of a job with several gets the same lease.
        supervisor = Supervisor(trainer, settings, show, nodes=1 if lease is None else node.nnodes)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: supervisor.stop())
        if lease is None:
            supervisor.run(once=arguments.once)
        elif node.node_rank == 0:
            supervisor.run_one(trainer.resume(lease))
        else:
            supervisor.assist(trainer.resume(lease))


def _lease(settings: TrainerSettings) -> workers_pb2.Lease | None:
    if settings.trainer_lease is None:
        return None
    try:
        return read_lease(settings.trainer_lease.get_secret_value())
    except json_format.ParseError:
        # The message omits the value, which contains the lease's token.
        raise TrainerError(f"{LEASE_VARIABLE} is malformed: it must be the JSON that a dispatcher writes") from None


def _simulate(
    arguments: argparse.Namespace, settings: TrainerSettings, address: str, token: Token, known_types: Iterable[str]
) -> None:
    options = SimulationOptions(**{name: getattr(arguments, name) for name in SimulationOptions.__slots__})
    trainer = Trainer(
        address,
        token,
        name=settings.trainer_name or SIMULATED,
        gpus=dict(arguments.gpus or ()) or dict.fromkeys(known_types, GPUS_PER_JOB * options.jobs),
        stall_seconds=STALL_SECONDS,
        simulated=True,
        credentials=channel_credentials(settings),
    )
    with trainer, open_display(SIMULATED) as show:
        simulation = Simulation(trainer, options, show)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: simulation.stop())
        simulation.run()


def _make_demo_model(folder: Path) -> None:
    _require_torch()
    from trainer.demo_model import make

    print(make(folder))  # noqa: T201 - the command's output


def _require_torch() -> None:
    if find_spec("torch") is None or find_spec("trl") is None:
        raise TrainerError("training needs PyTorch, transformers, TRL and PEFT: pip install 'pipeline-lora[train]'")


def _gpus(text: str) -> tuple[str, int]:
    try:
        return gpu_types.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not TYPE=N, such as A100-80GB=2") from None


def _positive(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise ValueError
    return float(text)


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise ValueError
    return float(text)


def main() -> int:
    """Returns the exit code: 2 for an error that the operator has to fix."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    add_arguments(parser)
    try:
        run(parser.parse_args())
    except TrainerError as error:
        print(f"trainer: {error}", file=sys.stderr)  # noqa: T201 - one line for the operator
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

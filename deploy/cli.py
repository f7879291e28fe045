"""The `pipeline` command: runs the suite on one machine, makes tokens, imports datasets, runs trainers."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shlex
import sys
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from deploy.local.processes import SetupError
from deploy.local.running import Issuer, Running, get_json, read
from deploy.settings import DoctorSettings, LocalSettings, UpSettings, plain
from gateway.auth import DEMO_USER, SESSION_SECONDS
from rpc.errors import OperatorError
from rpc.process.logs import setup_logs
from rpc.process.settings import load
from trainer.__main__ import add_arguments
from trainer.client import TrainerError
from trainer.dispatcher.__main__ import add_arguments as add_dispatcher_arguments
from trainer.dispatcher.__main__ import run as run_dispatcher

if TYPE_CHECKING:
    from deploy.doctor import Finding

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_TTL_SECONDS = 30 * 86_400


def main() -> int:
    """Returns the exit code: 2 for an error that the caller has to fix."""
    parser = argparse.ArgumentParser(prog="pipeline", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="run PostgreSQL and all servers on this machine until Ctrl-C")
    serve = commands.add_parser("serve", help="run gateway and services in one process, the fastest on one machine")
    serve.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the ports")
    token = commands.add_parser("token", help="print a token of the development issuer")
    file = commands.add_parser("import", help="import a file as a dataset into the running stack")
    for command in (token, file):
        command.add_argument(
            "--user", type=uuid.UUID, default=uuid.UUID(DEMO_USER), help="user id; default: the demo user"
        )
    token.add_argument("--role", choices=["user", "worker"], default="user")
    token.add_argument("--ttl", type=_seconds, default="1h", metavar="TIME", help="lifetime: 30m, 1h, 7d")
    add_arguments(commands.add_parser("trainer", help="take jobs from the queue and train them, or simulate it"))
    add_dispatcher_arguments(commands.add_parser("dispatcher", help="run queued jobs on a Kubernetes or Ray cluster"))
    file.add_argument("file", type=Path)
    file.add_argument("--name", help="name of the dataset; default: the file's name")
    file.add_argument("--description")
    file.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="COLUMN:ROLE",
        help="role of a column with another name, such as Frage:user; once for each column",
    )
    file.add_argument("--address", help="address of the Jobs service; default: the running stack's")
    doctor = commands.add_parser("doctor", help="check database, storage, issuer, prices, certificates and trainers")
    doctor.add_argument("--json", action="store_true", help="print one JSON object a line")
    doctor.add_argument(
        "--repair", action="store_true", help="after a restore: remove orphaned files and end every lease"
    )
    runs = {
        "up": _up,
        "serve": _serve,
        "token": _token,
        "import": _import,
        "trainer": _trainer,
        "dispatcher": _dispatcher,
        "doctor": _doctor,
    }
    arguments = parser.parse_args()
    try:
        return runs[arguments.command](arguments)
    except SetupError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 2


def _up(_: argparse.Namespace) -> int:
    # Imported here: only this command needs the database's code.
    from deploy.local.up import up

    settings = load(UpSettings)
    # Progress is printed to the console; the servers write logs of their own.
    setup_logs("warning")
    console = Console(highlight=False, soft_wrap=True)
    asyncio.run(
        up(
            settings,
            lambda text: console.print(text, style="dim", markup=False),
            partial(_print_summary, console, settings.local_dir),
        )
    )
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    # Imported here: only this command needs the servers' code.
    from deploy.serve import serve

    return serve(arguments.workers)


def _token(arguments: argparse.Namespace) -> int:
    print(_issuer().open().token(str(arguments.user), role=arguments.role, seconds=arguments.ttl))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from deploy.importing import import_file

    address = _jobs_address(arguments)
    token = _issuer().open().token(str(arguments.user), seconds=3600)
    name = arguments.name or arguments.file.stem
    dataset = asyncio.run(
        import_file(address, token, arguments.file, name=name, description=arguments.description, mapping=arguments.map)
    )
    for error in dataset.validation_errors:
        print(f"{arguments.file}:{error.line}: {error.reason}", file=sys.stderr)
    if dataset.validation_error_count:
        raise SetupError(f"{arguments.file}: {dataset.validation_error_count} bad lines; the dataset is not ready")
    for warning in dataset.validation_warnings:
        lines = ", ".join(map(str, warning.lines))
        print(f"{arguments.file}: warning: {warning.message} (lines {lines}; {warning.count} in all)", file=sys.stderr)
    print(f"{dataset.id}  {dataset.total_training_pairs} pairs, {dataset.total_tokens} tokens")
    return 0


def _trainer(arguments: argparse.Namespace) -> int:
    from deploy.local.trainer import run

    run(arguments, read(load(LocalSettings).local_dir), _issuer)
    return 0


def _dispatcher(arguments: argparse.Namespace) -> int:
    try:
        run_dispatcher(arguments)
    except (TrainerError, OperatorError) as error:
        raise SetupError(str(error)) from error
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from deploy.doctor import examine

    settings = load(DoctorSettings)
    return asyncio.run(
        _print_findings(examine(settings, read(settings.local_dir), repair=arguments.repair), arguments.json)
    )


async def _print_findings(findings: AsyncIterator[Finding], as_json: bool) -> int:
    """Prints each finding as it comes. Returns 1 if one is an error, else 0."""
    console, code = Console(highlight=False, soft_wrap=True), 0
    styles = {"ok": "green", "warning": "yellow", "error": "bold red"}
    async for finding in findings:
        code |= finding.status == "error"
        if as_json:
            print(json.dumps(finding.fields()), flush=True)
            continue
        console.print(f"{finding.status:8}", style=styles[finding.status], end="")
        console.print(f"{finding.check}: {finding.message}", markup=False)
        if finding.remedy:
            console.print(f"        → {finding.remedy}", markup=False)
    return int(code)


def _jobs_address(arguments: argparse.Namespace) -> str:
    running = read(load(LocalSettings).local_dir)
    address = arguments.address or (running and running.jobs)
    if not address:
        raise SetupError("no stack is running: start one with `make up`, or pass --address HOST:PORT")
    return str(address)


def _issuer() -> Issuer:
    """Returns the development issuer of the environment, else of the running stack. Raises SetupError."""
    settings = load(LocalSettings)
    if settings.dev_issuer:
        secret = plain(settings.jwt_secret)
        if secret is not None:
            return Issuer(secret, settings.jwt_issuer, settings.jwt_audience)
    running = read(settings.local_dir)
    if running is None or running.issuer is None:
        raise SetupError(
            "the development issuer is off: start the stack with `make up`, "
            "or set PIPELINE_DEV_ISSUER=1 and PIPELINE_JWT_SECRET"
        )
    return running.issuer


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,7})([smhd])", text)
    if match is None or int(match[1]) * UNITS[match[2]] > MAX_TTL_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30m, 1h or 7d, at most 30d")
    return int(match[1]) * UNITS[match[2]]


def _print_summary(console: Console, folder: Path, running: Running, dataset: str | None) -> None:
    """Prints how to reach the running stack. Each command is on a line of its own, so that it can be pasted."""
    entries = {"Page": running.gateway}
    if running.issuer is not None and dataset is not None:
        token = running.issuer.open().token(seconds=SESSION_SECONDS)
        entries["Token of the demo user, valid for 12 hours"] = token
        entries["Estimate the cost of training on the demo dataset"] = _curl(running, token, dataset)
        entries["List the demo user's datasets over gRPC"] = _grpcurl(running, token)
    entries["Metrics"] = "\n".join(f"{name:10}{url}" for name, url in running.metrics.items())
    entries["Logs"] = f"{folder}/logs/"
    text = f"\nPipeline is running. Ctrl-C stops it; its data stays in {folder}/."
    console.print(text, style="bold green", markup=False)
    for title, text in entries.items():
        console.print(f"\n{title}", style="bold", markup=False)
        console.print(text, markup=False)


def _curl(running: Running, token: str, dataset: str) -> str:
    """Returns a curl command that estimates a job with the catalogue's default values."""
    catalogue = get_json(running.gateway, "/api/catalogue", token)[1]["data"]
    preset = next(each for each in catalogue["presets"] if each["id"] == catalogue["defaults"]["preset_id"])
    body = {
        "dataset_id": dataset,
        "gpu_config": catalogue["defaults"]["gpu_config"],
        "hyperparameters": {name: value for name, value in preset["hyperparameters"].items() if value is not None},
    }
    url = f"{running.gateway}/api/jobs/estimate"
    headers = (f"authorization: Bearer {token}", "content-type: application/json")
    return shlex.join(
        ["curl", "-sS", url, *(part for line in headers for part in ("-H", line)), "-d", json.dumps(body)]
    )


def _grpcurl(running: Running, token: str) -> str:
    path, directory = Path(sys.executable).with_name("grpcurl"), Path.cwd()
    program = (
        str(path.relative_to(directory) if path.is_relative_to(directory) else path) if path.exists() else "grpcurl"
    )
    call = "pipeline.datasets.v1.DatasetService/ListDatasets"
    return shlex.join([program, "-plaintext", "-H", f"authorization: Bearer {token}", "-d", "{}", running.jobs, call])


if __name__ == "__main__":
    sys.exit(main())

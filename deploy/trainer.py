"""Runs the simulated trainer as a process and shows what it does: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deploy.processes import SetupError
from deploy.running import Issuer
from deploy.settings import TrainerSettings
from estimator_service.catalogue.model import CatalogueError, read_catalogue
from rpc.process.settings import load
from trainer.client import Job, Trainer, TrainerError
from trainer.simulate import NAME, STALL_SECONDS, Habits, Show, Simulation

# Long enough for a bad connection, short enough to be of no use elsewhere.
TOKEN_SECONDS = 300
# The most that a job may ask for.
GPUS_A_JOB = 8


def run(address: str, issuer: Issuer, habits: Habits) -> None:
    """Trains, in a manner of speaking, until SIGINT or SIGTERM; its jobs go back to the queue then. Raises SetupError."""
    tokens, identity = issuer.open(), str(uuid.uuid4())
    try:
        catalogue = read_catalogue(load(TrainerSettings).catalogue_file)
    except CatalogueError as error:
        raise SetupError(str(error)) from error
    trainer = Trainer(
        address,
        lambda: tokens.token(identity, role="worker", seconds=TOKEN_SECONDS),
        name=NAME,
        gpus=dict.fromkeys(catalogue.by_type, GPUS_A_JOB * habits.jobs),
        stall_seconds=STALL_SECONDS,
    )
    with trainer, _shown() as show:
        simulation = Simulation(trainer, catalogue, habits, show)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: simulation.stop())
        try:
            simulation.run()
        except TrainerError as error:
            raise SetupError(f"the Jobs service at {address} says {error}") from error


@contextmanager
def _shown() -> Iterator[Show]:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield _tell
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:

        @lru_cache(maxsize=1000)
        def task(job: Job) -> TaskID:
            return progress.add_task(_title(job), total=job.total_steps)

        def show(job: Job, step: int, ended: str) -> None:
            if ended:
                progress.remove_task(task(job))
                console.print(f"{_title(job)}: {ended}")
            else:
                progress.update(task(job), completed=step)

        yield show


def _tell(job: Job, step: int, ended: str) -> None:
    if ended or not step:
        print(f"{_title(job)}: {ended or f'{job.total_steps} steps to go'}", flush=True)


def _title(job: Job) -> str:
    return f"{NAME} job {job.id}, attempt {job.attempt}"

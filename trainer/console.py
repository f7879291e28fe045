"""Prints the progress of jobs: a bar for each on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trainer.client import Job

# Called with a job, its completed steps, and its outcome: an empty string while it runs.
ShowProgress = Callable[[Job, int, str], None]


@contextmanager
def open_display(kind: str) -> Iterator[ShowProgress]:
    """Opens the display of jobs. `kind`: a word before each line, such as `simulated`; may be empty."""
    console = Console(highlight=False, soft_wrap=True)

    def title(job: Job) -> str:
        return f"{kind} job {job.id}, attempt {job.attempt}".strip()

    shown = set[str]()

    def show_line(job: Job, step: int, outcome: str) -> None:
        if outcome or job.lease.lease_token not in shown:
            shown.add(job.lease.lease_token)
            console.print(f"{title(job)}: {outcome or f'{job.total_steps} steps to go'}")

    if not console.is_terminal:
        yield show_line
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:

        @lru_cache(maxsize=1000)
        def bar(job: Job) -> TaskID:
            return progress.add_task(title(job), total=job.total_steps)

        def show_bar(job: Job, step: int, outcome: str) -> None:
            if outcome:
                progress.remove_task(bar(job))
                console.print(f"{title(job)}: {outcome}")
            else:
                progress.update(bar(job), completed=step)

        yield show_bar

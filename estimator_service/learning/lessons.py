"""Lists workers whose finished jobs correct forecasts, and excludes some.

`python -m estimator_service lessons [--withdraw ID --reason TEXT | --restore ID]`, for operators. Its database URL is an
administrator's, as for `python -m jobs_service migrate`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime

import asyncpg
from rich.console import Console
from rich.table import Table

from estimator_service.learning.finished_jobs import (
    MAX_JOBS_OF_USER,
    MAX_JOBS_OF_WORKER,
    CheckedJob,
    check_jobs,
    shared_lessons,
    weights,
)
from estimator_service.physics.parameters import fitted
from estimator_service.settings import LessonsSettings
from rpc.database.queries import load_queries
from rpc.process.database_url import DatabaseUrl
from rpc.process.settings import load

SQL = load_queries("estimator_service.learning", "queries.sql")
CONNECT_TIMEOUT_SECONDS = 10.0
WIDTH = 240  # characters of a line in a file or a pipe
COLUMNS = (
    "worker",
    "model family",
    "GPU type",
    "stack",
    "software",
    "jobs",
    "users",
    "most of one user",
    "actual ÷ forecast",
    "latest",
    "teach nothing",
    "share of everybody's forecast",
)


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 2 if the database is unreachable or refuses."""
    parser = argparse.ArgumentParser(prog="python -m estimator_service lessons", description=__doc__)
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--withdraw", type=uuid.UUID, metavar="ID", help="worker whose jobs must not correct forecasts")
    change.add_argument("--restore", type=uuid.UUID, metavar="ID", help="worker whose jobs may correct forecasts again")
    parser.add_argument("--reason", default="withdrawn by an operator", help="why, for the next operator")
    arguments = parser.parse_args(argv)
    # Without markup: the software that trainers report may have brackets.
    console = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False)
    try:
        rows = asyncio.run(_run(load(LessonsSettings), arguments))
    except (OSError, asyncpg.PostgresError) as error:
        console.print(f"lessons: {error}", style="red")
        return 2
    console.print(lessons_table(rows))
    return 0


def lessons_table(rows: Sequence[asyncpg.Record]) -> Table:
    """Returns a table with a line for each worker and kind of jobs. `rows`: of `shared_finished_jobs`."""
    checked_jobs = check_jobs(rows)
    lines: dict[tuple[str, ...], list[CheckedJob]] = defaultdict(list)
    for each in checked_jobs:
        lines[str(each.row["worker_id"]), each.row["model_family"], each.row["gpu_type"], each.row["stack"]].append(
            each
        )
    # Of a kind's packed samples, and of the others.
    shares: dict[bool, dict[tuple[str, ...], float]] = {False: defaultdict(float), True: defaultdict(float)}
    for (family, gpu_type, stack, packed), lessons in shared_lessons(checked_jobs).items():
        trusted = weights(lessons)
        for lesson, weight in zip(lessons, trusted, strict=True):
            shares[packed][lesson.worker_id, family, gpu_type, stack] += weight / sum(trusted)
    table = Table(*COLUMNS)
    table.columns[0].no_wrap = True
    for line, jobs in sorted(lines.items(), key=lambda item: _latest(item[1]), reverse=True):
        software, users = (Counter(str(each.row[name]) for each in jobs) for name in ("software", "user_id"))
        ((most, _),) = software.most_common(1)
        ((user, of_user),) = users.most_common(1)
        refused = Counter(each.refusal for each in jobs if each.refusal)
        finished = [each.job for each in jobs if each.job is not None]
        ratios = [job.seconds / job.forecast_seconds for job in finished if job.forecast_seconds]
        share = max(each[line] for each in shares.values())
        table.add_row(
            *line,
            (most or "not reported") + (f" and {len(software) - 1} others" if len(software) > 1 else ""),
            str(len(jobs)),
            str(len(users)),
            f"{of_user} of {user}",
            f"{statistics.median(ratios):.2f}" if ratios else "",
            f"{_latest(jobs):%Y-%m-%d}",
            ", ".join(f"{count} {reason}" for reason, count in refused.most_common()),
            f"{share:.0%}" if share else "none",
        )
    return table


def _latest(jobs: Sequence[CheckedJob]) -> datetime:
    latest: datetime = max(each.row["completed_at"] for each in jobs)
    return latest


async def _run(settings: LessonsSettings, arguments: argparse.Namespace) -> list[asyncpg.Record]:
    url = DatabaseUrl.parse(settings.database_url.get_secret_value())
    connection = await asyncpg.connect(**url.connect_arguments(), timeout=CONNECT_TIMEOUT_SECONDS, command_timeout=60.0)
    try:
        if arguments.withdraw:
            await connection.execute(SQL["withdraw_worker"], arguments.withdraw, arguments.reason)
        if arguments.restore:
            await connection.execute(SQL["restore_worker"], arguments.restore)
        limits = MAX_JOBS_OF_USER, MAX_JOBS_OF_WORKER
        return list(await connection.fetch(SQL["shared_finished_jobs"], fitted().version, *limits))
    finally:
        await connection.close()

"""Lists workers whose finished jobs correct forecasts, and excludes some.

`python -m estimator_service lessons [--withdraw ID --reason TEXT | --restore ID]`, for operators. Its database URL is an
administrator's, as for `python -m jobs_service migrate`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from collections.abc import Sequence

import asyncpg
from rich.console import Console
from rich.table import Table

from estimator_service.settings import LessonsSettings
from rpc.database.queries import load_queries
from rpc.process.database_url import DatabaseUrl
from rpc.process.settings import load

SQL = load_queries("estimator_service.learning", "queries.sql")
CONNECT_TIMEOUT_SECONDS = 10.0
WIDTH = 200  # characters of a line in a file or a pipe
COLUMNS = (
    "worker",
    "model family",
    "GPU type",
    "stack",
    "software",
    "jobs",
    "users",
    "actual ÷ forecast",
    "latest",
    "teaches",
)


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 2 if the database is unreachable or refuses."""
    parser = argparse.ArgumentParser(prog="python -m estimator_service lessons", description=__doc__)
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--withdraw", type=uuid.UUID, metavar="ID", help="worker whose jobs must not correct forecasts")
    change.add_argument("--restore", type=uuid.UUID, metavar="ID", help="worker whose jobs may correct forecasts again")
    parser.add_argument("--reason", default="withdrawn by an operator", help="why, for the next operator")
    chosen = parser.parse_args(argv)
    # Without markup: the software that trainers report may have brackets.
    console = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False)
    try:
        rows = asyncio.run(_run(load(LessonsSettings), chosen))
    except (OSError, asyncpg.PostgresError) as error:
        console.print(f"lessons: {error}", style="red")
        return 2
    table = Table(*COLUMNS)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(
            str(row["worker_id"] or "none"),
            row["model_family"],
            row["gpu_type"],
            row["stack"],
            row["software"] or "not reported",
            str(row["jobs"]),
            str(row["users"]),
            f"{row['median_ratio']:.2f}",
            f"{row['latest']:%Y-%m-%d}",
            "no, withdrawn" if row["withdrawn"] else "yes",
        )
    console.print(table)
    return 0


async def _run(settings: LessonsSettings, chosen: argparse.Namespace) -> list[asyncpg.Record]:
    url = DatabaseUrl.parse(settings.database_url.get_secret_value())
    connection = await asyncpg.connect(**url.connect_arguments(), timeout=CONNECT_TIMEOUT_SECONDS, command_timeout=60.0)
    try:
        if chosen.withdraw:
            await connection.execute(SQL["withdraw_worker"], chosen.withdraw, chosen.reason)
        if chosen.restore:
            await connection.execute(SQL["restore_worker"], chosen.restore)
        return list(await connection.fetch(SQL["lessons_by_worker"]))
    finally:
        await connection.close()

"""A PostgreSQL for one measurement."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs_service.database.migrate import migrate
from tests.databases import SERVICE_PASSWORD, postgres


@contextmanager
def scratch_database() -> Iterator[str]:
    """An administrator's URL of an empty database that is gone afterwards."""
    # Under /tmp itself: PostgreSQL is another user where we are root.
    folder = Path("/tmp") / f"pipeline-bench-{os.getpid()}"
    try:
        with postgres(folder / "data") as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def migrated(url: str) -> str:
    """Migrates it and returns the services' URL."""
    await migrate(url, passwords={"service": SERVICE_PASSWORD})
    return url.replace("postgres:@", f"pipeline_service:{SERVICE_PASSWORD}@", 1)

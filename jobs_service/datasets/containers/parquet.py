"""Parquet files. Their index is at the end, so they are stored in a temporary file first. A child process reads them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from jobs_service.datasets.containers.json_values import decode
from jobs_service.datasets.containers.record import MAX_RECORD_BYTES, Record

PIECE_BYTES = 256 * 1024
# A process with its own memory and environment: a malicious file can harm nothing else.
COMMAND = (sys.executable, "-I", "-m", "jobs_service.datasets.containers.parquet_rows")
ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system"}


class ParquetRows:
    """Reads the rows of a Parquet file. `close` removes the temporary file and ends the process."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="dataset-", suffix=".parquet")  # noqa: SIM115 - `close` does
        self._process: subprocess.Popen[bytes] | None = None

    def feed(self, data: bytes) -> Iterator[Record]:
        """Stores the next bytes."""
        self._file.write(data)
        return iter(())

    def finish(self) -> Iterator[Record]:
        """Reads the rows. The line of a record is its row's number."""
        self._file.flush()
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [*COMMAND, self._file.name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        row, rest = 0, b""
        output: IO[Any] = self._process.stdout  # type: ignore[assignment]
        while data := output.read1(PIECE_BYTES):  # type: ignore[attr-defined]
            *rows, rest = (rest + data).split(b"\n")
            for raw in rows:
                row += 1
                record = decode(raw, row)
                too_long = f"longer than {MAX_RECORD_BYTES} bytes" if len(raw) > MAX_RECORD_BYTES else ""
                yield record._replace(error=too_long, value=None) if too_long else record
        _, error = self._process.communicate()
        if self._process.returncode:
            reason = error.decode(errors="replace").strip().rpartition("\n")[2][:300]
            yield Record(0, error=reason or "the Parquet file needs too much memory: write it with smaller row groups")

    def close(self) -> None:
        """Ends the process and removes the temporary file."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        with suppress(OSError):
            self._file.close()

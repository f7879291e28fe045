"""Writes the rows of a Parquet file as JSON Lines: `python -m jobs_service.datasets.containers.parquet_rows FILE`."""

from __future__ import annotations

import resource
import sys
from datetime import date, datetime, time
from typing import Any

import orjson

# Bytes that the process may use, and seconds of processor time: a file may claim any size.
MEMORY_BYTES = 1 << 30
CPU_SECONDS = 600
ROWS = 64


def main(path: str) -> int:
    """Returns the exit code: 1 where the file cannot be read, with the reason as one line of stderr."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    # Imported under the limits.
    import pyarrow
    from pyarrow import parquet

    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
                lines = [
                    orjson.dumps(row, default=_as_text, option=orjson.OPT_NON_STR_KEYS) for row in batch.to_pylist()
                ]
                sys.stdout.buffer.write(b"\n".join([*lines, b""]))
        sys.stdout.buffer.flush()
    except MemoryError:
        return _failed("the Parquet file needs too much memory: write it with smaller row groups")
    except (pyarrow.ArrowException, OSError, orjson.JSONEncodeError) as error:
        return _failed(f"the Parquet file cannot be read: {' '.join(str(error).split())[:200]}")
    return 0


def _as_text(value: Any) -> str:
    """Converts values that JSON has no type for: times to ISO 8601, bytes to their number."""
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return f"({len(value)} bytes)" if isinstance(value, bytes) else str(value)


def _failed(reason: str) -> int:
    sys.stderr.write(reason + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""`make bench`: what requests cost, against programs that do the same work.

Without arguments it runs every row and writes BENCHMARKS.md; with names of rows it runs those and prints them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rpc.process.logs import setup_logs
from tests.bench.programs import Programs
from tests.bench.report import entry, lines, remember
from tests.bench.rows import ROWS, measure

MIN_FREE_BYTES = 4 << 30


def main() -> None:
    """Runs the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; by default all")
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    names = arguments.rows or list(ROWS)
    setup_logs("warning")
    if unknown := set(names) - set(ROWS):
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if missing := [program for program in ("h2load", "node", "npm") if shutil.which(program) is None]:
        raise SystemExit(f"bench: {', '.join(missing)} is not here; Debian has nghttp2-client, nodejs and npm")
    with contextlib.suppress(PermissionError):
        # What else the machine does counts less.
        os.nice(-10)
    # PostgreSQL writes to memory where there is room: what is compared is work, not a disk.
    memory = Path("/dev/shm")
    directory = memory if memory.is_dir() and shutil.disk_usage(memory).free > MIN_FREE_BYTES else Path("/tmp")
    rows = {}
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-", dir=directory) as folder, ExitStack() as stack:
        programs = Programs(Path(folder), stack)
        for number, name in enumerate(names, 1):
            started = time.monotonic()
            print(f"[{number}/{len(names)}] {name}", flush=True)
            rows[name] = entry(name, measure(ROWS[name], programs, arguments.rounds))
            programs.check_logs()
            print("\n".join(lines(name, rows[name])), f"\n  {time.monotonic() - started:.0f} s", flush=True)
    if not arguments.rows:
        remember(rows, arguments.rounds)


if __name__ == "__main__":
    main()

"""Load on servers, and what it costs: h2load and pgbench, and the processor time of processes."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from deploy.local.postgres import program

CLIENTS = 16
LOAD_TIMEOUT_SECONDS = 300


def cpu_seconds(process: psutil.Process) -> float:
    """Returns the processor time of a process and its children, also of those that ended: PostgreSQL has one a session."""
    own = process.cpu_times()
    total: float = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total


def h2load(url: str, count: int, *arguments: str, clients: int = CLIENTS) -> float:
    """Sends requests, and returns how many a second. Raises SystemExit unless every response is a good one."""
    command = ["h2load", f"-n{count}", f"-c{clients}", *arguments, url]
    output = _run(command)
    rate, good = re.search(r"finished in .*?, ([\d.]+) req/s", output), re.search(r"status codes: (\d+) 2xx", output)
    if rate is None or good is None or int(good[1]) != count:
        raise SystemExit(f"bench: not every response of {url} is a good one: {output}")
    return float(rate[1])


def h2load_each(url: str, count: int, users: list[list[str]]) -> float:
    """Sends requests of several users at once, one at a time each, by their arguments; returns how many a second."""
    with ThreadPoolExecutor(len(users)) as pool:
        started = time.monotonic()
        list(pool.map(lambda arguments: h2load(url, count // len(users), *arguments, clients=1), users))
        return count / (time.monotonic() - started)


def pgbench(url: str, script: Path, count: int) -> float:
    """Runs a script's transaction with as many clients as HTTP has; returns how many a second."""
    command = [
        program("pgbench"),
        "-n",
        "-M",
        "prepared",
        f"-c{CLIENTS}",
        f"-t{count // CLIENTS}",
        "-f",
        str(script),
        url,
    ]
    rate = re.search(r"tps = ([\d.]+)", _run(command))
    assert rate is not None
    return float(rate[1])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT_SECONDS)
    if done.returncode:
        raise SystemExit(f"bench: {command[0]} failed: {done.stderr}")
    return done.stdout

"""Looking at the processes of a running stack."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from deploy.running import Stack

RECOVERY_SECONDS = 10.0


def wait_for(condition: Callable[[], Any], seconds: float = RECOVERY_SECONDS) -> Any:
    """The first true value of a condition."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.02)
    return found


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all under it."""
    return [process, *process.children(recursive=True)]


def child(up: Stack, name: str) -> psutil.Process:
    """The process that a server, or PostgreSQL, runs as now."""
    (found,) = [each for each in psutil.Process(up.process.pid).children() if name in " ".join(each.cmdline())]
    return found

"""Looking at the processes of a running stack."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import psutil

from deploy.local.running import Stack

RECOVERY_SECONDS = 10.0


def patience(seconds: float) -> float:
    """As long, on a machine as busy as this one is now, as that is on one that is not."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_for(condition: Callable[[], Any], seconds: float = RECOVERY_SECONDS) -> Any:
    """The first true value of a condition."""
    until = time.monotonic() + patience(seconds)
    while not (result := condition()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.02)
    return result


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all under it."""
    return [process, *process.children(recursive=True)]


def child(up: Stack, name: str) -> psutil.Process:
    """The process that a server, or PostgreSQL, runs as now."""
    found = find_child(up, name)
    assert found is not None, f"no {name} runs"
    return found


def find_child(up: Stack, name: str) -> psutil.Process | None:
    """The same; None while there is none."""
    for each in psutil.Process(up.process.pid).children():
        try:
            if name in " ".join(each.cmdline()):
                return each
        except psutil.Error:
            # It ended while we looked.
            continue
    return None

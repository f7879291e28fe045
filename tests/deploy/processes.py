"""Helpers for the processes of a running stack."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import psutil

from deploy.local.running import Stack

RECOVERY_SECONDS = 10.0


def patience(seconds: float) -> float:
    """Returns a time, extended by how busy the machine is."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_for(condition: Callable[[], Any], seconds: float = RECOVERY_SECONDS) -> Any:
    """Waits for a condition and returns its first true value."""
    until = time.monotonic() + patience(seconds)
    while not (result := condition()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.02)
    return result


def family(process: psutil.Process) -> list[psutil.Process]:
    """Returns a process and all its descendants."""
    return [process, *process.children(recursive=True)]


def child(up: Stack, name: str) -> psutil.Process:
    """Returns the process of a server or of PostgreSQL."""
    found = find_child(up, name)
    assert found is not None, f"no {name} runs"
    return found


def find_child(up: Stack, name: str) -> psutil.Process | None:
    """Returns the same; None while there is none."""
    for each in psutil.Process(up.process.pid).children():
        try:
            if name in " ".join(each.cmdline()):
                return each
        except psutil.Error:
            # It ended while we looked.
            continue
    return None

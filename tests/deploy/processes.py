"""`pipeline up` as a child process, and helpers for its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from deploy.local.processes import SetupError, last_line
from deploy.local.running import Running, read
from deploy.settings import environment
from rpc.process.workers import tie_to_parent

RECOVERY_SECONDS = 10.0
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 180.0, 60.0, 0.05


@dataclass(frozen=True, slots=True)
class Stack:
    """A `pipeline up` in a child process. `output` is the file with its output."""

    process: subprocess.Popen[bytes]
    running: Running
    output: Path

    @property
    def token(self) -> str:
        """Returns a token of the demo user."""
        assert self.running.issuer is not None
        return self.running.issuer.open().token()


@contextmanager
def stack(folder: Path, **settings: object) -> Iterator[Stack]:
    """Runs `pipeline up` on free ports, with its data in `folder`, until the body ends. Raises SetupError.

    `settings` are settings of the servers by field name. The process ends with the calling thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "up.log"
    variables = {
        "gateway_port": 0,
        "estimator_port": 0,
        "jobs_port": 0,
        "dev_issuer": True,
        **settings,
        "local_dir": folder,
    }
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "up"],
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=partial(tie_to_parent, signal.SIGTERM),
        )
    try:
        yield Stack(process, _wait(process, folder, output), output)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], folder: Path, output: Path) -> Running:
    until = time.monotonic() + START_SECONDS
    while True:
        running = read(folder)
        if running is not None and running.pid == process.pid:
            return running
        if process.poll() is not None or time.monotonic() > until:
            raise SetupError(f"`pipeline up` does not start: {last_line(output)} (see {output})")
        time.sleep(POLL_SECONDS)


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

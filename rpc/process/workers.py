"""Worker processes of one server that share its port."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import uvloop

from rpc.errors import OperatorError
from rpc.process.background import background
from rpc.process.logs import setup_logs
from rpc.process.memory import trim_memory
from rpc.process.settings import ProcessSettings

PR_SET_PDEATHSIG = 1
# Loaded before a fork: the child of a process with threads must not load libraries.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def tie_to_parent(number: signal.Signals) -> None:
    """Called in a child process: the kernel sends it this signal when its parent ends. Linux only; else it does nothing."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, int(number))


def run_server(
    name: str, serve: Callable[..., Coroutine[Any, Any, None]], settings: ProcessSettings, workers: int
) -> int:
    """Runs `serve(settings, share_port=…)` in `workers` processes. Returns the exit code: 2 for an OperatorError."""
    setup_logs(settings.log_level, settings.log_format)

    def main(index: int) -> int:
        port = settings.metrics_port
        own = settings.model_copy(update={"metrics_port": port + index}) if port > 0 else settings
        try:
            uvloop.run(_serve_and_trim(serve(own, share_port=workers > 1)))
        except OperatorError as error:
            print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 - one line for the operator
            return 2
        return 0

    return run_workers(workers, main)


async def _serve_and_trim(serving: Coroutine[Any, Any, None]) -> None:
    async with background({"trim-memory": trim_memory()}):
        await serving


def run_workers(count: int, main: Callable[[int], int]) -> int:
    """Runs `main(index)` in `count` processes, or in this one if `count` is 1. Returns the first exit code that is not 0.

    Forwards signals to the processes. If one fails, the others are stopped, so that a supervisor restarts all of them.
    It forks, so nothing with threads (an event loop, a channel) may be open yet.
    """
    if count == 1:
        return main(0)
    children = {_fork(main, index) for index in range(count)}
    forwarded: set[int] = set()

    def forward(number: int, frame: FrameType | None) -> None:
        forwarded.add(number)
        for child in children:
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)
    exit_code = 0
    while children:
        child, status = os.wait()
        children.discard(child)
        code = os.waitstatus_to_exitcode(status)
        # A forwarded signal kills a worker that has not installed its handlers yet.
        if code and -code not in forwarded and not exit_code:
            exit_code = code if code > 0 else 1
            forward(signal.SIGTERM, None)
    return exit_code


def _fork(main: Callable[[int], int], index: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        tie_to_parent(signal.SIGTERM)
        # Servers that reload on SIGHUP install a handler later; the others ignore it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        code = main(index)
    except BaseException:
        traceback.print_exc()
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

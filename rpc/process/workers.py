"""Worker processes of one server that share its port."""

from __future__ import annotations

import asyncio
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
from rpc.process.logs import setup_logs
from rpc.process.memory import trim_memory
from rpc.process.settings import ProcessSettings

PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child of a process with threads may not import.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def tie_to_parent(number: signal.Signals) -> None:
    """In a child process: has the kernel send it this signal when its parent ends. Does nothing except on Linux."""
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
    trimming = asyncio.create_task(trim_memory(), name="trim-memory")
    try:
        await serving
    finally:
        trimming.cancel()
        await asyncio.gather(trimming, return_exceptions=True)


def run_workers(count: int, main: Callable[[int], int]) -> int:
    """Runs `main`, given its number from 0, in `count` processes; in this one if `count` is 1. Returns the worst exit code.

    Forwards signals. When a worker dies the others are stopped too, so that the supervisor starts all of them again.
    Forks, so nothing that has threads (an event loop, a channel) may be open yet.
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
    worst = 0
    while children:
        child, status = os.wait()
        children.discard(child)
        code = os.waitstatus_to_exitcode(status)
        # A worker that is still starting is ended by the signal itself.
        if code and -code not in forwarded and not worst:
            worst = code if code > 0 else 1
            forward(signal.SIGTERM, None)
    return worst


def _fork(main: Callable[[int], int], index: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        tie_to_parent(signal.SIGTERM)
        # Servers that reload on SIGHUP install a handler; the others must not end on it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        code = main(index)
    except BaseException:
        traceback.print_exc()
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

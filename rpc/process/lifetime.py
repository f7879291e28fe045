"""Runs a process until a signal stops it."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import Any


async def until_stopped(*tasks: asyncio.Task[Any]) -> None:
    """Waits for SIGTERM, SIGINT or the first of the tasks to end; raises that task's exception. Cancels the tasks."""
    # Modules and contracts are loaded now and stay in memory: the garbage collector need not scan them again.
    gc.collect()
    gc.freeze()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signalled = asyncio.create_task(stop.wait(), name="wait-for-signal")
    try:
        done, _ = await asyncio.wait({signalled, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (signalled, *tasks):
            task.cancel()
        await asyncio.gather(signalled, *tasks, return_exceptions=True)

"""Background tasks: they run while a context is open, and may repeat their work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

log = structlog.get_logger()


@asynccontextmanager
async def background(coroutines: Mapping[str, Coroutine[Any, Any, Any]]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Runs coroutines, by the names of their tasks, while the body runs; cancels them at its end and waits for them."""
    tasks = [asyncio.create_task(each, name=name) for name, each in coroutines.items()]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def repeat(
    name: str,
    work: Callable[[], Awaitable[float | None]],
    *,
    every_seconds: float,
    timeout_seconds: float,
    is_urgent: bool = True,
) -> None:
    """Runs `work` repeatedly, `every_seconds` after its end, or after the number of seconds that it returns.

    A run that takes longer than `timeout_seconds` fails. The first of several failures in a row is logged as the event `name`.
    Work that is not urgent begins after a random part of `every_seconds`: servers that start together do not all do it at once.
    """
    if not is_urgent:
        await asyncio.sleep(random.uniform(0, every_seconds))  # noqa: S311 - no secret
    is_failing = False
    while True:
        pause: float | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                pause = await work()
            is_failing = False
        except Exception as error:
            if not is_failing:
                log.warning(name, error=f"{type(error).__name__}: {error}")
            is_failing = True
        await asyncio.sleep(every_seconds if pause is None else pause)

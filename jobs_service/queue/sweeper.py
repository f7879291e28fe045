"""The task that takes jobs from lost trainers, stops those at their limits, and forgets what is old."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from jobs_service.events.store import History
from jobs_service.queue.store import BATCH, Life

PRUNE_SECONDS = 60.0
PASS_TIMEOUT_SECONDS = 15.0

log = structlog.get_logger()


class Sweeper:
    """Any number of Jobs processes may have one: each takes rows that no other has."""

    def __init__(self, life: Life, history: History, *, every_seconds: float, retention: timedelta) -> None:
        self._life = life
        self._history = history
        self._every_seconds = every_seconds
        self._retention = retention

    async def run(self) -> None:
        """Sweeps until cancelled. What goes wrong is logged and tried again."""
        loop = asyncio.get_running_loop()
        pruned = loop.time()
        failing = False
        while True:
            try:
                async with asyncio.timeout(PASS_TIMEOUT_SECONDS):
                    while await self._life.expire() == BATCH:
                        pass
                    while await self._life.stop_at_limits() == BATCH:
                        pass
                    if loop.time() - pruned >= PRUNE_SECONDS:
                        pruned = loop.time()
                        await self._life.forget_offers()
                        await self._history.prune(self._retention)
                failing = False
            except Exception as error:
                if not failing:
                    log.warning("sweep", error=f"{type(error).__name__}: {error}")
                failing = True
            await asyncio.sleep(self._every_seconds)

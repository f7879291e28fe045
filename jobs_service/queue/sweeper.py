"""The task that takes jobs from lost trainers, stops those at their limits, and forgets what is old."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from jobs_service.events.store import History
from jobs_service.queue.store import BATCH, Life
from rpc.process.background import repeat

PRUNE_SECONDS = 60.0
PASS_TIMEOUT_SECONDS = 15.0


class Sweeper:
    """Any number of Jobs processes may have one: each takes rows that no other has."""

    def __init__(self, life: Life, history: History, *, every_seconds: float, retention: timedelta) -> None:
        self._life = life
        self._history = history
        self._every_seconds = every_seconds
        self._retention = retention
        self._pruned_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Sweeps until cancelled."""
        await repeat("sweep", self._sweep, every_seconds=self._every_seconds, timeout_seconds=PASS_TIMEOUT_SECONDS)

    async def _sweep(self) -> None:
        while await self._life.expire() == BATCH:
            pass
        while await self._life.stop_at_limits() == BATCH:
            pass
        now = asyncio.get_running_loop().time()
        if now - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = now
            await self._life.forget_offers()
            await self._history.prune(self._retention)

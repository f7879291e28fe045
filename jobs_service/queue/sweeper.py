"""The task that ends leases which ran out, stops jobs at their limits, and deletes old events and offers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from jobs_service.events.store import EventStore
from jobs_service.queue.store import BATCH, QueueStore
from rpc.process.background import repeat

PRUNE_SECONDS = 60.0
PASS_TIMEOUT_SECONDS = 15.0


class Sweeper:
    """Any number of Jobs processes may run one: each locks rows that no other has locked."""

    def __init__(self, queue: QueueStore, events: EventStore, *, every_seconds: float, retention: timedelta) -> None:
        self._queue = queue
        self._events = events
        self._every_seconds = every_seconds
        self._retention = retention
        self._pruned_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Sweeps until cancelled."""
        await repeat("sweep", self._sweep, every_seconds=self._every_seconds, timeout_seconds=PASS_TIMEOUT_SECONDS)

    async def _sweep(self) -> None:
        await self._queue.follow_clock()
        while await self._queue.expire() == BATCH:
            pass
        while await self._queue.stop_at_limits() == BATCH:
            pass
        now = asyncio.get_running_loop().time()
        if now - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = now
            await self._queue.forget_offers()
            await self._events.prune(self._retention)

"""The task that sends webhooks: claims what is due, a bounded number at once, and writes down what came of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import structlog

from jobs_service.webhooks.model import TEST, Claimed
from jobs_service.webhooks.sender import Sender
from jobs_service.webhooks.store import Outbox

TIDY_SECONDS = 60.0
PASS_TIMEOUT_SECONDS = 15.0
# Between two claims, so that many short deliveries share one.
PAUSE_SECONDS = 0.02

log = structlog.get_logger()


class Dispatcher:
    """Any number of Jobs processes may have one: each takes deliveries that no other has.

    `back_off_seconds`: the pauses after each failed attempt; with the last one used up, a delivery has failed.
    """

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        *,
        concurrency: int,
        poll_seconds: float,
        back_off_seconds: Sequence[float],
        retention: timedelta,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._concurrency = concurrency
        self._poll_seconds = poll_seconds
        self._back_off_seconds = back_off_seconds
        self._retention = retention
        self._under_way: dict[asyncio.Task[None], UUID] = {}
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Sends until cancelled; what is under way then is sent again by whoever comes next, once its lease is over."""
        try:
            await self._run()
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        tidied = loop.time()
        failing = False
        while True:
            claimed: Sequence[Claimed] = ()
            self._freed.clear()
            try:
                async with asyncio.timeout(PASS_TIMEOUT_SECONDS):
                    free = self._concurrency - len(self._under_way)
                    if free:
                        claimed = await self._outbox.claim(free, set(self._under_way.values()))
                    if loop.time() - tidied >= TIDY_SECONDS:
                        tidied = loop.time()
                        await self._outbox.tidy(self._retention)
                failing = False
            except Exception as error:
                if not failing:
                    log.warning("webhooks", error=_told(error))
                failing = True
            for each in claimed:
                task = asyncio.create_task(self._deliver(each), name=f"webhook {each.id}")
                self._under_way[task] = each.webhook_id
                task.add_done_callback(self._done)
            await asyncio.sleep(PAUSE_SECONDS)
            if not claimed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._freed.wait()

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._freed.set()

    async def _deliver(self, claimed: Claimed) -> None:
        answer = await self._sender.post(claimed.url, claimed.headers(int(time.time())), claimed.body)
        try:
            await self._outbox.finish(claimed, answer, self._again_after(claimed))
        except Exception as error:
            # It is sent again when its lease is over, under the same id.
            log.warning("webhook not written down", delivery_id=str(claimed.id), error=_told(error))

    def _again_after(self, claimed: Claimed) -> timedelta | None:
        if claimed.type == TEST or claimed.failures >= len(self._back_off_seconds):
            return None
        spread = random.uniform(0.9, 1.1)  # noqa: S311 - spreads load
        return timedelta(seconds=self._back_off_seconds[claimed.failures] * spread)


def _told(error: Exception) -> str:
    # The first line: Postgres's next one may hold a row, and that a secret.
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"

"""Background task that sends webhooks: claims due deliveries, sends them concurrently, records each outcome."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from jobs_service.webhooks.delivery import ClaimedDelivery, retry_pause
from jobs_service.webhooks.outbox import RESPONSIVE_MS, BusyWebhook, Outbox
from jobs_service.webhooks.sender import Sender

CLEAN_UP_SECONDS = 60.0
PASS_TIMEOUT_SECONDS = 15.0
# Pause between two claims, so that several short deliveries share one.
PAUSE_SECONDS = 0.02

log = structlog.get_logger()


class Dispatcher:
    """Sends deliveries from the outbox. Several processes may run one each.

    `back_off_seconds`: pauses after each failed attempt. A delivery fails for good after the last one.
    """

    def __init__(
        self, outbox: Outbox, sender: Sender, *, poll_seconds: float, back_off_seconds: Sequence[float]
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._poll_seconds = poll_seconds
        self._back_off_seconds = back_off_seconds
        # Requests under way, each with its start in the event loop's time.
        self._requests: dict[asyncio.Task[None], tuple[ClaimedDelivery, float]] = {}
        self._finished = asyncio.Event()

    async def run(self) -> None:
        """Sends until cancelled. Requests under way are cancelled too; they are sent again once their lease is over."""
        try:
            await self._run()
        finally:
            for task in self._requests:
                task.cancel()
            await asyncio.gather(*self._requests, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        cleaned_up_at = loop.time()
        failing = False
        while True:
            claimed: Sequence[ClaimedDelivery] = ()
            self._finished.clear()
            try:
                async with asyncio.timeout(PASS_TIMEOUT_SECONDS):
                    claimed = await self._outbox.claim(self._busy(loop.time()))
                    if loop.time() - cleaned_up_at >= CLEAN_UP_SECONDS:
                        cleaned_up_at = loop.time()
                        await self._outbox.clean_up()
                failing = False
            except Exception as error:
                if not failing:
                    log.warning("webhooks_unavailable", error=_first_line(error))
                failing = True
            for each in claimed:
                task = asyncio.create_task(self._deliver(each), name=f"webhook {each.id}")
                self._requests[task] = each, loop.time()
                task.add_done_callback(self._done)
            await asyncio.sleep(PAUSE_SECONDS)
            if not claimed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._finished.wait()

    def _busy(self, now: float) -> Sequence[BusyWebhook]:
        # A request without an answer after RESPONSIVE_MS counts as unresponsive before its outcome is recorded.
        recent = now - RESPONSIVE_MS / 1000
        return [
            BusyWebhook(each.webhook_id, each.user_id, each.responsive and started_at > recent)
            for each, started_at in self._requests.values()
        ]

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._requests[task]
        self._finished.set()

    async def _deliver(self, claimed: ClaimedDelivery) -> None:
        result = await self._sender.post(claimed.url, claimed.headers(datetime.now(UTC)), claimed.body)
        spread = random.uniform(0.9, 1.1)  # noqa: S311 - spreads load
        try:
            await self._outbox.finish(claimed, result, retry_pause(claimed, result, self._back_off_seconds, spread))
        except Exception as error:
            # The delivery is sent again, with the same id, once its lease is over.
            log.warning("webhook_not_recorded", delivery_id=str(claimed.id), error=_first_line(error))


def _first_line(error: Exception) -> str:
    # Further lines of a Postgres error may show a row, and a row may hold a secret.
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"

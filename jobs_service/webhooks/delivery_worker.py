"""Background task that sends webhooks: claims due deliveries, sends them concurrently, records each outcome."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from jobs_service.webhooks.client import WebhookClient
from jobs_service.webhooks.delivery import ClaimedDelivery, retry_pause
from jobs_service.webhooks.outbox import RESPONSIVE_MS, BusyWebhook, Outbox
from rpc.process.background import repeat
from rpc.telemetry.metrics import Metrics

PRUNE_SECONDS = 60.0
PASS_TIMEOUT_SECONDS = 15.0
# Pause between two claims, so that several short deliveries share one.
PAUSE_SECONDS = 0.02
ATTEMPT_BUCKETS = (0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)

log = structlog.get_logger()


class DeliveryWorker:
    """Sends deliveries from the outbox. Several processes may run one each.

    `back_off_seconds`: pauses after each failed attempt. A delivery fails for good after the last one.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: WebhookClient,
        *,
        poll_seconds: float,
        back_off_seconds: Sequence[float],
        metrics: Metrics,
    ) -> None:
        self._attempts = metrics.histogram(
            "pipeline_webhook_attempt_duration_seconds",
            "Requests to webhooks: delivered (2xx), refused (another status), failed (no answer).",
            ["outcome"],
            buckets=ATTEMPT_BUCKETS,
        )
        self._outbox = outbox
        self._client = client
        self._poll_seconds = poll_seconds
        self._back_off_seconds = back_off_seconds
        # Requests under way, each with its start in the event loop's time.
        self._requests: dict[asyncio.Task[None], tuple[ClaimedDelivery, float]] = {}
        self._finished = asyncio.Event()

    async def run(self) -> None:
        """Sends until cancelled. Requests under way are cancelled too; they are sent again once their lease is over."""
        poll, timeout = self._poll_seconds, PASS_TIMEOUT_SECONDS
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(
                    repeat("webhooks_unavailable", self._start_due, every_seconds=poll, timeout_seconds=timeout + poll),
                    name="send-webhooks",
                )
                tasks.create_task(
                    repeat(
                        "webhooks_not_pruned",
                        self._outbox.prune,
                        every_seconds=PRUNE_SECONDS,
                        timeout_seconds=timeout,
                        is_urgent=False,
                    ),
                    name="prune-webhooks",
                )
        finally:
            for task in self._requests:
                task.cancel()
            await asyncio.gather(*self._requests, return_exceptions=True)

    async def _start_due(self) -> float:
        """Starts the requests that are due. Returns the seconds until the next claim."""
        self._finished.clear()
        now = asyncio.get_running_loop().time()
        claimed = await self._outbox.claim(self._busy(now))
        for each in claimed:
            task = asyncio.create_task(self._deliver(each), name=f"webhook {each.id}")
            self._requests[task] = each, now
            task.add_done_callback(self._done)
        if not claimed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._finished.wait()
        return PAUSE_SECONDS

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
        result = await self._client.post(claimed.url, claimed.headers(datetime.now(UTC)), claimed.body)
        outcome = "delivered" if result.delivered else "failed" if result.http_status is None else "refused"
        self._attempts.labels(outcome).observe(result.duration_ms / 1000)
        spread = random.uniform(0.9, 1.1)  # noqa: S311 - spreads load
        try:
            await self._outbox.finish(claimed, result, retry_pause(claimed, result, self._back_off_seconds, spread))
        except Exception as error:
            # The delivery is sent again, with the same id, once its lease is over.
            log.warning("webhook_not_recorded", delivery_id=str(claimed.id), error=f"{type(error).__name__}: {error}")

"""All users' open deliveries in Postgres, as the delivery worker claims and finishes them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog

from jobs_service.database.rows import as_caller, reader
from jobs_service.webhooks.delivery import TEST, AttemptResult, ClaimedDelivery
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import SENDER

SQL = load_queries("jobs_service.webhooks", "outbox.sql")
# Webhooks that one claim looks at.
MAX_WEBHOOKS_PER_CLAIM = 500
# An answer within this time makes a webhook responsive.
RESPONSIVE_MS = 1_000
# Most rows of each table that `prune` deletes at once.
BATCH = 5_000
FIRST = UUID(int=0)

log = structlog.get_logger()
_claimed = reader(ClaimedDelivery)


@dataclass(frozen=True, slots=True)
class ConcurrencyLimits:
    """Requests at once in one process: in all, to unresponsive webhooks, and of each user and webhook.

    A webhook is responsive if its last answer was a 2xx within RESPONSIVE_MS. A new one is not yet.
    """

    total: int
    per_user: int = 8
    per_webhook: int = 4
    unresponsive_per_user: int = 2

    @property
    def unresponsive(self) -> int:
        """Requests at once to all unresponsive webhooks together. The rest is kept for responsive ones."""
        return max(1, self.total // 2)


@dataclass(frozen=True, slots=True)
class BusyWebhook:
    """A webhook with one request under way."""

    webhook_id: UUID
    user_id: UUID
    responsive: bool


class Outbox:
    """Claims and finishes deliveries. Several processes may have one each: no delivery has two senders at once."""

    def __init__(
        self,
        database: Database,
        *,
        limits: ConcurrencyLimits,
        lease_time: timedelta,
        disable_after: timedelta,
        retention: timedelta,
    ) -> None:
        """`disable_after`: how long a webhook fails before it is disabled. `retention`: age at which deliveries are deleted."""
        self._database = database
        self._limits = limits
        self._lease_time = lease_time
        self._disable_after = disable_after
        self._retention = retention
        # Webhook id at which the next claim begins.
        self._start = FIRST

    async def claim(self, busy: Collection[BusyWebhook]) -> Sequence[ClaimedDelivery]:
        """Claims due deliveries within the limits until the lease ends. `busy`: one entry for each request under way."""
        limits = self._limits
        free = limits.total - len(busy)
        if free <= 0:
            return []
        unresponsive = limits.unresponsive - sum(not each.responsive for each in busy)
        async with as_caller(self._database, SENDER) as connection:
            rows = await connection.fetch(
                SQL["claim_deliveries"],
                self._start,
                MAX_WEBHOOKS_PER_CLAIM,
                free,
                limits.per_user,
                limits.unresponsive_per_user,
                self._lease_time,
                [each.webhook_id for each in busy],
                [each.user_id for each in busy],
                [each.responsive for each in busy],
                limits.per_webhook,
                max(0, unresponsive),
            )
        more = bool(rows) and rows[0]["walked"] == MAX_WEBHOOKS_PER_CLAIM
        self._start = _next(rows[0]["walked_to"]) if more else FIRST
        return [_claimed(row) for row in rows if row["id"] is not None]

    async def finish(self, claimed: ClaimedDelivery, result: AttemptResult, pause: timedelta | None) -> None:
        """Records the outcome of an attempt. `pause`: time until the next attempt if this one failed; None: no other."""
        async with as_caller(self._database, SENDER) as connection:
            attempt = claimed.id, claimed.attempt_count
            outcome = result.duration_ms, result.http_status, result.error, result.response
            await connection.execute(SQL["finish_attempt"], *attempt, *outcome)
            await connection.execute(SQL["finish_delivery"], *attempt, result.delivered, pause)
            if result.delivered:
                responsive = result.duration_ms <= RESPONSIVE_MS
                await connection.execute(SQL["webhook_works"], claimed.webhook_id, responsive)
            elif result.gone or claimed.type != TEST:
                row = await connection.fetchrow(
                    SQL["webhook_fails"], claimed.webhook_id, result.gone, self._disable_after, result.retry_after
                )
                if row is not None and row["disabled_reason"] is not None:
                    await connection.execute(SQL["end_deliveries"], claimed.webhook_id)
                    await connection.execute(SQL["notify_disabled"], claimed.webhook_id)
                    log.info("webhook_disabled", webhook_id=str(claimed.webhook_id), reason=row["disabled_reason"])

    async def prune(self) -> None:
        """Ends deliveries without a webhook; deletes old deliveries, replaced secrets and counters of past hours."""
        async with as_caller(self._database, SENDER) as connection:
            await connection.execute(SQL["fail_orphans"])
            await connection.execute(SQL["prune_old_secrets"])
            await connection.execute(SQL["prune_deliveries"], self._retention, BATCH)
            await connection.execute(SQL["prune_uses"], BATCH)


def _next(webhook_id: UUID) -> UUID:
    return UUID(int=(webhook_id.int + 1) % (1 << 128))

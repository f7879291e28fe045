"""Webhooks and their deliveries in Postgres: as their owners see them, and as the dispatcher does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
import structlog

from jobs_service.database.rows import Page, as_caller, page_of, reader
from jobs_service.errors import (
    IdempotencyKeyReused,
    WebhookDeliveryNotFound,
    WebhookDisabled,
    WebhookLimit,
    WebhookNotFound,
    WebhookRate,
)
from jobs_service.webhooks.model import TEST, Answer, Attempt, Claimed, Delivery, DeliveryStatus, Wanted, Webhook
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.database.transaction import Transaction
from rpc.identity.model import SYSTEM, Identity

SQL = load_queries("jobs_service.webhooks", "queries.sql")
# Attempts that are shown of a delivery.
MAX_ATTEMPTS = 20
# Webhooks that one claim looks at, and deliveries of one webhook that a process sends at once.
TURNS = 500
PER_WEBHOOK = 4
# Rows of a kind that one pass forgets.
BATCH = 5_000
FIRST = UUID(int=0)

log = structlog.get_logger()


class WebhookStore:
    """A user's webhooks. Every method acts as its caller, under row-level security."""

    def __init__(self, database: Database, *, max_per_user: int, max_uses_per_hour: int) -> None:
        self._database = database
        self._max_per_user = max_per_user
        self._max_uses_per_hour = max_uses_per_hour

    async def find_request(self, caller: Identity, request_id: UUID | None, wanted: Wanted) -> Webhook | None:
        """The webhook that an idempotency key made before; None where one may be made.

        Raises IdempotencyKeyReused, WebhookLimit.
        """
        async with as_caller(self._database, caller) as connection:
            earlier = await _earlier(connection, request_id, wanted)
            if earlier is None and await connection.fetchval(SQL["count_webhooks"]) >= self._max_per_user:
                raise WebhookLimit(limit=self._max_per_user)
        return earlier

    async def create(
        self, caller: Identity, wanted: Wanted, secret: bytes, request_id: UUID | None
    ) -> tuple[Webhook, bool]:
        """A webhook, and whether it is new: not where the same request made it before.

        Raises IdempotencyKeyReused, WebhookLimit.
        """
        async with as_caller(self._database, caller, SQL["lock_user"]) as connection:
            earlier = await _earlier(connection, request_id, wanted)
            if earlier is not None:
                return earlier, False
            row = await connection.fetchrow(
                SQL["create_webhook"],
                wanted.url,
                wanted.description,
                list(wanted.event_types),
                secret,
                self._max_per_user,
                request_id,
                wanted.digest() if request_id else None,
            )
        if row is None:
            raise WebhookLimit(limit=self._max_per_user)
        return _webhook_of(row), True

    async def use(self, caller: Identity) -> None:
        """Counts what costs others something: a name looked up, a request sent. Raises WebhookRate."""
        async with as_caller(self._database, caller) as connection:
            await self._use(connection)

    async def _use(self, connection: Transaction) -> None:
        if await connection.fetchval(SQL["use"], self._max_uses_per_hour) is None:
            raise WebhookRate(limit=self._max_uses_per_hour)

    async def get(self, caller: Identity, webhook_id: UUID) -> Webhook:
        """Raises WebhookNotFound."""
        async with as_caller(self._database, caller) as connection:
            return _webhook_of(await connection.fetchrow(SQL["get_webhook"], webhook_id))

    async def list_all(self, caller: Identity) -> Sequence[Webhook]:
        """All of the caller's, oldest first."""
        async with as_caller(self._database, caller) as connection:
            return [_webhook_of(row) for row in await connection.fetch(SQL["list_webhooks"])]

    async def update(self, caller: Identity, webhook_id: UUID, wanted: Wanted, *, enabled: bool) -> Webhook:
        """Replaces what its owner chose; disabling it ends what is pending. Raises WebhookNotFound."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(
                SQL["update_webhook"], webhook_id, wanted.url, wanted.description, list(wanted.event_types), enabled
            )
            if row is not None and not enabled:
                await connection.execute(SQL["end_deliveries"], webhook_id)
        return _webhook_of(row)

    async def delete(self, caller: Identity, webhook_id: UUID) -> None:
        """Deletes it with its deliveries. Raises WebhookNotFound."""
        async with as_caller(self._database, caller) as connection:
            await connection.execute(SQL["delete_deliveries"], webhook_id)
            if await connection.fetchval(SQL["delete_webhook"], webhook_id) is None:
                raise WebhookNotFound

    async def rotate_secret(self, caller: Identity, webhook_id: UUID, secret: bytes) -> Webhook:
        """Raises WebhookNotFound."""
        async with as_caller(self._database, caller) as connection:
            return _webhook_of(await connection.fetchrow(SQL["rotate_secret"], webhook_id, secret))

    async def test(self, caller: Identity, webhook_id: UUID) -> Delivery:
        """Writes a test event down. Raises WebhookNotFound, WebhookDisabled, WebhookRate."""
        async with as_caller(self._database, caller) as connection:
            await self._use(connection)
            row = await connection.fetchrow(SQL["test_webhook"], webhook_id)
            if row is None:
                _webhook_of(await connection.fetchrow(SQL["get_webhook"], webhook_id))
                raise WebhookDisabled
        return _delivery_of(row)

    async def list_deliveries(
        self, caller: Identity, webhook_id: UUID, *, page: int, limit: int, status: str | None
    ) -> Page[Delivery]:
        """Deliveries to a webhook, newest first. Raises WebhookNotFound."""
        statuses = [status] if status else [*DeliveryStatus]
        async with as_caller(self._database, caller) as connection:
            _webhook_of(await connection.fetchrow(SQL["get_webhook"], webhook_id))
            places = MAX_ATTEMPTS, limit, (page - 1) * limit
            rows = await connection.fetch(SQL["list_deliveries"], webhook_id, statuses, *places)
        return page_of(rows, _delivery_of)

    async def redeliver(self, caller: Identity, webhook_id: UUID, delivery_id: UUID) -> Delivery:
        """Makes a delivery due now. Raises WebhookDeliveryNotFound, WebhookDisabled, WebhookRate."""
        async with as_caller(self._database, caller) as connection:
            await self._use(connection)
            webhook = await connection.fetchrow(SQL["get_webhook"], webhook_id)
            if webhook is not None and webhook["disabled_reason"] is None:
                await connection.execute(SQL["redeliver"], webhook_id, delivery_id)
            row = await connection.fetchrow(SQL["get_delivery"], webhook_id, delivery_id, MAX_ATTEMPTS)
        if webhook is None or row is None:
            raise WebhookDeliveryNotFound
        if webhook["disabled_reason"] is not None:
            raise WebhookDisabled
        return _delivery_of(row)


class Outbox:
    """All users' deliveries, as the dispatcher takes and finishes them. Any number of processes may have one."""

    def __init__(self, database: Database, *, lease_time: timedelta, disable_after: timedelta) -> None:
        self._database = database
        self._lease_time = lease_time
        self._disable_after = disable_after
        # Where the ring of webhooks goes on.
        self._turn = FIRST

    async def claim(self, most: int, busy: Collection[UUID]) -> Sequence[Claimed]:
        """Takes deliveries that are due, none of webhooks that are `busy`; they are this process's until the lease ends."""
        async with as_caller(self._database, SYSTEM) as connection:
            rows = await connection.fetch(
                SQL["claim_deliveries"], self._turn, TURNS, most, PER_WEBHOOK, list(busy), self._lease_time
            )
        claimed = [_claimed(row) for row in rows if row["id"] is not None]
        if len(claimed) == most:
            self._turn = _next(max(each.webhook_id for each in claimed))
        else:
            self._turn = _next(rows[0]["walked_to"]) if rows and rows[0]["walked"] == TURNS else FIRST
        return claimed

    async def finish(self, claimed: Claimed, answer: Answer, again_after: timedelta | None) -> None:
        """Writes down what came of an attempt; `again_after`: when it is tried again if it failed, None: never."""
        async with as_caller(self._database, SYSTEM) as connection:
            number = claimed.id, claimed.attempt_count
            outcome = answer.duration_ms, answer.http_status, answer.error, answer.response
            await connection.execute(SQL["finish_attempt"], *number, *outcome)
            await connection.execute(SQL["finish_delivery"], *number, answer.delivered, again_after)
            if answer.delivered:
                await connection.execute(SQL["webhook_works"], claimed.webhook_id)
            elif answer.gone or claimed.type != TEST:
                row = await connection.fetchrow(
                    SQL["webhook_fails"], claimed.webhook_id, answer.gone, self._disable_after
                )
                if row is not None and row["disabled_reason"] is not None:
                    await connection.execute(SQL["end_deliveries"], claimed.webhook_id)
                    await connection.execute(SQL["notify_disabled"], claimed.webhook_id)
                    log.info("webhook disabled", webhook_id=str(claimed.webhook_id), reason=row["disabled_reason"])

    async def tidy(self, age: timedelta) -> None:
        """Ends what waits for nobody, and forgets deliveries older than that, secrets that were replaced, and uses of old."""
        async with as_caller(self._database, SYSTEM) as connection:
            await connection.execute(SQL["end_orphans"])
            await connection.execute(SQL["forget_old_secrets"])
            await connection.execute(SQL["prune_deliveries"], age, BATCH)
            await connection.execute(SQL["forget_uses"], BATCH)


_webhook, _claimed, _attempt = reader(Webhook), reader(Claimed), reader(Attempt)


async def _earlier(connection: Transaction, request_id: UUID | None, wanted: Wanted) -> Webhook | None:
    row = request_id and await connection.fetchrow(SQL["find_webhook"], request_id)
    if not row:
        return None
    if row["request_digest"] != wanted.digest():
        raise IdempotencyKeyReused("webhook", str(row["id"]))
    return _webhook_of(row)


def _webhook_of(row: asyncpg.Record | None) -> Webhook:
    if row is None:
        raise WebhookNotFound
    found: Webhook = _webhook(row)
    return found


def _delivery_of(row: asyncpg.Record) -> Delivery:
    return Delivery(
        id=row["id"],
        webhook_id=row["webhook_id"],
        type=row["type"],
        status=DeliveryStatus(row["status"]),
        body=row["body"],
        attempt_count=row["attempt_count"],
        attempts=[_attempt(each) for each in row["attempts"]],
        next_attempt_at=row["next_attempt_at"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )


def _next(webhook_id: UUID) -> UUID:
    return UUID(int=(webhook_id.int + 1) % (1 << 128))

"""Webhooks and their deliveries in Postgres, as their owners see them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from jobs_service.database.rows import Page, as_caller, read_page, reader
from jobs_service.errors import (
    IdempotencyKeyReused,
    WebhookDeliveryNotFound,
    WebhookDisabled,
    WebhookLimit,
    WebhookNotFound,
    WebhookRate,
)
from jobs_service.webhooks.delivery import Attempt, Delivery, DeliveryStatus
from jobs_service.webhooks.model import Webhook, WebhookSpec
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.database.transaction import Transaction
from rpc.identity.model import Identity

SQL = load_queries("jobs_service.webhooks", "queries.sql")
# Latest attempts that are shown of a delivery.
MAX_ATTEMPTS = 20


class WebhookStore:
    """A user's webhooks and deliveries. Every method acts as its caller, under row-level security."""

    def __init__(self, database: Database, *, max_per_user: int, max_uses_per_hour: int) -> None:
        self._database = database
        self._max_per_user = max_per_user
        self._max_uses_per_hour = max_uses_per_hour

    async def find_request(self, caller: Identity, idempotency_key: UUID | None, spec: WebhookSpec) -> Webhook | None:
        """Returns the webhook that was created with an idempotency key; None if one may be created.

        Raises IdempotencyKeyReused, WebhookLimit.
        """
        async with as_caller(self._database, caller) as connection:
            earlier = await _earlier(connection, idempotency_key, spec)
            if earlier is None and await connection.fetchval(SQL["count_webhooks"]) >= self._max_per_user:
                raise WebhookLimit(limit=self._max_per_user)
        return earlier

    async def create(
        self, caller: Identity, spec: WebhookSpec, secret: bytes, idempotency_key: UUID | None
    ) -> tuple[Webhook, bool]:
        """Returns a webhook and whether it is new. It is not if the same request created it before.

        Raises IdempotencyKeyReused, WebhookLimit.
        """
        async with as_caller(self._database, caller, SQL["lock_user"]) as connection:
            earlier = await _earlier(connection, idempotency_key, spec)
            if earlier is not None:
                return earlier, False
            webhook_id = await connection.fetchval(
                SQL["create_webhook"],
                spec.url,
                spec.description,
                list(spec.event_types),
                secret,
                self._max_per_user,
                idempotency_key,
                spec.digest() if idempotency_key else None,
            )
            if webhook_id is None:
                raise WebhookLimit(limit=self._max_per_user)
            return await _get(connection, webhook_id), True

    async def count_use(self, caller: Identity) -> None:
        """Counts a look-up of a host name against the hourly limit. Raises WebhookRate."""
        async with as_caller(self._database, caller) as connection:
            await self._count_use(connection)

    async def _count_use(self, connection: Transaction) -> None:
        if await connection.fetchval(SQL["count_use"], self._max_uses_per_hour) is None:
            raise WebhookRate(limit=self._max_uses_per_hour)

    async def get(self, caller: Identity, webhook_id: UUID) -> Webhook:
        """Returns a webhook. Raises WebhookNotFound."""
        async with as_caller(self._database, caller) as connection:
            return await _get(connection, webhook_id)

    async def list_all(self, caller: Identity) -> Sequence[Webhook]:
        """Returns all of the caller's webhooks, oldest first."""
        async with as_caller(self._database, caller) as connection:
            return [_webhook(row) for row in await connection.fetch(SQL["get_webhooks"], None)]

    async def update(self, caller: Identity, webhook_id: UUID, spec: WebhookSpec, *, enabled: bool) -> Webhook:
        """Replaces what its owner chose. Disabling it fails its pending deliveries. Raises WebhookNotFound."""
        async with as_caller(self._database, caller) as connection:
            choices = spec.url, spec.description, list(spec.event_types), enabled
            await connection.execute(SQL["update_webhook"], webhook_id, *choices)
            webhook = await _get(connection, webhook_id)
            if not enabled:
                await connection.execute(SQL["end_deliveries"], webhook_id)
        return webhook

    async def delete(self, caller: Identity, webhook_id: UUID) -> None:
        """Deletes a webhook with its deliveries. Raises WebhookNotFound."""
        async with as_caller(self._database, caller) as connection:
            await connection.execute(SQL["delete_deliveries"], webhook_id)
            if await connection.fetchval(SQL["delete_webhook"], webhook_id) is None:
                raise WebhookNotFound

    async def rotate_secret(self, caller: Identity, webhook_id: UUID, secret: bytes) -> Webhook:
        """Replaces the secret. Raises WebhookNotFound."""
        async with as_caller(self._database, caller) as connection:
            await connection.execute(SQL["rotate_secret"], webhook_id, secret)
            return await _get(connection, webhook_id)

    async def test(self, caller: Identity, webhook_id: UUID) -> Delivery:
        """Adds a test event. Raises WebhookNotFound, WebhookDisabled, WebhookRate."""
        async with as_caller(self._database, caller) as connection:
            await self._count_use(connection)
            row = await connection.fetchrow(SQL["test_webhook"], webhook_id)
            if row is None:
                await _get(connection, webhook_id)
                raise WebhookDisabled
            await connection.execute(SQL["end_pause"], webhook_id)
        return _delivery_of(row)

    async def list_deliveries(
        self, caller: Identity, webhook_id: UUID, *, page: int, limit: int, status: str | None
    ) -> Page[Delivery]:
        """Returns a page of a webhook's deliveries, newest first. Raises WebhookNotFound."""
        statuses = [status] if status else [*DeliveryStatus]
        async with as_caller(self._database, caller) as connection:
            await _get(connection, webhook_id)
            bounds = MAX_ATTEMPTS, limit, (page - 1) * limit
            rows = await connection.fetch(SQL["list_deliveries"], webhook_id, statuses, *bounds)
        return read_page(rows, _delivery_of)

    async def redeliver(self, caller: Identity, webhook_id: UUID, delivery_id: UUID) -> Delivery:
        """Makes a delivery due now. Raises WebhookDeliveryNotFound, WebhookDisabled, WebhookRate."""
        async with as_caller(self._database, caller) as connection:
            await self._count_use(connection)
            webhook = await connection.fetchrow(SQL["get_webhooks"], webhook_id)
            if webhook is not None and webhook["disabled_reason"] is None:
                await connection.execute(SQL["redeliver"], webhook_id, delivery_id)
                await connection.execute(SQL["end_pause"], webhook_id)
            row = await connection.fetchrow(SQL["get_delivery"], webhook_id, delivery_id, MAX_ATTEMPTS)
        if webhook is None or row is None:
            raise WebhookDeliveryNotFound
        if webhook["disabled_reason"] is not None:
            raise WebhookDisabled
        return _delivery_of(row)


_webhook, _attempt = reader(Webhook), reader(Attempt)


async def _earlier(connection: Transaction, idempotency_key: UUID | None, spec: WebhookSpec) -> Webhook | None:
    row = idempotency_key and await connection.fetchrow(SQL["find_webhook"], idempotency_key)
    if not row:
        return None
    if row["request_digest"] != spec.digest():
        raise IdempotencyKeyReused("webhook", str(row["id"]))
    return await _get(connection, row["id"])


async def _get(connection: Transaction, webhook_id: UUID) -> Webhook:
    row = await connection.fetchrow(SQL["get_webhooks"], webhook_id)
    if row is None:
        raise WebhookNotFound
    return _webhook(row)


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

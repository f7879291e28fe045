"""WebhookService: a few lines for each RPC."""

from __future__ import annotations

import asyncio
from uuid import UUID

from pipeline.webhooks.v1 import webhooks_pb2

from jobs_service.errors import WebhookUrlRefused
from jobs_service.webhooks import wire
from jobs_service.webhooks.addresses import NOT_PUBLIC, AddressGuard
from jobs_service.webhooks.model import new_secret, show_secret
from jobs_service.webhooks.store import WebhookStore
from jobs_service.wire import idempotency_key, page_of, pagination
from rpc.boundary import Call

# Seconds that a look-up may take while its caller waits.
RESOLVE_SECONDS = 5.0


class WebhookService:
    """Manages a user's webhooks and shows their deliveries."""

    def __init__(self, store: WebhookStore, guard: AddressGuard) -> None:
        self._store = store
        self._guard = guard

    async def CreateWebhook(
        self, request: webhooks_pb2.CreateWebhookRequest, call: Call
    ) -> webhooks_pb2.CreateWebhookResponse:
        spec, key, secret = wire.spec(request), idempotency_key(request), new_secret()
        if await self._store.find_request(call.identity, key, spec) is None:
            await self._check(call, request.url)
        webhook, is_new = await self._store.create(call.identity, spec, secret, key)
        shown = show_secret(secret) if is_new else ""
        return webhooks_pb2.CreateWebhookResponse(webhook=wire.webhook(webhook), secret=shown)

    async def GetWebhook(self, request: webhooks_pb2.GetWebhookRequest, call: Call) -> webhooks_pb2.GetWebhookResponse:
        webhook = await self._store.get(call.identity, UUID(request.id))
        return webhooks_pb2.GetWebhookResponse(webhook=wire.webhook(webhook))

    async def ListWebhooks(
        self, request: webhooks_pb2.ListWebhooksRequest, call: Call
    ) -> webhooks_pb2.ListWebhooksResponse:
        webhooks = await self._store.list_all(call.identity)
        return webhooks_pb2.ListWebhooksResponse(webhooks=map(wire.webhook, webhooks))

    async def UpdateWebhook(
        self, request: webhooks_pb2.UpdateWebhookRequest, call: Call
    ) -> webhooks_pb2.UpdateWebhookResponse:
        webhook_id, spec = UUID(request.id), wire.spec(request)
        enabled = request.enabled if request.HasField("enabled") else True
        await self._store.get(call.identity, webhook_id)
        # A webhook can be disabled even if its host no longer resolves.
        await self._check(call, request.url) if enabled else self._guard.parse(request.url)
        webhook = await self._store.update(call.identity, webhook_id, spec, enabled=enabled)
        return webhooks_pb2.UpdateWebhookResponse(webhook=wire.webhook(webhook))

    async def DeleteWebhook(
        self, request: webhooks_pb2.DeleteWebhookRequest, call: Call
    ) -> webhooks_pb2.DeleteWebhookResponse:
        await self._store.delete(call.identity, UUID(request.id))
        return webhooks_pb2.DeleteWebhookResponse()

    async def RotateWebhookSecret(
        self, request: webhooks_pb2.RotateWebhookSecretRequest, call: Call
    ) -> webhooks_pb2.RotateWebhookSecretResponse:
        secret = new_secret()
        webhook = await self._store.rotate_secret(call.identity, UUID(request.id), secret)
        return webhooks_pb2.RotateWebhookSecretResponse(webhook=wire.webhook(webhook), secret=show_secret(secret))

    async def TestWebhook(
        self, request: webhooks_pb2.TestWebhookRequest, call: Call
    ) -> webhooks_pb2.TestWebhookResponse:
        delivery = await self._store.test(call.identity, UUID(request.id))
        return webhooks_pb2.TestWebhookResponse(delivery=wire.delivery(delivery))

    async def ListWebhookDeliveries(
        self, request: webhooks_pb2.ListWebhookDeliveriesRequest, call: Call
    ) -> webhooks_pb2.ListWebhookDeliveriesResponse:
        page, status = page_of(request), wire.delivery_status(request)
        deliveries = await self._store.list_deliveries(call.identity, UUID(request.id), **page, status=status)
        return webhooks_pb2.ListWebhookDeliveriesResponse(
            deliveries=map(wire.delivery, deliveries.items), pagination=pagination(request, deliveries)
        )

    async def RedeliverWebhook(
        self, request: webhooks_pb2.RedeliverWebhookRequest, call: Call
    ) -> webhooks_pb2.RedeliverWebhookResponse:
        delivery = await self._store.redeliver(call.identity, UUID(request.id), UUID(request.delivery_id))
        return webhooks_pb2.RedeliverWebhookResponse(delivery=wire.delivery(delivery))

    async def _check(self, call: Call, url: str) -> None:
        self._guard.parse(url)
        await self._store.count_use(call.identity)
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                await self._guard.check(url)
        except TimeoutError:
            raise WebhookUrlRefused(NOT_PUBLIC) from None

"""WebhookService: a few lines for each RPC."""

from __future__ import annotations

import asyncio
from uuid import UUID

from pipeline.webhooks.v1 import webhooks_pb2 as pb

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

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, call: Call) -> pb.CreateWebhookResponse:
        spec, key, secret = wire.spec(request), idempotency_key(request), new_secret()
        if await self._store.find_request(call.identity, key, spec) is None:
            await self._check(call, request.url)
        webhook, is_new = await self._store.create(call.identity, spec, secret, key)
        shown = show_secret(secret) if is_new else ""
        return pb.CreateWebhookResponse(webhook=wire.webhook(webhook), secret=shown)

    async def GetWebhook(self, request: pb.GetWebhookRequest, call: Call) -> pb.GetWebhookResponse:
        webhook = await self._store.get(call.identity, UUID(request.id))
        return pb.GetWebhookResponse(webhook=wire.webhook(webhook))

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, call: Call) -> pb.ListWebhooksResponse:
        webhooks = await self._store.list_all(call.identity)
        return pb.ListWebhooksResponse(webhooks=map(wire.webhook, webhooks))

    async def UpdateWebhook(self, request: pb.UpdateWebhookRequest, call: Call) -> pb.UpdateWebhookResponse:
        webhook_id, spec = UUID(request.id), wire.spec(request)
        enabled = request.enabled if request.HasField("enabled") else True
        await self._store.get(call.identity, webhook_id)
        # A webhook can be disabled even if its host no longer resolves.
        await self._check(call, request.url) if enabled else self._guard.parse(request.url)
        webhook = await self._store.update(call.identity, webhook_id, spec, enabled=enabled)
        return pb.UpdateWebhookResponse(webhook=wire.webhook(webhook))

    async def DeleteWebhook(self, request: pb.DeleteWebhookRequest, call: Call) -> pb.DeleteWebhookResponse:
        await self._store.delete(call.identity, UUID(request.id))
        return pb.DeleteWebhookResponse()

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, call: Call
    ) -> pb.RotateWebhookSecretResponse:
        secret = new_secret()
        webhook = await self._store.rotate_secret(call.identity, UUID(request.id), secret)
        return pb.RotateWebhookSecretResponse(webhook=wire.webhook(webhook), secret=show_secret(secret))

    async def TestWebhook(self, request: pb.TestWebhookRequest, call: Call) -> pb.TestWebhookResponse:
        delivery = await self._store.test(call.identity, UUID(request.id))
        return pb.TestWebhookResponse(delivery=wire.delivery(delivery))

    async def ListWebhookDeliveries(
        self, request: pb.ListWebhookDeliveriesRequest, call: Call
    ) -> pb.ListWebhookDeliveriesResponse:
        page, status = page_of(request), wire.delivery_status(request)
        deliveries = await self._store.list_deliveries(call.identity, UUID(request.id), **page, status=status)
        return pb.ListWebhookDeliveriesResponse(
            deliveries=map(wire.delivery, deliveries.items), pagination=pagination(request, deliveries)
        )

    async def RedeliverWebhook(self, request: pb.RedeliverWebhookRequest, call: Call) -> pb.RedeliverWebhookResponse:
        delivery = await self._store.redeliver(call.identity, UUID(request.id), UUID(request.delivery_id))
        return pb.RedeliverWebhookResponse(delivery=wire.delivery(delivery))

    async def _check(self, call: Call, url: str) -> None:
        self._guard.parse(url)
        await self._store.count_use(call.identity)
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                await self._guard.check(url)
        except TimeoutError:
            raise WebhookUrlRefused(NOT_PUBLIC) from None

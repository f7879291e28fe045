"""Messages of the webhooks contract ↔ their models."""

from __future__ import annotations

from pipeline.webhooks.v1 import webhooks_pb2

from jobs_service.webhooks.delivery import Attempt, Delivery
from jobs_service.webhooks.model import Webhook, WebhookSpec
from jobs_service.wire import enum_word, optional_enum_word, time

TYPE, STATUS, REASON = "WEBHOOK_EVENT_TYPE_", "WEBHOOK_DELIVERY_STATUS_", "WEBHOOK_DISABLED_REASON_"
TYPES = {enum_word(name, TYPE): number for name, number in webhooks_pb2.WebhookEventType.items()}
# Other systems may insert notifications of types that this contract does not have.
OTHER = webhooks_pb2.WEBHOOK_EVENT_TYPE_UNSPECIFIED


def spec(request: webhooks_pb2.CreateWebhookRequest | webhooks_pb2.UpdateWebhookRequest) -> WebhookSpec:
    """Returns what the owner chose."""
    event_types = [enum_word(webhooks_pb2.WebhookEventType.Name(each), TYPE) for each in request.event_types]
    return WebhookSpec(request.url, request.description, event_types)


def delivery_status(request: webhooks_pb2.ListWebhookDeliveriesRequest) -> str | None:
    """Returns the status to list; None: all."""
    return optional_enum_word(request, "status", webhooks_pb2.WebhookDeliveryStatus, STATUS)


def webhook(model: Webhook) -> webhooks_pb2.Webhook:
    """Returns the message of a webhook."""
    reason = model.disabled_reason
    return webhooks_pb2.Webhook(
        id=str(model.id),
        user_id=str(model.user_id),
        url=model.url,
        description=model.description,
        event_types=[TYPES.get(each, OTHER) for each in model.event_types],
        enabled=reason is None,
        disabled_reason=webhooks_pb2.WebhookDisabledReason.Value(REASON + reason.upper()) if reason else None,
        failing_since=time(model.failing_since),
        paused_until=time(model.paused_until),
        old_secret_until=time(model.old_secret_until),
        created_at=time(model.created_at),
        updated_at=time(model.updated_at),
    )


def delivery(model: Delivery) -> webhooks_pb2.WebhookDelivery:
    """Returns the message of a delivery."""
    return webhooks_pb2.WebhookDelivery(
        id=str(model.id),
        webhook_id=str(model.webhook_id),
        type=TYPES.get(model.type, OTHER),
        status=webhooks_pb2.WebhookDeliveryStatus.Value(STATUS + model.status.upper()),
        body=model.body,
        attempt_count=model.attempt_count,
        attempts=map(_attempt, model.attempts),
        next_attempt_at=time(model.next_attempt_at),
        created_at=time(model.created_at),
        finished_at=time(model.finished_at),
    )


def _attempt(model: Attempt) -> webhooks_pb2.WebhookAttempt:
    return webhooks_pb2.WebhookAttempt(
        number=model.number,
        started_at=time(model.started_at),
        duration_ms=model.duration_ms,
        http_status=model.http_status,
        error=model.error,
        response=model.response,
    )

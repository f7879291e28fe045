"""Messages of the webhooks contract ↔ their models."""

from __future__ import annotations

from pipeline.webhooks.v1 import webhooks_pb2 as pb

from jobs_service.webhooks.delivery import Attempt, Delivery
from jobs_service.webhooks.model import Webhook, WebhookSpec
from jobs_service.wire import enum_word, optional_enum_word, time

TYPE, STATUS, REASON = "WEBHOOK_EVENT_TYPE_", "WEBHOOK_DELIVERY_STATUS_", "WEBHOOK_DISABLED_REASON_"
TYPES = {enum_word(name, TYPE): number for name, number in pb.WebhookEventType.items()}
# Other systems may insert notifications of types that this contract does not have.
OTHER = pb.WEBHOOK_EVENT_TYPE_UNSPECIFIED


def spec(request: pb.CreateWebhookRequest | pb.UpdateWebhookRequest) -> WebhookSpec:
    """Returns what the owner chose."""
    event_types = [enum_word(pb.WebhookEventType.Name(each), TYPE) for each in request.event_types]
    return WebhookSpec(request.url, request.description, event_types)


def delivery_status(request: pb.ListWebhookDeliveriesRequest) -> str | None:
    """Returns the status to list; None: all."""
    return optional_enum_word(request, "status", pb.WebhookDeliveryStatus, STATUS)


def webhook(model: Webhook) -> pb.Webhook:
    """Returns the message of a webhook."""
    reason = model.disabled_reason
    return pb.Webhook(
        id=str(model.id),
        user_id=str(model.user_id),
        url=model.url,
        description=model.description,
        event_types=[TYPES.get(each, OTHER) for each in model.event_types],
        enabled=reason is None,
        disabled_reason=pb.WebhookDisabledReason.Value(REASON + reason.upper()) if reason else None,
        failing_since=time(model.failing_since),
        paused_until=time(model.paused_until),
        old_secret_until=time(model.old_secret_until),
        created_at=time(model.created_at),
        updated_at=time(model.updated_at),
    )


def delivery(model: Delivery) -> pb.WebhookDelivery:
    """Returns the message of a delivery."""
    return pb.WebhookDelivery(
        id=str(model.id),
        webhook_id=str(model.webhook_id),
        type=TYPES.get(model.type, OTHER),
        status=pb.WebhookDeliveryStatus.Value(STATUS + model.status.upper()),
        body=model.body,
        attempt_count=model.attempt_count,
        attempts=map(_attempt, model.attempts),
        next_attempt_at=time(model.next_attempt_at),
        created_at=time(model.created_at),
        finished_at=time(model.finished_at),
    )


def _attempt(model: Attempt) -> pb.WebhookAttempt:
    return pb.WebhookAttempt(
        number=model.number,
        started_at=time(model.started_at),
        duration_ms=model.duration_ms,
        http_status=model.http_status,
        error=model.error,
        response=model.response,
    )

"""Notifications → contract messages."""

from __future__ import annotations

from typing import Any

from pipeline.notifications.v1 import notifications_pb2 as pb

from jobs_service.notifications.model import Notification
from jobs_service.wire import time


def notification(model: Notification) -> pb.Notification:
    """Returns the message of a notification."""
    # The constructor makes a Struct of a mapping.
    metadata: Any = model.metadata
    return pb.Notification(
        id=str(model.id),
        user_id=str(model.user_id),
        type=model.type,
        title=model.title,
        message=model.message,
        priority=model.priority,
        read=model.read,
        action_url=model.action_url,
        metadata=metadata,
        created_at=time(model.created_at),
    )

"""Audit events → contract messages and JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
from pipeline.audit.v1 import audit_pb2 as pb

from jobs_service.audit.model import AuditEvent
from jobs_service.wire import optional_enum_word, time

PREFIX = "AUDIT_ACTION_"


def action(request: pb.ListAuditEventsRequest | pb.ExportAuditEventsRequest) -> str | None:
    """Returns the action to list; None: all."""
    return optional_enum_word(request, "action", pb.AuditAction, PREFIX)


def event(model: AuditEvent) -> pb.AuditEvent:
    """Returns the message of an event."""
    value: Any = pb.AuditAction.Value(PREFIX + model.action.upper())
    return pb.AuditEvent(
        id=model.id,
        user_id=str(model.user_id),
        action=value,
        at=time(model.at),
        resource_id=str(model.resource_id),
        resource_name=model.resource_name,
        api_key_id=str(model.api_key_id) if model.api_key_id else None,
        address=model.address,
        client_address=model.client_address,
        request_id=model.request_id,
    )


def json_lines(events: Sequence[AuditEvent]) -> bytes:
    """Returns events as JSON lines; times are RFC 3339 in UTC."""
    return b"".join(
        orjson.dumps(asdict(each), default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z) for each in events
    )

"""Audit events. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that a user did, or a program in the user's name."""

    id: int
    user_id: UUID
    action: str
    at: datetime
    resource_id: UUID
    resource_name: str
    api_key_id: UUID | None
    address: str | None
    client_address: str | None
    request_id: str | None

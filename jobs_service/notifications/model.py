"""Notifications of users. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification of a user. `metadata` has the ids and names in its message."""

    id: UUID
    user_id: UUID
    type: str
    title: str
    message: str
    priority: str
    read: bool
    action_url: str | None
    metadata: Mapping[str, Any]
    created_at: datetime

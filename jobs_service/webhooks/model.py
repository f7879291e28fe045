"""A user's webhooks and the secrets that sign their requests: pure."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of every secret
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class WebhookSpec:
    """What the owner of a webhook chooses. Empty `event_types`: every type."""

    url: str
    description: str
    event_types: Sequence[str]

    def digest(self) -> bytes:
        """Returns a SHA-256 fingerprint of 32 bytes. Requests for the same webhook have the same one."""
        return hashlib.sha256(orjson.dumps((self.url, self.description, sorted(self.event_types)))).digest()


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that a user's notifications are sent to. Its secret is shown once and is not part of it."""

    id: UUID
    user_id: UUID
    url: str
    description: str
    event_types: Sequence[str]
    disabled_reason: str | None
    failing_since: datetime | None
    paused_until: datetime | None
    old_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


def new_secret() -> bytes:
    """Returns a random secret."""
    return secrets.token_bytes(SECRET_BYTES)


def show_secret(secret: bytes) -> str:
    """Returns a secret in the form that its owner gets once."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()

"""Webhooks, what is on its way to them, and how it is signed: pure.

Signatures are those of the Standard Webhooks specification, https://www.standardwebhooks.com.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import orjson

SECRET_PREFIX = "whsec_"  # noqa: S105 - says what a secret is, is none
SECRET_BYTES = 32
TEST = "webhook_test"


class DeliveryStatus(StrEnum):
    """How a delivery stands."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an owner chooses of a webhook. No event types: all."""

    url: str
    description: str
    event_types: Sequence[str]

    def digest(self) -> bytes:
        """A fingerprint: two requests with the same one ask for the same webhook. SHA-256, 32 bytes."""
        return hashlib.sha256(orjson.dumps((self.url, self.description, sorted(self.event_types)))).digest()


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a user's notifications go. Without its secret, which its owner saw once."""

    id: UUID
    user_id: UUID
    url: str
    description: str
    event_types: Sequence[str]
    disabled_reason: str | None
    failing_since: datetime | None
    old_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request. Without a duration it is under way, or its sender stopped before it knew."""

    number: int
    started_at: datetime
    duration_ms: int | None
    http_status: int | None
    error: str | None
    response: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook, with its latest attempts."""

    id: UUID
    webhook_id: UUID
    type: str
    status: DeliveryStatus
    body: str
    attempt_count: int
    attempts: Sequence[Attempt]
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this process is to send now, with what signs it."""

    id: UUID
    webhook_id: UUID
    type: str
    body: str
    attempt_count: int
    failures: int
    url: str
    secret: bytes
    old_secret: bytes | None

    def headers(self, timestamp: int) -> dict[str, str]:
        """Headers of a request sent at that time, seconds since the epoch. The id is the same for every attempt."""
        message_id = f"msg_{self.id.hex}"
        keys = [self.secret, *([self.old_secret] if self.old_secret else [])]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(sign(key, message_id, timestamp, self.body) for key in keys),
        }

    def __repr__(self) -> str:
        # Whatever prints it, the secrets stay here.
        return f"Claimed({self.id})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: an HTTP status, or what went wrong instead."""

    duration_ms: int
    http_status: int | None = None
    error: str | None = None
    response: str = ""

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.http_status is not None and 200 <= self.http_status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more of them."""
        return self.http_status == 410


def new_secret() -> bytes:
    """A secret that nobody has seen."""
    return secrets.token_bytes(SECRET_BYTES)


def show_secret(secret: bytes) -> str:
    """A secret as its owner gets it, once."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def sign(secret: bytes, message_id: str, timestamp: int, body: str) -> str:
    """The signature of a message."""
    digest = hmac.new(secret, f"{message_id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"

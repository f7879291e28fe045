"""Deliveries of events to webhooks: their attempts, signatures and retries. Pure.

Signatures and retries follow the Standard Webhooks specification, https://www.standardwebhooks.com.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from uuid import UUID

from standardwebhooks import Webhook as Signer

TEST = "webhook_test"
# A receiver may ask for a pause of at most this (Retry-After). Longer ones count as this.
MAX_RETRY_AFTER = timedelta(hours=24)


class DeliveryStatus(StrEnum):
    """State of a delivery."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request. `duration_ms` is None while it runs, and for good if its sender died."""

    number: int
    started_at: datetime
    duration_ms: int | None
    http_status: int | None
    error: str | None
    response: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook, with its latest attempts."""

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
class ClaimedDelivery:
    """A delivery that this process sends now, with the secrets that sign it.

    `failures` counts the failed attempts since it was created or redelivered. `responsive`: see `outbox.ConcurrencyLimits`.
    """

    id: UUID
    webhook_id: UUID
    user_id: UUID
    type: str
    body: str
    attempt_count: int
    failures: int
    responsive: bool
    url: str
    secret: bytes
    old_secret: bytes | None

    def headers(self, sent_at: datetime) -> dict[str, str]:
        """Returns the headers that identify and sign a request of that time. The id is the same for every attempt."""
        message_id = f"msg_{self.id.hex}"
        keys = [self.secret, *([self.old_secret] if self.old_secret else [])]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(math.floor(sent_at.timestamp())),
            "webhook-signature": " ".join(Signer(key).sign(message_id, sent_at, self.body) for key in keys),
        }

    def __repr__(self) -> str:
        # Keeps the secrets out of logs and tracebacks.
        return f"ClaimedDelivery({self.id})"


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """Outcome of a request: an HTTP status with the first bytes of the body, or an error. `retry_after`: see below."""

    duration_ms: int
    http_status: int | None = None
    error: str | None = None
    response: str = ""
    retry_after: timedelta | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver accepted the request (2xx)."""
        return self.http_status is not None and 200 <= self.http_status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no further requests (410)."""
        return self.http_status == 410


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Reads a Retry-After header (RFC 9110 §10.2.3): seconds or an HTTP date, cut to MAX_RETRY_AFTER.

    Returns None for a header that is missing, malformed or in the past.
    """
    value = (value or "").strip()
    # Longer numbers than this are beyond the limit anyway, and int() takes quadratic time.
    if value.isascii() and value.isdigit():
        pause = MAX_RETRY_AFTER if len(value) > 9 else timedelta(seconds=int(value))
    else:
        try:
            date = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        pause = (date if date.tzinfo else date.replace(tzinfo=UTC)) - now
    return min(pause, MAX_RETRY_AFTER) if pause > timedelta(0) else None


def retry_pause(
    claimed: ClaimedDelivery, result: AttemptResult, back_off_seconds: Sequence[float], spread: float
) -> timedelta | None:
    """Returns the pause before the next attempt, or None if there is none.

    `spread` (about 1) moves the pause, so that retries of one moment do not come back in one moment. The pause is never
    shorter than the receiver's Retry-After.
    """
    if claimed.type == TEST or claimed.failures >= len(back_off_seconds):
        return None
    pause = timedelta(seconds=back_off_seconds[claimed.failures] * spread)
    return max(pause, result.retry_after or timedelta(0))

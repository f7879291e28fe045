"""What the messages of all packages share: pages, times and amounts of money."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Protocol
from uuid import UUID

from pipeline.common.v1 import pagination_pb2 as pb

from jobs_service.database.rows import Page

CENT = Decimal("0.01")
DEFAULT_LIMIT = 10
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_SECONDS = 86_400


class ListRequest(Protocol):
    """A request for a page."""

    page: int
    limit: int


def page_of(request: ListRequest) -> dict[str, int]:
    """Returns the page and the limit of a request, or their defaults."""
    return {"page": request.page or 1, "limit": request.limit or DEFAULT_LIMIT}


def pagination(request: ListRequest, listed: Page[Any]) -> pb.Pagination:
    """Returns the number of the page, of all pages and of all items."""
    page = page_of(request)
    return pb.Pagination(**page, total=listed.total, total_pages=math.ceil(listed.total / page["limit"]))


def enum_word(name: str, prefix: str) -> str:
    """Returns the lower-case word of an enum value: `JOB_STATUS_QUEUED` is `queued`."""
    return name.removeprefix(prefix).lower()


def optional_enum_word(request: Any, field: str, enum: Any, prefix: str) -> str | None:
    """Returns the word of a request's optional enum field; None if it is not set."""
    return enum_word(enum.Name(getattr(request, field)), prefix) if request.HasField(field) else None


def idempotency_key(request: Any) -> UUID | None:
    """Returns the idempotency key of a request; None if it has none."""
    return UUID(request.request_id) if request.request_id else None


def cents(amount: Decimal) -> float:
    """Returns US dollars as messages have them: rounded to cents."""
    return float(amount.quantize(CENT, ROUND_HALF_UP))


def cents_or_none(amount: Decimal | None) -> float | None:
    """Returns the same; None for None."""
    return None if amount is None else cents(amount)


def time(moment: datetime | None) -> Any:
    """Returns a time as a message's constructor takes it. Timestamp's own `FromDatetime` takes ten times as long."""
    if moment is None:
        return None
    since = moment - EPOCH
    return {"seconds": since.days * DAY_SECONDS + since.seconds, "nanos": since.microseconds * 1_000}

"""Stores and reads quotes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import asyncpg
import orjson

from estimator_service.catalogue.model import QuoteLimits
from estimator_service.errors import DatasetNotFound, QuoteExpired, QuoteMismatch, QuoteNotFound, TooManyQuotes
from estimator_service.quotes.terms import Terms, differences
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import Identity

SQL = load_queries("estimator_service.quotes", "queries.sql")


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote as it was created. `request` and `response` are serialised: CreateQuoteRequest and EstimateCostResponse."""

    id: UUID
    terms: Terms
    digest: bytes
    dataset_id: UUID
    dataset_revision: str
    catalogue_version: str
    cost_p50: Decimal
    cost_p90: Decimal | None
    request: bytes
    response: bytes
    created_at: datetime
    expires_at: datetime
    expired: bool

    def check(self, now: Terms, cost_now: float) -> None:
        """Checks that terms and price are still those of the quote. Raises QuoteExpired, QuoteMismatch."""
        if self.expired:
            raise QuoteExpired(expired_at=self.expires_at.isoformat(timespec="seconds"))
        if changes := differences(self.terms, now, float(self.cost_p50), cost_now):
            raise QuoteMismatch(details="; ".join(changes))


class Quotes:
    """The table of quotes. Every method acts as the caller, under row-level security."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        caller: Identity,
        dataset_id: str,
        terms: Terms,
        catalogue_version: str,
        costs: tuple[Decimal, Decimal | None],
        messages: tuple[bytes, bytes],
        limits: QuoteLimits,
    ) -> Quote:
        """Stores a quote and returns it. Raises DatasetNotFound, TooManyQuotes."""
        stored = {"configuration": terms.configuration, "dataset": terms.dataset, "price": terms.price}
        try:
            async with self._database.as_caller(caller, role="quoter") as connection:
                await connection.execute(SQL["lock_user"])
                row = await connection.fetchrow(
                    SQL["create_quote"],
                    UUID(dataset_id),
                    orjson.dumps(stored).decode(),
                    terms.digest,
                    terms.dataset["revision"],
                    catalogue_version,
                    *costs,
                    *messages,
                    limits.valid_seconds,
                    limits.max_unexpired_per_user,
                )
        except asyncpg.ForeignKeyViolationError:
            raise DatasetNotFound("dataset_id") from None  # deleted since it was priced
        if row is None:
            raise TooManyQuotes(limit=limits.max_unexpired_per_user)
        return _quote(row)

    async def get(self, caller: Identity, quote_id: str) -> Quote:
        """Returns a quote. Raises QuoteNotFound."""
        async with self._database.as_caller(caller, role="quoter") as connection:
            row = await connection.fetchrow(SQL["get_quote"], UUID(quote_id))
        if row is None:
            raise QuoteNotFound
        return _quote(row)


def _quote(row: asyncpg.Record) -> Quote:
    return Quote(
        id=row["id"],
        terms=Terms(**orjson.loads(row["terms"])),
        digest=row["configuration_digest"],
        dataset_id=row["dataset_id"],
        dataset_revision=row["dataset_revision"],
        catalogue_version=row["catalogue_version"],
        cost_p50=row["cost_p50"],
        cost_p90=row["cost_p90"],
        request=row["request"],
        response=row["answer"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        expired=row["expired"],
    )

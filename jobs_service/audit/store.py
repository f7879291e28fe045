"""Audit events in Postgres. The trigger write_audit_event writes all but downloads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from jobs_service.audit.model import AuditEvent
from jobs_service.database.rows import Page, as_caller, read_page, reader
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import Identity

SQL = load_queries("jobs_service.audit", "queries.sql")
# Events of one read of an export.
EXPORT_BATCH = 1_000

_event = reader(AuditEvent)


class AuditStore:
    """A user's audit events. Every method acts as its caller, under row-level security."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record_download(self, caller: Identity, job_id: UUID) -> None:
        """Records that the caller downloaded a job's artifact. Other events are recorded with their change."""
        async with as_caller(self._database, caller) as connection:
            await connection.execute(SQL["record_download"], job_id)

    async def list_events(self, caller: Identity, *, page: int, limit: int, action: str | None) -> Page[AuditEvent]:
        """Returns a page of events, newest first."""
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(SQL["list_audit_events"], action, limit, (page - 1) * limit)
        return read_page(rows, _event)

    async def export(self, caller: Identity, *, action: str | None) -> AsyncIterator[Sequence[AuditEvent]]:
        """Yields the existing events in batches, oldest first. No transaction stays open between them."""
        async with as_caller(self._database, caller) as connection:
            newest = await connection.fetchval(SQL["newest_audit_event"])
        last = 0
        while True:
            async with as_caller(self._database, caller) as connection:
                rows = await connection.fetch(SQL["export_audit_events"], action, last, newest, EXPORT_BATCH)
            if not rows:
                return
            yield [_event(row) for row in rows]
            last = rows[-1]["id"]

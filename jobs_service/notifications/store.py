"""Notifications in Postgres: row ↔ model."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from jobs_service.database.rows import Page, as_caller, read_page, reader
from jobs_service.errors import NotificationNotFound
from jobs_service.notifications.model import Notification
from rpc.database.pool import Database
from rpc.database.queries import load_queries
from rpc.identity.model import SYSTEM, Identity

SQL = load_queries("jobs_service.notifications", "queries.sql")

# How long superseded notifications, which no list shows, are kept for operators.
SUPERSEDED_RETENTION = timedelta(days=7)
# Rows that `prune` deletes at once.
BATCH = 5_000

_notification = reader(Notification)


class NotificationStore:
    """A user's notifications. Every method acts as its caller, under row-level security."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_notifications(
        self, caller: Identity, *, page: int, limit: int, unread: bool
    ) -> tuple[Page[Notification], int]:
        """Returns a page of the caller's notifications, newest first, and the number of unread ones."""
        async with as_caller(self._database, caller) as connection:
            rows = await connection.fetch(SQL["list_notifications"], unread, limit, (page - 1) * limit)
        return read_page(rows, _notification), rows[0]["unread"]

    async def mark_notification_read(self, caller: Identity, notification_id: UUID) -> Notification:
        """Marks a notification as read and returns it. Raises NotificationNotFound."""
        async with as_caller(self._database, caller) as connection:
            row = await connection.fetchrow(SQL["mark_notification_read"], notification_id)
        if row is None:
            raise NotificationNotFound
        return _notification(row)

    async def prune(self, age: timedelta) -> None:
        """Deletes a batch of notifications older than `age`, superseded ones sooner."""
        async with as_caller(self._database, SYSTEM) as connection:
            await connection.execute(SQL["prune_notifications"], age, min(age, SUPERSEDED_RETENTION), BATCH)

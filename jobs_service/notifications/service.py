"""NotificationService: a few lines for each RPC."""

from __future__ import annotations

from uuid import UUID

from pipeline.notifications.v1 import notifications_pb2 as pb

from jobs_service.notifications import wire
from jobs_service.notifications.store import NotificationStore
from jobs_service.wire import page_of, pagination
from rpc.boundary import Call


class NotificationService:
    """Lists a user's notifications and marks them as read."""

    def __init__(self, store: NotificationStore) -> None:
        self._store = store

    async def ListNotifications(self, request: pb.ListNotificationsRequest, call: Call) -> pb.ListNotificationsResponse:
        page, unread = await self._store.list_notifications(call.identity, **page_of(request), unread=request.unread)
        return pb.ListNotificationsResponse(
            notifications=[wire.notification(each) for each in page.items],
            pagination=pagination(request, page),
            unread_count=unread,
        )

    async def MarkNotificationRead(
        self, request: pb.MarkNotificationReadRequest, call: Call
    ) -> pb.MarkNotificationReadResponse:
        notification = await self._store.mark_notification_read(call.identity, UUID(request.id))
        return pb.MarkNotificationReadResponse(notification=wire.notification(notification))

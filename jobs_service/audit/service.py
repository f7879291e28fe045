"""AuditService: a few lines for each RPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from google.api.httpbody_pb2 import HttpBody
from pipeline.audit.v1 import audit_pb2 as pb

from jobs_service.audit import wire
from jobs_service.audit.store import AuditStore
from jobs_service.wire import page_of, pagination
from rpc.boundary import Call


class AuditService:
    """Lists and exports a user's audit events."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, call: Call) -> pb.ListAuditEventsResponse:
        page = await self._store.list_events(call.identity, **page_of(request), action=wire.action(request))
        return pb.ListAuditEventsResponse(events=map(wire.event, page.items), pagination=pagination(request, page))

    async def ExportAuditEvents(
        self, request: pb.ExportAuditEventsRequest, call: Call
    ) -> AsyncGenerator[HttpBody, None]:
        async for events in self._store.export(call.identity, action=wire.action(request)):
            yield HttpBody(content_type="application/jsonl", data=wire.json_lines(events))

"""Server streams as server-sent events.

A message becomes one event: `id` is its field `id`, the event's name and data are those of the field that its oneof has set.
A quiet stream is kept open with comments; one that cannot go on says why with `event: error` or `event: end`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from google.protobuf.message import Message

from gateway.api.encode import Write, field_writer
from gateway.api.routes import EVENT_STREAM, Metadata, Route, Transcoder
from gateway.exchange import Exchange, error_body, stop_when_client_leaves
from rpc.status import failure_of, log_failure

PING_SECONDS = 15.0
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # Proxies hold back what they buffer.
    (b"x-accel-buffering", b"no"),
]
ENDED: Any = object()


async def stream(
    exchange: Exchange,
    transcoder: Transcoder,
    route: Route,
    variables: dict[str, bytes],
    metadata: Metadata,
    *,
    closing: asyncio.Event,
    expires_at: float,
) -> None:
    """Answers with the events of a server stream, until it ends, the token does, or `closing` is set.

    An error before the first event is raised and has an HTTP status of its own.
    """
    exchange.accepts(EVENT_STREAM)
    if exchange.method == "HEAD":
        await exchange.send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await exchange.send({"type": "http.response.body", "body": b""})
        return
    message = await transcoder.request(exchange, route, variables)
    show = _event_writer(route)
    async with stop_when_client_leaves(exchange, delay_seconds=0):
        call = route.call(message, metadata=metadata, timeout=route.method.max_timeout_seconds)
        events = aiter(call)
        pending = asyncio.ensure_future(anext(events, ENDED))
        stop = asyncio.create_task(closing.wait(), name="wait-for-closing")
        try:
            first = await pending
            await exchange.send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await _send(exchange, b"" if first is ENDED else show(first))
            while first is not ENDED:
                pending = asyncio.ensure_future(anext(events, ENDED))
                end = await _relay_next(exchange, pending, stop, expires_at)
                if end is not None:
                    await _send(exchange, _frame("end", {"reason": end}))
                    break
                try:
                    following = pending.result()
                except Exception as error:
                    failure = failure_of(error)
                    log_failure(error, failure, rpc=route.method.path, request_id=exchange.request_id)
                    exchange.reason = failure.reason
                    await _send(exchange, _frame("error", error_body(failure, exchange.request_id)))
                    break
                if following is ENDED:
                    break
                await _send(exchange, show(following))
            await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            pending.cancel()
            stop.cancel()
            await asyncio.gather(pending, stop, return_exceptions=True)
            call.cancel()


async def _relay_next(
    exchange: Exchange, pending: asyncio.Future[Any], stop: asyncio.Task[Any], expires_at: float
) -> str | None:
    """Waits for the next event and keeps the connection awake. Returns why the stream must end, None where it need not."""
    while True:
        left = expires_at - time.time()
        if left <= 0:
            return "auth"
        done, _ = await asyncio.wait(
            {pending, stop}, timeout=min(PING_SECONDS, left), return_when=asyncio.FIRST_COMPLETED
        )
        if pending in done:
            return None
        if stop in done:
            return "server_stops"
        await _send(exchange, b": ping\n\n")


async def _send(exchange: Exchange, data: bytes) -> None:
    await exchange.send({"type": "http.response.body", "body": data, "more_body": True})


def _event_writer(route: Route) -> Callable[[Message], bytes]:
    message = route.method.descriptor.output_type
    (group,) = message.oneofs
    writers: Mapping[str, Write] = {field.name: field_writer(message, field.name) for field in group.fields}

    def show(event: Any) -> bytes:
        name = event.WhichOneof(group.name)
        return _frame(name, writers[name](event), event.id)

    return show


def _frame(name: str, data: Any, event_id: str = "") -> bytes:
    # JSON has no bare line breaks, so one data line holds any text.
    head = f"id: {event_id}\nevent: {name}\ndata: " if event_id else f"event: {name}\ndata: "
    return head.encode() + orjson.dumps(data) + b"\n\n"

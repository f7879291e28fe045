"""Server streams as server-sent events.

Each message is one event: `id` is its field `id`, and `event` and `data` are the name and value of the field that is set in its
oneof. A silent stream gets a comment every `PING_SECONDS`. The event `error` or `end` says why a stream ended early.
A client that reconnects sends the last id. `routes.py` passes it on as `last_event_id`; the service sends what follows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.api.downloads import download_response, open_stream
from gateway.api.encode import field_encoder
from gateway.api.headers import check_accept
from gateway.errors import error_body
from rpc.methods import Method
from rpc.status import failure_of, log_failure

EVENT_STREAM = "text/event-stream"
PING_SECONDS = 15.0
# Keep proxies from compressing events, and nginx from buffering them: either would delay them.
EVENT_HEADERS = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}


async def stream_response(
    request: Request,
    method: Method,
    call: Callable[..., Any],
    message: Callable[[], Awaitable[Message]],
    metadata: list[tuple[str, str]],
    *,
    opening: asyncio.Semaphore,
    closing: asyncio.Event,
    expires_at: float,
) -> Response:
    """Starts a server stream and returns its response: events, or the file of `downloads.py`.

    Waits for the first message, so that an error before it is raised and becomes an HTTP status. Events end with the stream, at
    `expires_at` (when the token expires, seconds since the epoch) and when `closing` is set. `opening` limits how many event
    streams wait for their first message at once.
    """
    output = method.descriptor.output_type
    if output.full_name == HttpBody.DESCRIPTOR.full_name:
        return await download_response(request, method, call, message, metadata)
    check_accept(request, EVENT_STREAM)
    if request.method == "HEAD":
        return Response(headers=EVENT_HEADERS, media_type=EVENT_STREAM)
    rpc_request = await message()
    async with opening:
        rpc = call(rpc_request, metadata=metadata, timeout=method.max_timeout_seconds)
        messages, first = await open_stream(rpc)
    events = _Events(rpc, messages, _event_encoder(output), request, method)
    return StreamingResponse(
        events.frames(first, closing=closing, expires_at=expires_at), headers=EVENT_HEADERS, media_type=EVENT_STREAM
    )


class _Events:
    """The events of one stream."""

    def __init__(
        self, rpc: Any, messages: Any, encode: Callable[[Any], bytes], request: Request, method: Method
    ) -> None:
        self._rpc = rpc
        self._messages = messages
        self._encode = encode
        self._request = request
        self._method = method

    async def frames(
        self, first: Message | None, *, closing: asyncio.Event, expires_at: float
    ) -> AsyncGenerator[bytes, None]:
        """Yields the events as bytes, and cancels the RPC when they are no longer read."""
        stop = asyncio.create_task(closing.wait(), name="wait-for-closing")
        message, pending = first, None
        try:
            while message is not None:
                yield self._encode(message)
                pending = asyncio.ensure_future(anext(self._messages, None))
                while not pending.done():
                    remaining = expires_at - time.time()
                    if remaining <= 0 or stop.done():
                        yield _frame("end", {"reason": "auth" if remaining <= 0 else "server_stops"})
                        return
                    timeout = min(PING_SECONDS, remaining)
                    done, _ = await asyncio.wait({pending, stop}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                    if not done and timeout == PING_SECONDS:
                        yield b": ping\n\n"
                message = pending.result()
        except Exception as error:
            yield self._error_frame(error)
        finally:
            for task in (stop, pending):
                if task is not None:
                    task.cancel()
            self._rpc.cancel()
            await asyncio.gather(stop, *([pending] if pending else []), return_exceptions=True)

    def _error_frame(self, error: Exception) -> bytes:
        failure = failure_of(error)
        state = self._request.scope["state"]
        state["reason"] = failure.reason
        log_failure(error, failure, rpc=self._method.path, request_id=state["request_id"])
        return _frame("error", error_body(failure, state["request_id"]))


def _event_encoder(message: Descriptor) -> Callable[[Any], bytes]:
    (group,) = message.oneofs
    encoders = {field.name: field_encoder(message, field.name) for field in group.fields}

    def encode(event: Any) -> bytes:
        name = event.WhichOneof(group.name)
        return _frame(name, encoders[name](event), event.id)

    return encode


def _frame(name: str, data: Any, event_id: str = "") -> bytes:
    # JSON has no bare line breaks, so one data line holds any text.
    head = f"id: {event_id}\nevent: {name}\ndata: " if event_id else f"event: {name}\ndata: "
    return head.encode() + orjson.dumps(data) + b"\n\n"

"""The boundary over grpc.aio: servers that answer through it, and channels to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from rpc.boundary import STATUS_METADATA, Boundary, Refused, as_mapping, failure_of
from rpc.errors import BufferOverrun
from rpc.methods import Method, methods

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 8 * 1024
# A gateway has one connection for all its callers' calls and watches. How many are worked on is the boundary's to limit.
MAX_STREAMS_PER_CONNECTION = 4096
# A client that takes no message for this long is not waited for.
SEND_TIMEOUT_SECONDS = 30.0

SERVER_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Below the soft limit nothing is refused, above the hard one everything: one number leaves nothing to chance.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
    # Clients look for servers when they connect: after a while they must, or new ones get no calls. Open calls go on.
    ("grpc.max_connection_age_ms", 300_000),
    # Who connects and says nothing is not waited for.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
]


class Handlers(grpc.GenericRpcHandler):
    """The methods of all servicers of a server; they take `(message, Call)`, and every call goes through the boundary.

    Handlers are wrapped here and not in an interceptor: an interceptor costs each call another task switch, and it
    sees bytes that do not decode only as an exception that reaches the client with its text.
    """

    def __init__(self, services: Mapping[ServiceDescriptor, Any], boundary: Boundary) -> None:
        self._handlers: dict[str, Callable[[Any], _Answered | _Streamed]] = {
            method.path: partial(
                _Streamed if method.server_streaming else _Answered, boundary, method, getattr(servicer, method.name)
            )
            for service, servicer in services.items()
            for method in methods(service)
        }

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        """The handler of a call; None: there is none of that name."""
        handler = self._handlers.get(call.method)
        return handler(call.invocation_metadata) if handler is not None else None


Context = grpc.aio.ServicerContext[Any, Any]


class _Handler:
    """What the library takes for the handler of one call. It has the metadata, which a context makes anew whenever it is asked.

    No deserializer: bytes that do not decode are the boundary's to refuse. And whatever comes in is read as a stream: the
    library's own handlers of one message never answer a call that ends without it, and wait for it without a deadline.
    """

    request_streaming = True
    request_deserializer = response_serializer = None

    def __init__(self, boundary: Boundary, method: Method, handler: Any, metadata: Any) -> None:
        self._boundary, self._method, self._handler, self._metadata = boundary, method, handler, metadata


class _Answered(_Handler):
    response_streaming = False

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        method = self._method
        request = _Incoming(context) if method.client_streaming else context.read
        try:
            answer = await self._boundary.run(
                method, self._handler, request, as_mapping(self._metadata), context.time_remaining()
            )
            return bytes(answer.SerializeToString())
        except Refused as refused:
            await abort(context, refused)
            raise


class _Streamed(_Handler):
    response_streaming = True

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        stream = self._boundary.stream(
            self._method, self._handler, context.read, as_mapping(self._metadata), context.time_remaining()
        )
        try:
            async with stream as messages:
                async for message in messages:
                    try:
                        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                            await context.write(message.SerializeToString())
                    except TimeoutError:
                        raise Refused(failure_of(BufferOverrun()), "") from None
        except Refused as refused:
            await abort(context, refused)


class _Incoming:
    """The messages of a call. The library's own iterator is a generator, and one that is left half-way costs a task."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> _Incoming:
        return self

    async def __anext__(self) -> bytes:
        message = await self._context.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return bytes(message)


async def abort(context: Context, refused: Refused) -> None:
    """Ends a call with a refusal: its status, and the details."""
    status = refused.failure.to_status(refused.request_id)
    trailing = ((STATUS_METADATA, status.SerializeToString()),)
    await context.abort(refused.failure.code, refused.failure.message, trailing)


def open_channel(
    address: str, services: Iterable[ServiceDescriptor], credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """Opens the one channel to a server, in the clear where there are no credentials.

    Calls that are safe to repeat are, a few times and with pauses of random length, where the server was not there to
    answer or the call met another one in the database.
    """
    repeatable = [
        {"service": method.descriptor.containing_service.full_name, "method": method.name}
        for service in services
        for method in methods(service)
        if method.safe_to_repeat
    ]
    config = {
        # While most calls fail, repeating them only adds to what the server cannot do.
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.2},
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": repeatable,
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "ABORTED"],
                },
            }
        ],
    }
    options = [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
    ]
    if credentials is not None:
        return grpc.aio.secure_channel(address, credentials, options)
    return grpc.aio.insecure_channel(address, options)

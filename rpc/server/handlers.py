"""Handlers of grpc.aio that pass calls to the boundary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from rpc.boundary import Boundary
from rpc.errors import BufferOverrun
from rpc.identity.origin import PEER
from rpc.metadata import as_mapping
from rpc.methods import Method, methods
from rpc.status import CallFailed, failure_of

# A response stream ends if its client reads no message for this long.
SEND_TIMEOUT_SECONDS = 30.0

Context = grpc.aio.ServicerContext[Any, Any]


class Handlers(grpc.GenericRpcHandler):
    """The RPCs of a server's services; their methods take `(message, Call)`.

    Not an interceptor: an interceptor costs each call a task switch, and bytes that cannot be decoded reach it as an
    exception whose text is sent to the client.
    """

    def __init__(self, services: Mapping[ServiceDescriptor, Any], boundary: Boundary) -> None:
        self._handlers: dict[str, Callable[[Any], _UnaryHandler | _StreamHandler]] = {
            method.path: partial(
                _StreamHandler if method.server_streaming else _UnaryHandler,
                boundary,
                method,
                getattr(servicer, method.name),
            )
            for service, servicer in services.items()
            for method in methods(service)
        }

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        """Returns the handler of a call; None if there is no RPC of that name."""
        handler = self._handlers.get(call.method)
        return handler(call.invocation_metadata) if handler is not None else None


class _Handler:
    """A handler of one call. It stores the metadata, because a context copies it on every access.

    There is no deserializer: the boundary decodes the request. Requests are always read as a stream: grpc.aio's handlers of
    a single request never respond to a call that ends without one, and wait for it without a deadline.
    """

    request_streaming = True
    request_deserializer = response_serializer = None

    def __init__(self, boundary: Boundary, method: Method, handler: Any, metadata: Any) -> None:
        self._boundary, self._method, self._handler, self._metadata = boundary, method, handler, metadata


class _UnaryHandler(_Handler):
    response_streaming = False

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        request = Requests(context) if self._method.client_streaming else context.read
        try:
            response = await self._boundary.run(
                self._method,
                self._handler,
                request,
                {**as_mapping(self._metadata), PEER: context.peer()},
                context.time_remaining(),
            )
            return bytes(response.SerializeToString())
        except CallFailed as failed:
            await abort(context, failed)
            raise


class _StreamHandler(_Handler):
    response_streaming = True

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        stream = self._boundary.stream(
            self._method,
            self._handler,
            context.read,
            {**as_mapping(self._metadata), PEER: context.peer()},
            context.time_remaining(),
        )
        try:
            async with stream as messages:
                async for message in messages:
                    try:
                        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                            await context.write(message.SerializeToString())
                    except TimeoutError:
                        raise CallFailed(failure_of(BufferOverrun()), "") from None
        except CallFailed as failed:
            await abort(context, failed)


class Requests:
    """The messages of a client stream. grpc.aio's own iterator is a generator: leaving it early costs a task."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> bytes:
        message = await self._context.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return bytes(message)


async def abort(context: Context, failed: CallFailed) -> None:
    """Ends a call with the status of a failure."""
    await context.abort(failed.failure.code, failed.failure.message, failed.status_metadata())

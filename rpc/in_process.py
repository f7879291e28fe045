"""A channel to servicers in the same process: calls go through the same boundary, but over no connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from rpc.boundary import Boundary
from rpc.metadata import as_mapping
from rpc.methods import Method, methods
from rpc.status import CallFailed
from rpc.stream import Stream

Pairs = Sequence[tuple[str, str | bytes]]


class LocalChannel:
    """Implements the part of grpc.aio's channel that generated stubs and the gateway use.

    Messages are not copied: a receiver must not change them.
    """

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary
        self._handlers: dict[str, tuple[Method, Any]] = {}

    def add_service(self, service: ServiceDescriptor, servicer: Any) -> None:
        """Adds a servicer whose methods take `(message, Call)`."""
        for method in methods(service):
            self._handlers[method.path] = method, getattr(servicer, method.name)

    def unary_unary(self, path: str, *_: Any, **__: Any) -> Callable[..., Awaitable[Any]]:
        """Returns the callable of an RPC; it takes `(request, *, metadata, timeout)` and raises AioRpcError."""
        method, handler = self._handlers[path]

        async def call(
            request: Message | AsyncIterator[Message],
            *,
            metadata: Pairs = (),
            timeout: float | None = None,  # noqa: ASYNC109 - grpc.aio's own signature
            **_: Any,
        ) -> Any:
            try:
                return await self._boundary.run(method, handler, request, as_mapping(metadata), timeout, counted=True)
            except CallFailed as failed:
                raise _as_rpc_error(failed) from failed

        return call

    stream_unary = unary_unary

    def unary_stream(self, path: str, *_: Any, **__: Any) -> Callable[..., LocalStream]:
        """Returns the callable of a server-streaming RPC; iterating over its responses raises AioRpcError."""
        method, handler = self._handlers[path]

        def call(request: Message, *, metadata: Pairs = (), timeout: float | None = None, **_: Any) -> LocalStream:
            stream = self._boundary.stream(method, handler, request, as_mapping(metadata), timeout, counted=True)
            return LocalStream(stream)

        return call


class LocalStream:
    """Implements the part of grpc.aio's server-streaming call that the gateway uses."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __aiter__(self) -> LocalStream:
        return self

    async def __anext__(self) -> Message:
        try:
            return await anext(self._stream)
        except CallFailed as failed:
            raise _as_rpc_error(failed) from failed

    async def read(self) -> Any:
        """Returns the next message, or `grpc.aio.EOF`."""
        return await anext(self, grpc.aio.EOF)

    def cancel(self) -> bool:
        """Ends the call."""
        self._stream.cancel()
        return True


def _as_rpc_error(failed: CallFailed) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        failed.failure.code,
        initial_metadata=grpc.aio.Metadata(),
        trailing_metadata=grpc.aio.Metadata(*failed.status_metadata()),
        details=failed.failure.message,
    )

"""Health and reflection services. They need no token, so each is limited to 256 open streams."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from rpc.boundary import decode
from rpc.errors import ServiceError, TooLarge, TooManyWatches, UnknownService
from rpc.metadata import accept_request_id
from rpc.server.handlers import Context, abort
from rpc.status import CallFailed, failure_of

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# Open streams of each kind.
MAX_STREAMS = 256
# A request contains a name, and is sent together with the call.
MAX_REQUEST_BYTES = 4 * 1024
REQUEST_TIMEOUT_SECONDS = 5.0
# Reflection clients read everything within seconds.
REFLECTION_TIMEOUT_SECONDS = 60.0

HandleCall = Callable[[Context], Awaitable[None]]
Response = health_pb2.HealthCheckResponse

log = structlog.get_logger()


class HealthAndReflection(grpc.GenericRpcHandler):
    """Handlers of `grpc.health.v1.Health` and of server reflection.

    The handlers of grpcio-health-checking and grpcio-reflection do not limit open streams, and in the former a client that
    does not read its watch blocks all other watches. All `services` have the health of the process.
    """

    def __init__(self, services: Iterable[str], reflection_servicer: reflection.aio.ReflectionServicer | None) -> None:
        self._services = frozenset(("", *services))
        self._status: Any = Response.NOT_SERVING
        self._changed = asyncio.Event()
        self._open: Counter[str] = Counter()
        calls: dict[str, HandleCall] = {f"/{HEALTH}/Check": self._check, f"/{HEALTH}/Watch": self._watch}
        if reflection_servicer is not None:
            path = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
            calls[path] = partial(self._reflect, reflection_servicer.ServerReflectionInfo)
        self._handlers = {path: _handler(path, handle) for path, handle in calls.items()}

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the handler of a call; None if there is no RPC of that name."""
        return self._handlers.get(call.method)

    def set_status(self, healthy: bool) -> None:
        """Sets the health of all services."""
        self._status = Response.SERVING if healthy else Response.NOT_SERVING
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _check(self, context: Context) -> None:
        # Not limited: other clients must not make a probe fail, and the call is short.
        request = await _read(context, health_pb2.HealthCheckRequest)
        if request.service not in self._services:
            raise UnknownService
        await context.write(Response(status=self._status))

    async def _watch(self, context: Context) -> None:
        with self._limit_streams("health watches"):
            request = await _read(context, health_pb2.HealthCheckRequest)
            sent = None
            while True:
                changed = self._changed
                status = self._status if request.service in self._services else Response.SERVICE_UNKNOWN
                if status != sent:
                    await context.write(Response(status=status))
                    sent = status
                await changed.wait()

    async def _reflect(self, handler: Callable[..., Any], context: Context) -> None:
        async def read_all() -> AsyncGenerator[Message, None]:
            while (data := await context.read()) is not grpc.aio.EOF:
                yield _decode(reflection_pb2.ServerReflectionRequest, data)

        with self._limit_streams("reflection streams"):
            async with (
                asyncio.timeout(REFLECTION_TIMEOUT_SECONDS),
                aclosing(read_all()) as requests,
                aclosing(handler(requests, context)) as responses,
            ):
                async for response in responses:
                    await context.write(response)

    @contextmanager
    def _limit_streams(self, kind: str) -> Iterator[None]:
        if self._open[kind] >= MAX_STREAMS:
            raise TooManyWatches(kind)
        self._open[kind] += 1
        try:
            yield
        finally:
            self._open[kind] -= 1


def _handler(path: str, handle: HandleCall) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.stream_stream_rpc_method_handler(
        partial(_run, path, handle), response_serializer=lambda message: message.SerializeToString()
    )


async def _run(path: str, handle: HandleCall, requests: AsyncIterator[bytes], context: Context) -> None:
    try:
        await handle(context)
        log.debug("call", rpc=path, code="OK")
    except (ServiceError, TimeoutError) as error:
        failed = CallFailed(failure_of(error), accept_request_id(None))
        failure = failed.failure
        log.info("call", rpc=path, code=failure.code.name, reason=failure.reason, request_id=failed.request_id)
        await abort(context, failed)


async def _read(context: Context, message_type: type[Message]) -> Any:
    async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
        data = await context.read()
    return _decode(message_type, data)


def _decode(message_type: type[Message], data: Any) -> Message:
    if isinstance(data, bytes) and len(data) > MAX_REQUEST_BYTES:
        raise TooLarge(details=f"A request may have at most {MAX_REQUEST_BYTES} bytes.")
    return decode(message_type, data)

"""What anybody may call, without a token: health and reflection. Bounded, for there is nobody to hold to a limit."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from rpc.boundary import Refused, accept_request_id, failure_of
from rpc.errors import MalformedRequest, NoMessage, ServiceError, TooLarge, TooManyWatches
from rpc.remote import Context, abort

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# Open at once, of each kind.
MAX_STREAMS = 256
# A question is a name; it comes with the call.
MAX_QUESTION_BYTES = 4 * 1024
QUESTION_SECONDS = 5.0
# Who reflects asks all there is in a moment.
REFLECTION_SECONDS = 60.0

Behave = Callable[[Context], Awaitable[None]]


class Anybody(grpc.GenericRpcHandler):
    """Answers for the library's servicers, whose own handlers wait for any number of callers, for ever."""

    def __init__(self, health: health_aio.HealthServicer, reflecting: reflection.aio.ReflectionServicer | None) -> None:
        self._health = health
        self._open: Counter[str] = Counter()
        self._handlers = {f"/{HEALTH}/Check": _handler(self._check), f"/{HEALTH}/Watch": _handler(self._watch)}
        if reflecting is not None:
            path = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
            self._handlers[path] = _handler(partial(self._reflect, reflecting.ServerReflectionInfo))

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call; None: there is none of that name."""
        return self._handlers.get(call.method)

    async def _check(self, context: Context) -> None:
        # Not counted: whoever is watched by it is not to seem down because of others, and it ends by itself.
        question = await _question(context, health_pb2.HealthCheckRequest)
        await context.write(await self._health.Check(question, context))

    async def _watch(self, context: Context) -> None:
        with self._place("watches of health"):
            await self._health.Watch(await _question(context, health_pb2.HealthCheckRequest), context)

    async def _reflect(self, answers: Callable[..., Any], context: Context) -> None:
        async def questions() -> AsyncGenerator[Message, None]:
            while (data := await context.read()) is not grpc.aio.EOF:
                yield _decoded(reflection_pb2.ServerReflectionRequest, data)

        with self._place("reflections"):
            async with asyncio.timeout(REFLECTION_SECONDS), aclosing(questions()) as asked:
                async for answer in answers(asked, context):
                    await context.write(answer)

    @contextmanager
    def _place(self, what: str) -> Iterator[None]:
        if self._open[what] >= MAX_STREAMS:
            raise TooManyWatches("Server busy", details=f"Too many {what} at once; try again in a while.")
        self._open[what] += 1
        try:
            yield
        finally:
            self._open[what] -= 1


def _handler(behave: Behave) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.stream_stream_rpc_method_handler(
        partial(_answered, behave), response_serializer=lambda message: message.SerializeToString()
    )


async def _answered(behave: Behave, requests: AsyncIterator[bytes], context: Context) -> None:
    try:
        await behave(context)
    except (ServiceError, TimeoutError) as error:
        await abort(context, Refused(failure_of(error), accept_request_id(None)))


async def _question(context: Context, kind: type[Message]) -> Any:
    async with asyncio.timeout(QUESTION_SECONDS):
        data = await context.read()
    if data is grpc.aio.EOF:
        raise NoMessage("No message", details="The call ended without a request.")
    return _decoded(kind, data)


def _decoded(kind: type[Message], data: bytes) -> Message:
    if len(data) > MAX_QUESTION_BYTES:
        raise TooLarge("Too large", details=f"A question may have {MAX_QUESTION_BYTES} bytes at most.")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise MalformedRequest("Malformed request", details=f"The bytes are not a {kind.DESCRIPTOR.name}.") from None

"""What anybody may call, without a token: health and reflection. Bounded, for there is nobody to hold to a limit."""

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

from rpc.boundary import Refused, accept_request_id, decoded, failure_of
from rpc.errors import ServiceError, TooLarge, TooManyWatches, UnknownService
from rpc.grpc_server import Context, abort

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# Open at once, of each kind.
MAX_STREAMS = 256
# A question is a name; it comes with the call.
MAX_QUESTION_BYTES = 4 * 1024
QUESTION_SECONDS = 5.0
# Who reflects asks all there is in a moment.
REFLECTION_SECONDS = 60.0

Behave = Callable[[Context], Awaitable[None]]
Status = health_pb2.HealthCheckResponse

log = structlog.get_logger()


class Anybody(grpc.GenericRpcHandler):
    """Answers what the library's own handlers let any number of callers wait for, for ever.

    Health is ours altogether: the library's watchers wait for one another, so that one who takes no message stops them and
    whoever has news. All `services` are as well as the process is.
    """

    def __init__(self, services: Iterable[str], reflecting: reflection.aio.ReflectionServicer | None) -> None:
        self._services = frozenset(("", *services))
        self._status: Any = Status.NOT_SERVING
        self._changed = asyncio.Event()
        self._open: Counter[str] = Counter()
        behaviors = {f"/{HEALTH}/Check": self._check, f"/{HEALTH}/Watch": self._watch}
        if reflecting is not None:
            path = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
            behaviors[path] = partial(self._reflect, reflecting.ServerReflectionInfo)
        self._handlers = {path: _handler(path, behave) for path, behave in behaviors.items()}

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call; None: there is none of that name."""
        return self._handlers.get(call.method)

    def tell(self, healthy: bool) -> None:
        """Sets the health of all services."""
        self._status = Status.SERVING if healthy else Status.NOT_SERVING
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _check(self, context: Context) -> None:
        # Not counted: whoever is watched by it is not to seem down because of others, and it ends by itself.
        question = await _question(context, health_pb2.HealthCheckRequest)
        if question.service not in self._services:
            raise UnknownService
        await context.write(Status(status=self._status))

    async def _watch(self, context: Context) -> None:
        with self._place("watches of health"):
            question = await _question(context, health_pb2.HealthCheckRequest)
            told = None
            while True:
                changed = self._changed
                status = self._status if question.service in self._services else Status.SERVICE_UNKNOWN
                if status != told:
                    await context.write(Status(status=status))
                    told = status
                await changed.wait()

    async def _reflect(self, answers: Callable[..., Any], context: Context) -> None:
        async def questions() -> AsyncGenerator[Message, None]:
            while (data := await context.read()) is not grpc.aio.EOF:
                yield _decoded(reflection_pb2.ServerReflectionRequest, data)

        with self._place("reflections"):
            async with (
                asyncio.timeout(REFLECTION_SECONDS),
                aclosing(questions()) as asked,
                aclosing(answers(asked, context)) as told,
            ):
                async for answer in told:
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


def _handler(path: str, behave: Behave) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.stream_stream_rpc_method_handler(
        partial(_answered, path, behave), response_serializer=lambda message: message.SerializeToString()
    )


async def _answered(path: str, behave: Behave, requests: AsyncIterator[bytes], context: Context) -> None:
    try:
        await behave(context)
        log.debug("call", rpc=path, code="OK")
    except (ServiceError, TimeoutError) as error:
        refused = Refused(failure_of(error), accept_request_id(None))
        log.info(
            "call",
            rpc=path,
            code=refused.failure.code.name,
            reason=refused.failure.reason,
            request_id=refused.request_id,
        )
        await abort(context, refused)


async def _question(context: Context, kind: type[Message]) -> Any:
    async with asyncio.timeout(QUESTION_SECONDS):
        data = await context.read()
    return _decoded(kind, data)


def _decoded(kind: type[Message], data: Any) -> Message:
    if isinstance(data, bytes) and len(data) > MAX_QUESTION_BYTES:
        raise TooLarge("Too large", details=f"A question may have {MAX_QUESTION_BYTES} bytes at most.")
    return decoded(kind, data)

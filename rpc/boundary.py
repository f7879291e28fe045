"""The code around every call: request id, identity, limits, the contract's constraints, deadline, log line, metrics, span.

`server.handlers` (gRPC) and `in_process` call it. It calls a servicer's method with a decoded, valid message and a `Call`.
The servicer may raise ServiceErrors; `status` turns them into statuses.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import protovalidate
import structlog
from google.protobuf.message import DecodeError, Message

from rpc import errors
from rpc.identity.model import Identity, Role
from rpc.identity.origin import CLIENT_ADDRESS, PEER, Origin, current_origin
from rpc.identity.tokens import Verifier
from rpc.limits import FairLimit
from rpc.metadata import REQUEST_ID, Metadata, accept_request_id, text
from rpc.methods import Method
from rpc.process.settings import CommonSettings
from rpc.status import CANCELLED, INTERNAL, CallFailed, Failure, failure_of, log_failure
from rpc.stream import Stream
from rpc.telemetry.exporters import Telemetry
from rpc.telemetry.traces import SERVER_ERRORS, TRACEPARENT, trace_rpc

# A client sends the message together with the call.
RECEIVE_TIMEOUT_SECONDS = 5.0
# Limit of calls whose message has not arrived, relative to the limit of calls at work. Such a call needs little memory.
RECEIVING_FACTOR = 4
# Longest random pause before each retry of a call whose transaction conflicted with another, seconds.
RETRY_SECONDS = (0.01, 0.05, 0.2)

log = structlog.get_logger()
T = TypeVar("T")

# Reads the one message of a call from the wire; `grpc.aio.EOF` if the call ends without one.
Receive = Callable[[], Awaitable[Any]]
Handler = Callable[[Any, "Call"], Awaitable[Message]]
StreamHandler = Callable[[Any, "Call"], AsyncGenerator[Message, None]]


class Call(NamedTuple):
    """The call that a servicer handles. `deadline` is in the event loop's time, seconds.

    A long stream calls `recheck` at intervals and ends when `draining` is set: the server stops.
    """

    identity: Identity
    request_id: str
    token: str
    deadline: float
    verifier: Verifier
    draining: asyncio.Event
    traceparent: str | None = None

    def remaining_seconds(self) -> float:
        """Seconds until the caller's deadline; never negative."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    async def recheck(self) -> None:
        """Raises Unauthenticated if the token is no longer valid."""
        await self.verifier.identify(f"Bearer {self.token}")

    def consume_rate(self, calls: float) -> None:
        """Counts further calls in the caller's rate, for a call that costs as much as several. Raises RateLimited."""
        self.verifier.consume_rate(self.identity, calls)

    def forward(self) -> list[tuple[str, str]]:
        """Metadata for a call on behalf of this one: the caller's own token, the same request id and trace."""
        metadata = [("authorization", f"Bearer {self.token}"), (REQUEST_ID, self.request_id)]
        return [*metadata, (TRACEPARENT, self.traceparent)] if self.traceparent else metadata


class Boundary:
    """Runs calls. One per process: its limits are the process's."""

    def __init__(self, settings: CommonSettings, verifier: Verifier, telemetry: Telemetry | None = None) -> None:
        self._verifier = verifier
        self._default_timeout = settings.default_timeout_ms / 1000
        # Calls whose token is being verified, calls whose message has not arrived, short calls at work, and long ones.
        self._max_verifying, self._verifying = settings.max_concurrent_calls, 0
        self._receiving = FairLimit(RECEIVING_FACTOR * settings.max_concurrent_calls)
        self._working = FairLimit(settings.max_concurrent_calls)
        self._streams: Mapping[Role, FairLimit] = {
            "user": FairLimit(settings.max_watches, per_user=settings.max_watches_per_user),
            "worker": FairLimit(settings.max_worker_watches),
        }
        self.telemetry = telemetry or Telemetry()
        # Bound once: an unbound structlog logger resolves its configuration on every call.
        self._log = log.bind()
        self.draining = asyncio.Event()

    def watch_limits(self, service: str) -> None:
        """Registers metrics of calls at work and open streams, with the label `service`."""
        watch = self.telemetry.metrics.watch
        working, receiving = self._working, self._receiving
        watch("pipeline_calls_at_work_count", "Short calls at work.", partial(_total, working), service=service)
        watch(
            "pipeline_calls_receiving_count",
            "Calls whose message has not arrived.",
            partial(_total, receiving),
            service=service,
        )
        for role, limit in self._streams.items():
            watch(
                "pipeline_open_streams_count",
                "Open watches, uploads and waits.",
                partial(_total, limit),
                service=service,
                role=role,
            )

    async def run(
        self,
        method: Method,
        handler: Handler,
        request: Message | Receive | AsyncIterator[Message | bytes],
        metadata: Metadata,
        timeout_seconds: float | None,
        *,
        counted: bool = False,
    ) -> Message:
        """Returns the response of a call. Raises CallFailed, or CancelledError if the caller disconnected.

        `request` is a message, or reads it from the connection. `counted`: the call is already counted in the caller's
        rate.
        """
        # Uploads and waits may take long, so they do not count towards the limit of short calls.
        is_long = method.client_streaming or (method.max_timeout_seconds or 0) > self._default_timeout

        async def work(call: Call) -> Message:
            if callable(request) or isinstance(request, Message):
                message = await self._receive(method, request, call)
                with self._limited(call, is_long=is_long):
                    try:
                        response = await handler(message, call)
                    except errors.TransactionRolledBack:
                        response = await _retry(handler, message, call)
            else:
                with self._limited(call, is_long=is_long):
                    async with aclosing(_accept_each(method, request)) as messages:
                        response = await handler(messages, call)
            if not isinstance(response, method.response):
                raise TypeError(f"{method.path} returned a {type(response).__name__}")
            return response

        return await self._around(method, metadata, timeout_seconds, work, counted=counted)

    def stream(
        self,
        method: Method,
        handler: StreamHandler,
        request: Message | Receive,
        metadata: Metadata,
        timeout_seconds: float | None,
        *,
        counted: bool = False,
    ) -> Stream:
        """Starts a server-streaming call. Streams have their own limits."""

        async def pump(queue: asyncio.Queue[Message | Exception | None]) -> None:
            async def work(call: Call) -> None:
                message = await self._receive(method, request, call)
                with self._limited(call, is_long=True):
                    async with aclosing(handler(message, call)) as responses:
                        async for response in responses:
                            await queue.put(response)

            try:
                await self._around(method, metadata, timeout_seconds, work, counted=counted)
            except CallFailed as failed:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # It failed while it was being cancelled: nothing reads the queue any more.
                    raise asyncio.CancelledError from failed
                await queue.put(failed)
            else:
                await queue.put(None)

        return Stream(pump, f"stream {method.path}")

    async def _receive(self, method: Method, request: Message | Receive, call: Call) -> Message:
        """Returns the message of a call, decoded and checked. Until it has arrived, the call is not counted as at work."""
        if not callable(request):
            return _accept(method, request)
        with self._receiving.slot(call.identity.user_id, errors.Overloaded):
            async with asyncio.timeout(RECEIVE_TIMEOUT_SECONDS):
                data = await request()
        return _accept(method, data)

    def _limited(self, call: Call, *, is_long: bool) -> AbstractContextManager[None]:
        """Counts a call at work. Raises Overloaded or TooManyWatches if the caller's share of the limit is used up."""
        user, role = call.identity.user_id, call.identity.role
        if is_long:
            return self._streams[role].slot(user, errors.TooManyWatches)
        return self._working.slot(user, errors.Overloaded)

    async def _identify(self, authorization: str | None) -> tuple[Identity, str]:
        cached = self._verifier.cached_identity(authorization)
        if cached is not None:
            return cached
        if self._verifying >= self._max_verifying:
            raise errors.Overloaded
        self._verifying += 1
        try:
            return await self._verifier.identify(authorization)
        finally:
            self._verifying -= 1

    async def _around(
        self,
        method: Method,
        metadata: Metadata,
        timeout_seconds: float | None,
        work: Callable[[Call], Awaitable[T]],
        *,
        counted: bool,
    ) -> T:
        """Runs a call: identity, rate, role and scope, deadline, `work`, then the log line, metrics and span.

        It is not a context manager because that would double its cost.
        """
        started = time.perf_counter()
        span = trace_rpc(self.telemetry.tracer, method.path, metadata.get(TRACEPARENT))
        request_id = accept_request_id(text(metadata, REQUEST_ID))
        outer_origin = current_origin.set(Origin(request_id, text(metadata, PEER), text(metadata, CLIENT_ADDRESS)))
        identity: Identity | None = None
        failure: Failure | None = None
        max_timeout = method.max_timeout_seconds or self._default_timeout
        timeout = max_timeout if timeout_seconds is None else min(timeout_seconds, max_timeout)
        try:
            if timeout <= 0:
                raise errors.DeadlineExceeded
            deadline = asyncio.get_running_loop().time() + timeout
            async with asyncio.timeout_at(deadline):
                identity, token = await self._identify(text(metadata, "authorization"))
                if not counted:
                    self._verifier.consume_rate(identity)
                if identity.role not in method.roles:
                    allowed = " or ".join(sorted(method.roles))
                    raise errors.RoleNotAllowed(details=f"This call is for the role {allowed}.")
                if not identity.has_scope(scope := method.scope_for(identity.role)):
                    raise errors.ScopeNotAllowed(scope)
                return await work(
                    Call(identity, request_id, token, deadline, self._verifier, self.draining, span.traceparent)
                )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                failure = CANCELLED
                raise
            # A cancelled sub-task is not a cancelled call: the caller still gets a status.
            failure = INTERNAL
            log.exception("internal_error", rpc=method.path, request_id=request_id)
            raise CallFailed(failure, request_id) from None
        except Exception as error:
            failure = failure_of(error)
            log_failure(error, failure, rpc=method.path, request_id=request_id)
            raise CallFailed(failure, request_id) from error
        finally:
            # A call in the same process runs in its caller's task.
            current_origin.reset(outer_origin)
            code = failure.code.name if failure else "OK"
            seconds = time.perf_counter() - started
            self._log.info(
                "call",
                rpc=method.path,
                code=code,
                reason=failure.reason if failure else None,
                duration_ms=round(seconds * 1000, 2),
                user=identity.user_id if identity else None,
                request_id=request_id,
                trace_id=span.trace_id,
            )
            self.telemetry.metrics.observe_call(
                method.path[1:],
                code,
                seconds,
                reason=failure.reason if failure else None,
                trace_id=span.recorded_id,
            )
            span.end("rpc.response.status_code", code, is_error=code in SERVER_ERRORS)


def _total(limit: FairLimit) -> int:
    return limit.total


async def _retry(handler: Handler, request: Message, call: Call) -> Message:
    """Runs a handler again, up to `len(RETRY_SECONDS)` times. Its only transaction was rolled back."""
    *pauses, last = RETRY_SECONDS
    for pause in pauses:
        await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads load
        with suppress(errors.TransactionRolledBack):
            return await handler(request, call)
    await asyncio.sleep(random.uniform(0, last))  # noqa: S311 - the same
    return await handler(request, call)


def decode(message_type: type[Message], request: object) -> Message:
    """Returns the message of a request's bytes. Raises MalformedRequest, and NoMessage if the call ended without one."""
    if isinstance(request, Message):
        return request
    if not isinstance(request, bytes):
        raise errors.NoMessage
    try:
        return message_type.FromString(request)
    except DecodeError:
        raise errors.MalformedRequest(details=f"The bytes are not a {message_type.DESCRIPTOR.name}.") from None


def _accept(method: Method, request: object) -> Message:
    """Decodes a message and checks its size and the contract's constraints."""
    size = len(request) if isinstance(request, bytes) else request.ByteSize() if isinstance(request, Message) else 0
    if size > method.max_request_bytes:
        raise errors.TooLarge(details=f"A request may have at most {method.max_request_bytes:,} bytes.")
    message = decode(method.request, request)
    violations = protovalidate.collect_violations(message)
    if violations:
        raise errors.ValidationFailed([_violation(violation) for violation in violations])
    return message


async def _accept_each(method: Method, requests: AsyncIterator[Message | bytes]) -> AsyncGenerator[Message, None]:
    async for request in requests:
        yield _accept(method, request)


def _violation(violation: protovalidate.Violation) -> tuple[str, str]:
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None and element.subscript.field == "index":
            path += f"[{element.subscript.value}]"
    # `not_contains` quotes the forbidden text, and a NUL byte is invisible.
    message = (violation.proto.message or "is not valid").replace("`\0`", "NUL")
    return path, message

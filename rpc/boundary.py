"""What happens around every call, whatever carries it: request id, identity, limits, constraints, deadline, status, log.

`remote` and `local` bring calls here; servicers see a decoded, valid message and a `Call`, and raise what they mean.
Nothing else in the project names a status.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import grpc
import protovalidate
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from rpc import errors
from rpc.identity import Identity, Verifier
from rpc.methods import Answer, Method
from rpc.stream import Stream
from rpc.timers import Timers

DOMAIN = "pipeline"
STATUS_METADATA = "grpc-status-details-bin"
REQUEST_ID = "x-request-id"
REQUEST_ID_SHAPE = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Violations that one answer lists; a client that breaks more rules than this learns of the rest later.
MAX_VIOLATIONS = 50
# A status travels as metadata, which most clients take no more of than 8 KiB, in base64.
MAX_STATUS_BYTES = 5 * 1024
MAX_VIOLATION_CHARACTERS = 2_000
RETRY_AFTER_SECONDS = 1
# At most so long before each further run of a call whose transaction met another's.
AGAIN_AFTER_SECONDS = (0.01, 0.05, 0.2)
# What is over in a moment, beside what its status says that of.
PASSING = frozenset({"OVERLOADED", "RATE_LIMITED"})
# The same refusal over HTTP: by its status, unless its reason has a status of its own there.
HTTP_STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
HTTP_STATUS_OF_REASON: Mapping[str, int] = {
    "METHOD_NOT_ALLOWED": 405,
    "NOT_ACCEPTABLE": 406,
    "REQUEST_TIMEOUT": 408,
    "TOO_LARGE": 413,
    "URI_TOO_LONG": 414,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "HEADERS_TOO_LARGE": 431,
}

log = structlog.get_logger()
T = TypeVar("T")

# Waits for the one message of a call that comes over a wire; `grpc.aio.EOF` where the call ends without it.
Receive = Callable[[], Awaitable[Any]]
Handler = Callable[[Any, "Call"], Awaitable[Answer]]
StreamHandler = Callable[[Any, "Call"], AsyncGenerator[Message, None]]


class Call(NamedTuple):
    """What a servicer is told about the call it answers. `deadline` is in the event loop's time, seconds.

    Long streams `recheck` now and then; `draining` is set when the server stops.
    """

    identity: Identity
    request_id: str
    token: str
    deadline: float
    verifier: Verifier
    draining: asyncio.Event

    def remaining_seconds(self) -> float:
        """Seconds until the caller stops waiting; never negative."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    async def recheck(self) -> None:
        """Raises Unauthenticated where the token does not hold any more."""
        await self.verifier.identify(f"Bearer {self.token}")

    def forward(self) -> list[tuple[str, str]]:
        """Metadata for a call made on behalf of this one: the caller's own token and the same request id."""
        return [("authorization", f"Bearer {self.token}"), (REQUEST_ID, self.request_id)]


@dataclass(frozen=True, slots=True)
class Failure:
    """A refusal as every surface tells it: the parts of a `google.rpc.Status` with its ErrorInfo and BadRequest."""

    code: grpc.StatusCode
    reason: str
    message: str
    details: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()

    def to_status(self, request_id: str) -> status_pb2.Status:
        """The rich error model's form, with the request id in its ErrorInfo."""
        metadata = {**self.metadata, "request_id": request_id}
        if self.details:
            metadata["details"] = self.details
        details: list[Message] = [error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=metadata)]
        if self.violations:
            details.append(self._bad_request())
        if self.retryable:
            details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_SECONDS)))
        return status_pb2.Status(
            code=self.code.value[0], message=self.message, details=[_pack(each) for each in details]
        )

    def _bad_request(self) -> error_details_pb2.BadRequest:
        told = error_details_pb2.BadRequest()
        for path, message in self.violations:
            told.field_violations.add(field=path, description=message[:MAX_VIOLATION_CHARACTERS], reason=self.reason)
            if told.ByteSize() > MAX_STATUS_BYTES:
                del told.field_violations[-1]
                break
        return told

    @property
    def http_status(self) -> int:
        """Status of this refusal over HTTP."""
        return HTTP_STATUS_OF_REASON.get(self.reason) or HTTP_STATUS.get(self.code, 500)

    @property
    def retryable(self) -> bool:
        """Whether the same call may well succeed a little later."""
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED) or self.reason in PASSING


INTERNAL = Failure(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error", "This is our fault; quote the request id.")
CANCELLED = Failure(grpc.StatusCode.CANCELLED, "CANCELLED", "Call cancelled")


class Refused(Exception):
    """Carries a failure from the boundary to the transport that called it."""

    def __init__(self, failure: Failure, request_id: str) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.request_id = request_id


def failure_of(error: BaseException) -> Failure:
    """What callers may be told of an exception. Unknown ones are INTERNAL: their text stays in the log."""
    match error:
        case errors.ValidationFailed():
            violations = tuple(error.violations[:MAX_VIOLATIONS])
            return Failure(_code(error), error.reason, error.message, violations=violations)
        case errors.ServiceError():
            return Failure(_code(error), error.reason, error.message, error.details, error.metadata)
        case TimeoutError():
            return failure_of(errors.DeadlineExceeded())
        case grpc.aio.AioRpcError():
            return _upstream(error)
    return INTERNAL


def log_failure(error: Exception, failure: Failure, **about: str) -> None:
    """Logs what an operator should know of: a fault of ours, with its trace, and a service behind that is not there."""
    if failure.code is grpc.StatusCode.INTERNAL:
        log.error("internal_error", exc_info=error, **about)
    elif failure.reason == "SERVICE_UNAVAILABLE" and isinstance(error, grpc.aio.AioRpcError):
        log.warning("service_unavailable", error=error.details(), **about)


def _code(error: errors.ServiceError) -> grpc.StatusCode:
    return grpc.StatusCode[error.code]


def _upstream(error: grpc.aio.AioRpcError) -> Failure:
    """The failure of a call we made: our own services' word is passed on, anything else is about the way there."""
    told = dict(error.trailing_metadata() or ()).get(STATUS_METADATA)
    status = status_pb2.Status.FromString(told) if isinstance(told, bytes) else status_pb2.Status()
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(violations)
    if info.domain == DOMAIN:
        metadata = {key: value for key, value in info.metadata.items() if key not in ("details", "request_id")}
        fields = tuple((each.field, each.description) for each in violations.field_violations)
        return Failure(error.code(), info.reason, status.message, info.metadata.get("details", ""), metadata, fields)
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return failure_of(errors.DeadlineExceeded())
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Failure(error.code(), "TOO_LARGE", "Too large", "The message is larger than the service takes.")
        case grpc.StatusCode.UNIMPLEMENTED:
            return Failure(
                error.code(), "UNIMPLEMENTED", "Not implemented", "The service behind does not know this call."
            )
        # A server that shuts down cancels what it has: for the caller that is a server that is not there.
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            what = "The service behind does not answer now; try again in a few seconds."
            return Failure(grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE", "Service unavailable", what)
    return INTERNAL


def _pack(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def as_mapping(metadata: Iterable[tuple[str, str | bytes]] | None) -> Mapping[str, str | bytes]:
    """Metadata by key. What is there twice is joined, as HTTP does: two tokens are none."""
    pairs = tuple(metadata or ())
    found = dict(pairs)
    if len(found) < len(pairs):
        for key in found:
            texts = [value for name, value in pairs if name == key and isinstance(value, str)]
            if len(texts) > 1:
                found[key] = ", ".join(texts)
    return found


def accept_request_id(offered: str | None) -> str:
    """The caller's request id if it is one we can print anywhere, else a new one."""
    return offered if offered and REQUEST_ID_SHAPE.fullmatch(offered) else f"{random.getrandbits(128):032x}"


async def _again(handler: Handler, request: Message, call: Call) -> Answer:
    """Runs a handler again, a few times: it writes in one transaction, and that one did not, so nothing is done twice."""
    *pauses, last = AGAIN_AFTER_SECONDS
    for pause in pauses:
        await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads load
        with suppress(errors.Undone):
            return await handler(request, call)
    await asyncio.sleep(random.uniform(0, last))  # noqa: S311 - the same
    return await handler(request, call)


class Boundary:
    """Runs calls. One per process: its limits are the process's."""

    def __init__(
        self,
        verifier: Verifier,
        *,
        max_concurrent_calls: int,
        default_timeout_seconds: float,
        max_streams: int = 2_000,
        max_streams_per_user: int = 50,
    ) -> None:
        self._verifier = verifier
        self._limit = max_concurrent_calls
        self._default_timeout = default_timeout_seconds
        self._max_streams = max_streams
        self._max_streams_per_user = max_streams_per_user
        self._active = 0
        self._timers = Timers()
        # Asked of the module's logger, each line would look for its configuration again.
        self._log = log.bind()
        self._streams: Counter[str] = Counter()
        self.draining = asyncio.Event()

    async def run(
        self,
        method: Method,
        handler: Handler,
        request: Message | Receive | AsyncIterator[Message | bytes],
        metadata: Mapping[str, str | bytes],
        timeout_seconds: float | None,
        *,
        counted: bool = False,
        as_fields: bool = False,
    ) -> Any:
        """Answers one call, with a message. Raises Refused with what the caller is told, or CancelledError if it went away.

        `request` is a message of this process, or brings in what comes over a wire. `counted`: the caller's rate has this
        call already, from where it came into this process. `as_fields`: where the handler makes no message, none is made.
        """

        async def work(call: Call) -> Answer:
            if callable(request) or isinstance(request, Message):
                accepted = _accept(method, await request() if callable(request) else request)
                try:
                    answer = await handler(accepted, call)
                except errors.Undone:
                    answer = await _again(handler, accepted, call)
            else:
                async with aclosing(_each(method, request)) as messages:
                    answer = await handler(messages, call)
            return answer if as_fields else method.message(answer)

        if method.client_streaming or (method.max_timeout_seconds or 0) > self._default_timeout:
            # What may take long by its nature, waiting above all, must not take the places of what is quick.
            lasting = partial(self._as_stream, work)
            return await self._around(method, metadata, timeout_seconds, lasting, counted=counted)
        self._active += 1
        try:
            busy = self._active > self._limit
            return await self._around(method, metadata, timeout_seconds, work, counted=counted, busy=busy)
        finally:
            self._active -= 1

    def stream(
        self,
        method: Method,
        handler: StreamHandler,
        request: Message | Receive,
        metadata: Mapping[str, str | bytes],
        timeout_seconds: float | None,
        *,
        counted: bool = False,
    ) -> Stream:
        """Starts one server-streaming call. It does not count as a call at work: streams have limits of their own."""

        async def pump(handoff: asyncio.Queue[Message | Exception | None]) -> None:
            async def work(call: Call) -> None:
                accepted = _accept(method, await request() if callable(request) else request)
                async with aclosing(handler(accepted, call)) as messages:
                    async for message in messages:
                        await handoff.put(message)

            try:
                lasting = partial(self._as_stream, work)
                await self._around(method, metadata, timeout_seconds, lasting, counted=counted)
            except Refused as refused:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # It failed while it was being ended: nobody takes from the handoff any more.
                    raise asyncio.CancelledError from refused
                await handoff.put(refused)
            else:
                await handoff.put(None)

        return Stream(pump, f"stream {method.path}")

    async def _as_stream(self, work: Callable[[Call], Awaitable[T]], call: Call) -> T:
        """Does what lasts, within the limits on how much of that there is at once."""
        user = call.identity.user_id
        if sum(self._streams.values()) >= self._max_streams:
            raise errors.TooManyWatches(
                "Server busy", details="Too many watches and uploads at once; try again in a while."
            )
        if call.identity.role == "user" and self._streams[user] >= self._max_streams_per_user:
            most = f"{self._max_streams_per_user} watches and uploads"
            raise errors.TooManyWatches("Too many watches", details=f"A user may have {most} open; close one.")
        self._streams[user] += 1
        try:
            return await work(call)
        finally:
            self._streams[user] -= 1
            if not self._streams[user]:
                del self._streams[user]

    async def _around(
        self,
        method: Method,
        metadata: Mapping[str, str | bytes],
        timeout_seconds: float | None,
        work: Callable[[Call], Awaitable[T]],
        *,
        counted: bool,
        busy: bool = False,
    ) -> T:
        """What is around a call of any kind: who calls, until when, what its failure is called, and the line about it.

        A function where a context manager would read better: that costs as much as the rest of it.
        """
        started = time.perf_counter_ns()
        request_id = accept_request_id(_text(metadata, REQUEST_ID))
        identity: Identity | None = None
        failure: Failure | None = None
        longest = method.max_timeout_seconds or self._default_timeout
        timeout = longest if timeout_seconds is None else min(timeout_seconds, longest)
        try:
            if busy:
                raise errors.Overloaded("Server busy", details="Too many calls at once; try again in a second.")
            if timeout <= 0:
                raise errors.DeadlineExceeded
            with self._timers.limit(timeout) as limit:
                authorization = _text(metadata, "authorization")
                identity, token = self._verifier.known(authorization) or await self._verifier.identify(authorization)
                if not counted:
                    self._verifier.count(identity)
                if identity.role not in method.roles:
                    allowed = " or ".join(sorted(method.roles))
                    raise errors.RoleNotAllowed("Permission denied", details=f"This call is for the role {allowed}.")
                return await work(Call(identity, request_id, token, limit.when, self._verifier, self.draining))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                failure = CANCELLED
                raise
            # A cancelled sub-task is not a cancelled call: whoever waits for this answer must get one.
            failure = INTERNAL
            log.exception("internal_error", rpc=method.path, request_id=request_id)
            raise Refused(failure, request_id) from None
        except Exception as error:
            failure = failure_of(error)
            log_failure(error, failure, rpc=method.path, request_id=request_id)
            raise Refused(failure, request_id) from error
        finally:
            self._log.info(
                "call",
                rpc=method.path,
                code=failure.code.name if failure else "OK",
                reason=failure.reason if failure else None,
                duration_ms=(time.perf_counter_ns() - started) // 10_000 / 100,
                user=identity.user_id if identity else None,
                request_id=request_id,
            )


def _text(metadata: Mapping[str, str | bytes], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) else None


def decoded(kind: type[Message], request: object) -> Message:
    """The message that came in, unless it is one already. Raises MalformedRequest, and NoMessage where there was none."""
    if isinstance(request, Message):
        return request
    if not isinstance(request, bytes):
        raise errors.NoMessage("No message", details="The call ended without a request.")
    try:
        return kind.FromString(request)
    except DecodeError:
        raise errors.MalformedRequest(
            "Malformed request", details=f"The bytes are not a {kind.DESCRIPTOR.name}."
        ) from None


def _accept(method: Method, request: object) -> Message:
    """Decodes a message and checks it against the contract's constraints."""
    message = decoded(method.request, request)
    violations = protovalidate.collect_violations(message)
    if violations:
        raise errors.ValidationFailed([_violation(each) for each in violations])
    return message


async def _each(method: Method, requests: AsyncIterator[Message | bytes]) -> AsyncGenerator[Message, None]:
    async for request in requests:
        yield _accept(method, request)


def _violation(violation: protovalidate.Violation) -> tuple[str, str]:
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None and element.subscript.field == "index":
            path += f"[{element.subscript.value}]"
    # `not_contains` quotes what it found, and a NUL byte prints as nothing.
    message = (violation.proto.message or "is not valid").replace("`\0`", "NUL")
    return path, message

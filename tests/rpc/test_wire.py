"""Group 5 of the faults: what comes in over the wire of gRPC, and what a broken handler sends out over it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import psutil
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pipeline.estimator.v1 import estimator_pb2

from rpc.errors import Conflict, RateLimited
from rpc.in_process import LocalChannel
from rpc.limits import RateLimiter
from rpc.server.grpc_server import SERVER_OPTIONS
from rpc.server.health import HealthAndReflection
from tests.conftest import metadata, token
from tests.door import refusal, refused
from tests.jobs_service.trainers import until
from tests.rpc import raw
from tests.rpc.conftest import SERVICE, Serve, Servicer, boundary

PATH = f"/{SERVICE.full_name}/"
CATALOGUE = f"{PATH}GetCatalogue"
INTERNAL, UNIMPLEMENTED = grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED


def nested(levels: int) -> bytes:
    """Groups within each other: what a decoder follows downwards."""
    return b"\x0b" * levels + b"\x0c" * levels


@pytest.mark.parametrize(
    ("row", "data"),
    [
        ("G01 random bytes", b"\xff\xfe\x00random"),
        ("G01 truncated field", b"\x0a\x24abc"),
        ("G01 bad UTF-8", b"\x0a\x02\xff\xfe"),
        ("G01 too deep", nested(101)),
        ("G01 unclosed groups", b"\x0b" * 200),
    ],
)
async def test_bytes_that_are_no_message_are_refused_with_a_fixed_text(serve: Serve, row: str, data: bytes) -> None:
    """G01: the answer is INVALID_ARGUMENT, says nothing of the decoder, and the handler is not run."""
    servicer = Servicer()
    async with grpc.aio.insecure_channel(await serve(servicer)) as channel:
        error = await refused(channel.unary_unary(f"{PATH}EstimateCost")(data, metadata=metadata()))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"), row
    assert (error.message, servicer.calls) == ("Malformed request", 0)
    assert error.metadata["details"] == "The bytes are not a EstimateCostRequest."


async def test_an_empty_message_lacks_its_required_fields(serve: Serve) -> None:
    """G02: every required field is named."""
    async with grpc.aio.insecure_channel(await serve(Servicer())) as channel:
        error = await refused(channel.unary_unary(f"{PATH}EstimateCost")(b"", metadata=metadata()))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(error.violations) == {"dataset_id", "gpu_config", "hyperparameters"}


async def test_unknown_fields_are_dropped(serve: Serve) -> None:
    """G03: a field of a newer contract does not disturb."""
    async with grpc.aio.insecure_channel(await serve(Servicer())) as channel:
        answer = await channel.unary_unary(CATALOGUE)(b"\xba\x3e\x03abc", metadata=metadata())
    assert answer == b""


async def test_a_call_without_a_message_is_told_so(serve: Serve) -> None:
    """G04: a unary call that ends without its message, and one whose message is cut off, get UNIMPLEMENTED at once."""
    servicer = Servicer()
    address = await serve(servicer)
    credentials = ("authorization", f"Bearer {token()}")
    async with asyncio.timeout(5):
        for body in (b"", b"\0\0\0\0\5a"):
            answer = await raw.call(address, CATALOGUE, body, credentials)
            assert answer.status == UNIMPLEMENTED.value[0], body
    assert servicer.calls == 0


async def test_a_second_message_is_never_read(serve: Serve) -> None:
    """G04: a unary call with two messages is answered by the first; it does not hang and is not run twice."""
    servicer = Servicer()

    async def twice() -> AsyncIterator[bytes]:
        yield b""
        yield b""

    async with grpc.aio.insecure_channel(await serve(servicer)) as channel, asyncio.timeout(5):
        assert await channel.stream_unary(CATALOGUE)(twice(), metadata=metadata()) == b""
    assert servicer.calls == 1


@pytest.mark.parametrize(("deadline_seconds", "receive_seconds"), [(0.2, 5.0), (10.0, 0.2)])
async def test_a_call_whose_message_never_comes_ends(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, deadline_seconds: float, receive_seconds: float
) -> None:
    """G04, G10, X01: it ends at the server's deadline, or earlier, when the time for the message is over."""
    monkeypatch.setattr("rpc.boundary.RECEIVE_TIMEOUT_SECONDS", receive_seconds)
    address, caller = await serve(Servicer(), seconds=deadline_seconds), ("authorization", f"Bearer {token()}")
    async with asyncio.timeout(5):
        answer = await raw.call(address, CATALOGUE, b"", caller, end=False)
    assert answer.status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


@pytest.mark.parametrize("path", ["/", "//", "/x", f"{PATH}Nothing", PATH, "/no.Service/GetCatalogue"])
async def test_what_is_not_there_is_unimplemented(serve: Serve, path: str) -> None:
    """G05: an unknown method, service or path."""
    async with grpc.aio.insecure_channel(await serve(Servicer())) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path)(b"", metadata=metadata())
    assert caught.value.code() is UNIMPLEMENTED


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_too_large_a_message_is_not_held(serve: Serve, compression: grpc.Compression) -> None:
    """G06: a message over the limit, and one that gzip makes small, are refused without being unpacked."""
    servicer = Servicer()
    async with grpc.aio.insecure_channel(await serve(servicer)) as channel:
        send = channel.unary_unary(f"{PATH}EstimateCost")
        bomb = b"\0" * 100_000_000
        before = psutil.Process().memory_info().rss
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(bomb, metadata=metadata(), compression=compression)
        grown = psutil.Process().memory_info().rss - before
    assert (caught.value.code(), servicer.calls) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 0)
    # The client is this process too: compressed, it holds next to nothing of its own.
    if compression is grpc.Compression.Gzip:
        assert grown < 40_000_000


@pytest.mark.parametrize(
    ("row", "headers", "body"),
    [
        ("G07 compressed without an encoding", [], b"\1\0\0\0\0"),
        # RFC and row say UNIMPLEMENTED; the core refuses the header itself, before any code of ours.
        ("G07 unknown encoding", [("grpc-encoding", "zork")], b"\1\0\0\0\1a"),
        ("G07 no gzip", [("grpc-encoding", "gzip")], b"\1\0\0\0\1a"),
        ("M06 no timeout", [("grpc-timeout", "100x")], raw.EMPTY_MESSAGE),
        ("M06 negative timeout", [("grpc-timeout", "-5S")], raw.EMPTY_MESSAGE),
        ("binary metadata that is not base64", [("x-some-bin", "!!!")], raw.EMPTY_MESSAGE),
    ],
)
async def test_a_broken_frame_is_an_error_of_the_transport(
    serve: Serve, row: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    """G07: the core answers INTERNAL, and no handler is run."""
    servicer = Servicer()
    credentials = ("authorization", f"Bearer {token()}")
    answer = await raw.call(await serve(servicer), CATALOGUE, body, credentials, *headers)
    assert (answer.status, servicer.calls) == (INTERNAL.value[0], 0), row


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ("M05 non-ASCII value", [("x-some", b"\xff\xfe")]),
        ("M03 non-ASCII request id", [("x-request-id", "é".encode())]),
        ("M06 years of timeout", [("grpc-timeout", "99999999H")]),
        ("binary metadata", [("x-some-bin", "AP8")]),
        ("a key twice", [("x-some", "1"), ("x-some", "2")]),
    ],
)
async def test_odd_metadata_does_not_disturb(serve: Serve, row: str, headers: list[tuple[str, str | bytes]]) -> None:
    """Metadata that nobody reads may be anything."""
    credentials = ("authorization", f"Bearer {token()}")
    answer = await raw.call(await serve(Servicer()), CATALOGUE, raw.EMPTY_MESSAGE, credentials, *headers)
    assert answer.status == 0, row


@pytest.mark.parametrize("size", [9_000, 20_000, 70_000])
async def test_metadata_over_the_limit_is_always_refused(serve: Serve, size: int) -> None:
    """G08: 7 KiB always pass, more than 8 KiB never do."""
    async with grpc.aio.insecure_channel(await serve(Servicer())) as channel:
        for _ in range(10):
            assert await channel.unary_unary(CATALOGUE)(b"", metadata=[*metadata(), ("x-some", "a" * 7_000)]) == b""
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(CATALOGUE)(b"", metadata=[*metadata(), ("x-some", "a" * size)])
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_users_calls_have_a_rate(serve: Serve) -> None:
    """L01: over gRPC too a user above their rate is told to come back; a trainer's token has none."""
    rates, ask = RateLimiter(0.5), estimator_pb2.GetCatalogueRequest().SerializeToString()
    async with grpc.aio.insecure_channel(await serve(Servicer(), rates=rates)) as channel:
        call, mine, trainer = channel.unary_unary(CATALOGUE), metadata(), metadata(role="worker")
        await call(ask, metadata=mine)
        error = await refused(call(ask, metadata=mine))
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert error.retryable
        for _ in range(5):
            assert (await refused(call(ask, metadata=trainer))).reason == "ROLE_NOT_ALLOWED"


async def test_a_call_within_a_process_is_not_counted_again() -> None:
    """L01: what came in through one door of a process and goes on through another is one call."""
    local = LocalChannel(boundary(rates=RateLimiter(0.5)))
    local.add_service(SERVICE, Servicer())
    mine = metadata()
    for _ in range(5):
        await local.unary_unary(CATALOGUE)(estimator_pb2.GetCatalogueRequest(), metadata=mine)


def test_who_called_last_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """L01: the table of rates is bounded, and whoever calls all the time stays in it whoever else comes."""
    monkeypatch.setattr("rpc.limits.TABLE_SIZE", 10)
    rates = RateLimiter(0.5)
    rates.take("steady")
    for number in range(50):
        rates.take(f"passing {number}")
        with pytest.raises(RateLimited):
            rates.take("steady")
        assert len(rates._full_at) <= 10


async def test_two_tokens_are_none(serve: Serve) -> None:
    """M08: a caller who sends two tokens is not believed either of them."""
    async with grpc.aio.insecure_channel(await serve(Servicer())) as channel:
        error = await refused(channel.unary_unary(CATALOGUE)(b"", metadata=[*metadata(), *metadata()]))
    assert error.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_deadline_that_is_over_runs_nothing(serve: Serve) -> None:
    """G09: over the wire and in this process, a call whose time is over gets DEADLINE_EXCEEDED and no handler."""
    servicer = Servicer()
    credentials = ("authorization", f"Bearer {token()}")
    answer = await raw.call(await serve(servicer), CATALOGUE, raw.EMPTY_MESSAGE, credentials, ("grpc-timeout", "0n"))
    assert answer.status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    local = LocalChannel(boundary())
    local.add_service(SERVICE, servicer)
    call = local.unary_unary(CATALOGUE)
    for timeout in (0.0, -1.0):
        error = await refused(call(estimator_pb2.GetCatalogueRequest(), metadata=metadata(), timeout=timeout))
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert servicer.calls == 0


@pytest.mark.parametrize("way", ["deadline", "cancel"])
async def test_who_waits_no_longer_stops_the_work(serve: Serve, way: str) -> None:
    """G09 and D01: when its caller's time is over or its caller goes away, the handler is cancelled within 100 ms."""
    started, stopped = asyncio.Event(), asyncio.Event()

    async def work(call: Any) -> None:
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()

    async with grpc.aio.insecure_channel(await serve(Servicer(work))) as channel:
        timeout = 0.2 if way == "deadline" else None
        call = channel.unary_unary(CATALOGUE)(b"", metadata=metadata(), timeout=timeout)
        await started.wait()
        if way == "cancel":
            call.cancel()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await call
        async with asyncio.timeout(0.5):
            await stopped.wait()


@pytest.mark.parametrize("asked", [None, 3600.0])
async def test_no_call_outlives_the_servers_limit(serve: Serve, asked: float | None) -> None:
    """G10: a call without a deadline has the server's; one that asks for more gets no more."""

    async def work(call: Any) -> None:
        assert call.remaining_seconds() <= 0.2
        await asyncio.sleep(30)

    async with grpc.aio.insecure_channel(await serve(Servicer(work), seconds=0.2)) as channel:
        error = await refused(channel.unary_unary(CATALOGUE)(b"", metadata=metadata(), timeout=asked))
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("reflect", [True, False])
async def test_reflection_answers_only_where_it_is_on(serve: Serve, reflect: bool) -> None:
    """G15: switched off, it is UNIMPLEMENTED; switched on, it lists every service."""
    async with grpc.aio.insecure_channel(await serve(Servicer(), reflect=reflect)) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if reflect:
            names = [each.name async for answer in answers for each in answer.list_services_response.service]
            assert {SERVICE.full_name, "grpc.health.v1.Health"} <= set(names)
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [answer async for answer in answers]
        assert caught.value.code() is UNIMPLEMENTED


async def test_health_is_told_by_name(serve: Serve) -> None:
    """G16: the server as a whole and each service are SERVING, an unknown one is NOT_FOUND; nobody needs a token."""
    async with grpc.aio.insecure_channel(await serve(Servicer())) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE.full_name):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="no.Service"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_anybody_may_call_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many watches of health and reflections are open at once, and checks go on; one that ends makes room."""
    monkeypatch.setattr("rpc.server.health.MAX_STREAMS", 3)
    request, listed = health_pb2.HealthCheckRequest(), reflection_pb2.ServerReflectionRequest(list_services="")
    async with grpc.aio.insecure_channel(await serve(Servicer())) as channel:
        health, reflection = health_pb2_grpc.HealthStub(channel), reflection_pb2_grpc.ServerReflectionStub(channel)
        watches = [health.Watch(request) for _ in range(3)]
        assert [(await each.read()).status for each in watches] == [health_pb2.HealthCheckResponse.SERVING] * 3
        reflections = [reflection.ServerReflectionInfo() for _ in range(3)]
        for each in reflections:
            await each.write(listed)
            assert (await each.read()).list_services_response.service
        for one_more in (health.Watch(request), reflection.ServerReflectionInfo(iter([listed]))):
            error = await refused(anext(aiter(one_more)))
            assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        watches.pop().cancel()

        async def has_room() -> bool:
            watches.append(health.Watch(request))
            # Refused, it has an error or its end to read, as it happens.
            with suppress(grpc.aio.AioRpcError):
                return await watches[-1].read() is not grpc.aio.EOF
            return False

        await until(has_room)


class Watcher:
    """A call of Health.Watch whose client takes what comes, or never anything."""

    def __init__(self, *, takes: bool) -> None:
        self._takes = takes
        self.statuses: asyncio.Queue[int] = asyncio.Queue()

    async def read(self) -> bytes:
        """The question: the health of all."""
        return b""

    async def write(self, answer: health_pb2.HealthCheckResponse) -> None:
        """What flow control does to whoever answers."""
        self.statuses.put_nowait(answer.status)
        if not self._takes:
            await asyncio.Event().wait()


async def test_a_watcher_who_takes_nothing_stops_nobody() -> None:
    """News of health reach whoever takes them, and are told at once, whatever another watcher does."""
    anybody, serving = HealthAndReflection([], None), health_pb2.HealthCheckResponse
    stuck, other = Watcher(takes=False), Watcher(takes=True)
    tasks = [asyncio.create_task(anybody._watch(each)) for each in (stuck, other)]  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        assert [await each.statuses.get() for each in (stuck, other)] == [serving.NOT_SERVING] * 2
        for healthy, status in ((True, serving.SERVING), (False, serving.NOT_SERVING)):
            anybody.set_status(healthy)
            assert await other.statuses.get() == status
    assert stuck.statuses.empty()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_anybody_may_call_is_asked_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check without its question, a long one, and a reflection that goes on end by themselves."""
    monkeypatch.setattr("rpc.server.health.REQUEST_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("rpc.server.health.REFLECTION_TIMEOUT_SECONDS", 0.2)
    address = await serve(Servicer())
    check, reflect = "/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    long = health_pb2.HealthCheckRequest(service="x" * 5000).SerializeToString()
    for path, body, end, status in (
        (check, b"", False, grpc.StatusCode.DEADLINE_EXCEEDED),
        (check, b"", True, UNIMPLEMENTED),
        (check, b"\0" + len(long).to_bytes(4, "big") + long, True, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (check, b"\0\0\0\0\x01\xff", True, grpc.StatusCode.INVALID_ARGUMENT),
        (reflect, b"", False, grpc.StatusCode.DEADLINE_EXCEEDED),
    ):
        assert (await raw.call(address, path, body, end=end)).status == status.value[0], (path, status)


async def test_http_1_is_shown_the_door(serve: Serve) -> None:
    """G17: an HTTP/1.1 request to the gRPC port is closed on, and the next caller is served."""
    address = await serve(Servicer())
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(5):
        await reader.read()
    writer.close()
    async with grpc.aio.insecure_channel(address) as channel:
        assert await channel.unary_unary(CATALOGUE)(b"", metadata=metadata()) == b""


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("response", [None, {"version": 1}])
async def test_a_bug_is_logged_and_not_shown(serve: Serve, response: dict[str, Any] | None, local: bool) -> None:
    """G18: an unexpected exception is INTERNAL with its request id, and so is a response of a wrong type.

    The text of the exception is in the log and nowhere else.
    """

    async def work(call: Any) -> dict[str, Any]:
        if response is None:
            raise ValueError("postgresql://user:secret@host/db")
        return response

    request_id = uuid.uuid4().hex
    async with AsyncExitStack() as opened:
        if local:
            channel: Any = LocalChannel(boundary())
            channel.add_service(SERVICE, Servicer(work))
            empty: Any = estimator_pb2.GetCatalogueRequest()
        else:
            address = await serve(Servicer(work))
            channel, empty = await opened.enter_async_context(grpc.aio.insecure_channel(address)), b""
        with structlog.testing.capture_logs() as lines:
            credentials = [*metadata(), ("x-request-id", request_id)]
            error = await refused(channel.unary_unary(CATALOGUE)(empty, metadata=credentials))
    assert (error.code, error.message, error.reason) == (INTERNAL, "internal error", "INTERNAL")
    assert error.metadata == {
        "request_id": request_id,
        "details": "This is an error of the server; quote the request id.",
    }
    bug, line = lines
    assert (bug["event"], bug["request_id"]) == ("internal_error", request_id)
    assert isinstance(bug["exc_info"], ValueError | TypeError)
    assert (line["event"], line["code"], line["request_id"]) == ("call", "INTERNAL", request_id)


@pytest.mark.parametrize("way", ["sub-task", "raised"])
async def test_a_cancelled_sub_task_does_not_leave_its_caller_waiting(serve: Serve, way: str) -> None:
    """G19: a handler whose own task was cancelled answers INTERNAL at once."""

    async def work(call: Any) -> None:
        if way == "raised":
            raise asyncio.CancelledError
        task = asyncio.create_task(asyncio.sleep(30))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    # Showing the traceback takes longer than anything else here, so it is not shown.
    async with grpc.aio.insecure_channel(await serve(Servicer(work))) as channel, asyncio.timeout(5):
        with structlog.testing.capture_logs():
            started = time.perf_counter()
            error = await refused(channel.unary_unary(CATALOGUE)(b"", metadata=metadata()))
            seconds = time.perf_counter() - started
    assert error.code is INTERNAL
    assert seconds < 1


async def test_an_answer_fits_what_clients_take(serve: Serve) -> None:
    """However much there is to tell, the status is small enough for a client's limit on metadata."""

    async def work(call: Any) -> None:
        from rpc.errors import ValidationFailed

        raise ValidationFailed([(f"field[{number}]", "x" * 3_000) for number in range(100)])

    async with grpc.aio.insecure_channel(await serve(Servicer(work))) as channel:
        error = await refused(channel.unary_unary(CATALOGUE)(b"", metadata=metadata()))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert 1 <= len(error.violations) < 100


async def test_each_call_has_one_line(serve: Serve) -> None:
    """One canonical line a call, with who, what and how long; tokens and what was sent are not in it."""

    async def work(call: Any) -> None:
        raise Conflict

    user = str(uuid.uuid4())
    credentials = metadata(user)
    async with grpc.aio.insecure_channel(await serve(Servicer(work))) as channel:
        with structlog.testing.capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(CATALOGUE)(b"\xba\x3e\x06secret", metadata=credentials)
    (line,) = lines
    assert line["rpc"] == CATALOGUE
    assert (line["code"], line["reason"], line["user"]) == ("ABORTED", "CONFLICT", user)
    assert line["request_id"] == refusal(caught.value).metadata["request_id"]
    assert 0 <= line["duration_ms"] < 5_000
    assert credentials[0][1].split()[1] not in str(lines)
    assert "secret" not in str(lines)


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
async def test_who_connects_and_says_nothing_is_not_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """A connection that is opened and not used is closed, before and after the first words of HTTP/2."""
    handshake = "grpc.server_handshake_timeout_ms"
    options = [(name, 200 if name == handshake else value) for name, value in SERVER_OPTIONS]
    monkeypatch.setattr("rpc.server.grpc_server.SERVER_OPTIONS", options)
    host, _, port = (await serve(Servicer())).partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(said)
    async with asyncio.timeout(10):
        while await reader.read(1024):
            pass
    writer.close()

"""Limits that are shared: one caller's excess is refused, and the others are served."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from rpc.channels import open_channel
from rpc.errors import Overloaded
from rpc.limits import FairLimit
from tests.conftest import Stack, metadata, token
from tests.door import refused
from tests.rpc.conftest import SERVICE, Serve, Servicer

CATALOGUE = f"/{SERVICE.full_name}/GetCatalogue"
ANN, BOB = (f"{letter * 8}-0000-4000-8000-000000000001" for letter in "ab")


def test_a_share_is_as_much_as_is_free() -> None:
    """One user gets half of a limit, a second one a third, and there is always something left for the next."""

    def fill(limit: FairLimit, user: str) -> int:
        """Takes all slots that a user may have; returns how many."""
        for count in range(100):
            try:
                slots.enter_context(limit.slot(user, Overloaded))
            except Overloaded:
                return count
        raise AssertionError("no limit")

    limit = FairLimit(12)
    with ExitStack() as slots:
        assert [fill(limit, user) for user in ("ann", "bob", "cid", "dan")] == [6, 3, 2, 1]
    assert limit.total == 0
    with ExitStack() as slots:
        assert fill(limit, "eve") == 6
        assert fill(FairLimit(12, per_user=2), "ann") == 2


def test_slots_of_nothing_may_overlap() -> None:
    """Two requests of a user with empty bodies take no share and may be under way at once."""
    limit = FairLimit(12)
    with limit.slot("ann", Overloaded, 0), limit.slot("ann", Overloaded, 0):
        assert limit.total == 0
    assert limit.total == 0


async def test_one_users_excess_is_refused_and_others_are_served(serve: Serve) -> None:
    """L02: a call above its caller's share is refused at once and may be retried; another user's call is served."""
    running, go = asyncio.Semaphore(0), asyncio.Event()

    async def work(call: Any) -> None:
        running.release()
        await go.wait()

    async with grpc.aio.insecure_channel(await serve(Servicer(work), limit=4)) as channel:
        send, ann, bob = channel.unary_unary(CATALOGUE), metadata(ANN), metadata(BOB)
        calls = [send(b"", metadata=caller) for caller in (ann, ann, bob)]
        for _ in calls:
            await running.acquire()
        refusal = await refused(send(b"", metadata=ann))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert refusal.retryable
        go.set()
        assert [await call for call in calls] == [b""] * 3
        assert await send(b"", metadata=ann) == b""


class HalfOpen:
    """A connection with calls whose message never comes."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization
        self._connection = H2Connection(H2Configuration(client_side=True))
        self._next = 1

    async def open(self, address: str, opened: AsyncExitStack) -> None:
        """Connects."""
        host, port = address.split(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        opened.callback(self._writer.close)
        self._connection.initiate_connection()

    def start(self, count: int, path: str = CATALOGUE) -> None:
        """Starts calls."""
        for _ in range(count):
            self._connection.send_headers(
                self._next,
                [
                    (":method", "POST"),
                    (":scheme", "http"),
                    (":path", path),
                    (":authority", "test"),
                    ("te", "trailers"),
                    ("content-type", "application/grpc"),
                    ("authorization", self._authorization),
                ],
            )
            self._next += 2
        self._writer.write(self._connection.data_to_send())

    def reset(self) -> None:
        """Starts a call and resets it at once."""
        stream = self._next
        self.start(1)
        self._connection.reset_stream(stream)
        self._writer.write(self._connection.data_to_send())


async def latencies(send: Any, count: int) -> list[float]:
    """Seconds of calls of a user's own, one after the other."""
    caller, seconds = metadata(str(uuid.uuid4())), []
    for _ in range(count):
        started = time.perf_counter()
        await send(b"", metadata=caller)
        seconds.append(time.perf_counter() - started)
    return seconds


def p99(seconds: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(seconds, n=100)[-1]


async def test_half_open_calls_of_one_user_keep_no_one_out(serve: Serve) -> None:
    """X01: while one token has 300 calls without a message, nobody else's call fails, and each is as fast as before."""
    address = await serve(Servicer(), limit=64)
    async with AsyncExitStack() as opened, grpc.aio.insecure_channel(address) as channel:
        send, attack = channel.unary_unary(CATALOGUE), HalfOpen(f"Bearer {token(ANN)}")
        await latencies(send, 50)
        quiet = await latencies(send, 300)
        await attack.open(address, opened)
        attack.start(300)
        # The server has taken the calls once it has answered one that came after them.
        await latencies(send, 1)
        attacked = await latencies(send, 300)
    assert statistics.median(attacked) < 2 * statistics.median(quiet)
    print(f"p50 {statistics.median(quiet):.6f} → {statistics.median(attacked):.6f}, p99 {p99(quiet)} → {p99(attacked)}")


@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
@pytest.mark.parametrize("jobs_overrides", [{"max_watches": 4, "max_watches_per_user": 2}])
async def test_watches_of_users_leave_trainers_their_own_limit(stack: Stack) -> None:
    """X02: with every stream of users open, a trainer waits for jobs as before, and a new user still gets one stream."""
    watches = []

    async def watch(user: str) -> AsyncIterator[Any]:
        call = stack.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(), metadata=metadata(user))
        watches.append(call)
        await anext(aiter(call))
        return call

    users = [str(uuid.uuid4()) for _ in range(4)]
    for user in (users[0], users[0], users[1], users[2]):
        await watch(user)
    for user in (users[0], users[3]):
        assert (await refused(watch(user))).reason == "TOO_MANY_WATCHES"
    request = workers_pb2.LeaseJobsRequest(
        trainer="one", max_jobs=1, gpus=[workers_pb2.GpuOffer(type="H100", count=1)], wait_ms=500
    )
    response = await stack.workers.LeaseJobs(request, metadata=metadata(role="worker"))
    assert list(response.leases) == []
    for call in watches:
        call.cancel()


async def test_a_message_over_its_limit_is_refused_before_it_is_decoded(serve: Serve) -> None:
    """X06: four million packed numbers, in 4 MB, are refused without holding the server for more than a moment."""
    counts = estimator_pb2.CompareConfigurationsRequest(gpu_counts=[1] * 3_900_000).SerializeToString()
    servicer = Servicer()
    async with grpc.aio.insecure_channel(await serve(servicer)) as channel:
        send = channel.unary_unary(CATALOGUE)
        compare = channel.unary_unary(f"/{SERVICE.full_name}/CompareConfigurations")
        await latencies(send, 20)
        blocking = [asyncio.ensure_future(refused(compare(counts, metadata=metadata()))) for _ in range(3)]
        worst = max(await latencies(send, 50))
        print(f"longest call of others: {worst:.4f} s")
        for refusal in await asyncio.gather(*blocking):
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
            assert "65,536 bytes" in refusal.metadata["details"]
    assert worst < 0.2


async def test_a_flood_of_resets_fails_no_one_elses_reads(serve: Serve) -> None:
    """X11: a stranger opens and resets streams without a token. The core cancels some calls of others; retries succeed."""
    address = await serve(Servicer())
    async with AsyncExitStack() as opened, open_channel(address, [SERVICE]) as channel:
        attack = HalfOpen("none")
        await attack.open(address, opened)
        send = channel.unary_unary(CATALOGUE)

        async def flood() -> None:
            for _ in range(100):
                for _ in range(100):
                    attack.reset()
                await attack._writer.drain()
                await asyncio.sleep(0)

        flooding = asyncio.create_task(flood(), name="flood")
        seconds = await latencies(send, 40)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
    assert len(seconds) == 40

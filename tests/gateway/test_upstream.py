"""Groups 16 and 10 of the faults at the gateway: a network that breaks behind it, and more than fits in front of it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import httpx
import psutil
import pytest

from gateway.__main__ import ESTIMATOR, by_name
from gateway.app import Gateway
from gateway.http_server import http_server
from gateway.settings import GatewaySettings
from rpc.channels import open_channel
from rpc.identity.tokens import SharedSecret, Verifier
from tests.clients import http_client
from tests.conftest import AUDIENCE, ISSUER, SECRET
from tests.gateway.conftest import bearer
from tests.proxy import Proxy, proxy
from tests.rpc.conftest import SERVICE, Servicer, boundary
from tests.serving import serving


@asynccontextmanager
async def behind() -> AsyncIterator[tuple[httpx.AsyncClient, Proxy]]:
    """A gateway in front of a server, and the way between them, which works at first."""
    async with AsyncExitStack() as opened:
        host, _, port = (await opened.enter_async_context(serving({SERVICE: Servicer()}, boundary()))).partition(":")
        way = await opened.enter_async_context(proxy(partial(asyncio.open_connection, host, int(port))))
        channel = await opened.enter_async_context(open_channel(f"127.0.0.1:{way.port}", ESTIMATOR))
        verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE)

        async def ready() -> Mapping[str, bool]:
            return {"estimator": True}

        settings = GatewaySettings(jwt_secret=SECRET, jwt_issuer=ISSUER)
        app = Gateway(settings, by_name(ESTIMATOR, channel), verifier, ready)
        http_port = await opened.enter_async_context(
            http_server(app, host="127.0.0.1", port=0, share_port=False, drain_seconds=1)
        )
        client = await opened.enter_async_context(
            http_client(f"http://127.0.0.1:{http_port}", headers=bearer(str(uuid.uuid4())), timeout=15)
        )
        assert (await client.get("/api/catalogue")).status_code == 200
        yield client, way


async def test_a_server_that_is_cut_off_is_503() -> None:
    """N03: a connection reset in the middle of an answer is 503 in JSON, never half an answer; then it works again."""
    async with behind() as (client, way):
        way.cut = True
        answer = await client.get("/api/catalogue")
        assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
        way.cut = False
        async with asyncio.timeout(10):
            while (await client.get("/api/catalogue")).status_code != 200:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", ["silence", "trickle"])
async def test_a_server_that_is_not_heard_is_504_in_time(fault: str) -> None:
    """N04: where nothing or next to nothing comes back, the deadline holds; it is the caller's where they named one."""
    async with behind() as (client, way):
        if fault == "trickle":
            way.trickle = True
        else:
            way.stall()
        started = time.monotonic()
        answer = await client.get("/api/catalogue", headers={"grpc-timeout": "400m"})
        assert (answer.status_code, answer.json()["reason"]) == (504, "DEADLINE_EXCEEDED")
        assert time.monotonic() - started < 5


async def test_a_slow_network_is_only_slow() -> None:
    """N04: 150 ms each way are 300 ms more."""
    async with behind() as (client, way):
        way.delay_seconds = 0.15
        started = time.monotonic()
        assert (await client.get("/api/catalogue")).status_code == 200
        assert time.monotonic() - started >= 0.3


async def test_fifty_of_the_largest_bodies_at_once_are_bounded(api: httpx.AsyncClient) -> None:
    """L10: every one is answered, refused or not, and memory stays within a few times what was sent."""
    body = b"[" * (1 << 20)
    before = psutil.Process().memory_info().rss

    async def post() -> int:
        value = {"content-type": "application/json"}
        return (await api.post("/api/jobs", content=body, headers=value, timeout=60)).status_code

    assert set(await asyncio.gather(*[post() for _ in range(50)])) <= {400, 408, 429, 503}
    assert psutil.Process().memory_info().rss - before < 400_000_000

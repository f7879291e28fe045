"""Groups 16 and 10 of the faults at the gateway: a network that breaks behind it, and more than fits in front of it."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest

from gateway.__main__ import ESTIMATOR, by_name
from gateway.app import Gateway
from gateway.serve import http_server
from gateway.settings import GatewaySettings
from rpc.identity import SharedSecret, Verifier
from rpc.remote import open_channel
from rpc.serve import grpc_server
from tests.conftest import AUDIENCE, ISSUER, SECRET
from tests.gateway.conftest import bearer
from tests.rpc.conftest import SERVICE, Servicer, boundary


class Network:
    """What lies between the gateway and a server. `fault` says what it does to the server's bytes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.fault = "none"

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        there = asyncio.create_task(self._copy(reader, upstream_writer, back=False))
        back = asyncio.create_task(self._copy(upstream_reader, writer, back=True))
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        for each in (writer, upstream_writer):
            each.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        while data := await reader.read(65_536):
            fault = self.fault if back else "none"
            if fault == "reset":
                data = data[: len(data) // 2]
            if fault == "delay":
                await asyncio.sleep(0.3)
            if fault == "trickle":
                for byte in data:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(1)
            if fault != "silence":
                writer.write(data)
            if fault == "reset":
                await writer.drain()
                held: Any = writer.get_extra_info("socket")
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return


@asynccontextmanager
async def behind(network_fault: str) -> AsyncIterator[tuple[httpx.AsyncClient, Network]]:
    """A gateway in front of a server, over a network that works at first."""
    async with AsyncExitStack() as opened:
        port, _ = await opened.enter_async_context(
            grpc_server(
                {SERVICE: Servicer()},
                boundary(),
                host="127.0.0.1",
                port=0,
                reflect=False,
                share_port=False,
                drain_seconds=0.2,
            )
        )
        network = Network(port)
        server = await opened.enter_async_context(await asyncio.start_server(network.carry, "127.0.0.1", 0))
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        channel = await opened.enter_async_context(open_channel(address, ESTIMATOR))
        verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE)

        async def ready() -> Mapping[str, bool]:
            return {"estimator": True}

        settings = GatewaySettings(jwt_secret=SECRET, jwt_issuer=ISSUER)
        app = Gateway(settings, by_name(ESTIMATOR, channel), verifier, ready)
        http_port = await opened.enter_async_context(
            http_server(app, host="127.0.0.1", port=0, share_port=False, drain_seconds=1)
        )
        client = await opened.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", headers=bearer(str(uuid.uuid4())), timeout=15)
        )
        assert (await client.get("/api/catalogue")).status_code == 200
        network.fault = network_fault
        yield client, network


async def test_a_server_that_is_cut_off_is_503() -> None:
    """N03: a connection reset in the middle of an answer is 503 in JSON, never half an answer; then it works again."""
    async with behind("reset") as (client, network):
        answer = await client.get("/api/catalogue")
        assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
        network.fault = "none"
        async with asyncio.timeout(10):
            while (await client.get("/api/catalogue")).status_code != 200:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", ["silence", "trickle"])
async def test_a_server_that_is_not_heard_is_504_in_time(fault: str) -> None:
    """N04: where nothing or next to nothing comes back, the deadline holds; it is the caller's where they named one."""
    async with behind(fault) as (client, _):
        started = time.monotonic()
        answer = await client.get("/api/catalogue", headers={"grpc-timeout": "400m"})
        assert (answer.status_code, answer.json()["reason"]) == (504, "DEADLINE_EXCEEDED")
        assert time.monotonic() - started < 5


async def test_a_slow_network_is_only_slow() -> None:
    """N04: 300 ms on the way are 300 ms more."""
    async with behind("delay") as (client, _):
        started = time.monotonic()
        assert (await client.get("/api/catalogue")).status_code == 200
        assert time.monotonic() - started >= 0.3


async def test_fifty_of_the_largest_bodies_at_once_are_bounded(api: httpx.AsyncClient) -> None:
    """L10: every one is answered, refused or not, and memory stays within a few times what was sent."""
    body = b"[" * (1 << 20)
    before = psutil.Process().memory_info().rss

    async def post() -> int:
        held = {"content-type": "application/json"}
        return (await api.post("/api/jobs", content=body, headers=held, timeout=60)).status_code

    assert set(await asyncio.gather(*[post() for _ in range(50)])) <= {400, 408, 429, 503}
    assert psutil.Process().memory_info().rss - before < 400_000_000

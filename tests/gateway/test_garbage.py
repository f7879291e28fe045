"""Memory of requests: it is freed by reference counts, not by the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from urllib.parse import urlsplit

import orjson

from rpc.in_process import LocalChannel
from tests.conftest import NewDataset, Stack
from tests.gateway import raw
from tests.gateway.conftest import bearer, new_request

REQUESTS = 1_000
MAX_UNREACHABLE = 300
# grpc.aio's server leaves its call details, their closure and the pairs of their metadata to the collector: 8 objects with
# the gateway's metadata. It runs in this process too.
OBJECTS_OF_GRPC_SERVER = 8


async def send_all(url: str, requests: list[bytes]) -> list[int]:
    """Sends requests on one connection, each after the response to the one before; returns their statuses."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    statuses = []
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        statuses.append(int(head.split(b" ")[1]))
    writer.close()
    return statuses


async def test_requests_leave_no_reference_cycles(
    gateway_url: str, shared_stack: Stack, new_dataset: NewDataset, me: str
) -> None:
    """After 1,000 requests, good, refused and compressed, served with collection off, almost nothing is unreachable."""
    estimate = orjson.dumps(new_request(await new_dataset(me)))
    headers = {"connection": "keep-alive", "content_type": "application/json", **bearer(me)}
    kinds = [
        (raw.request("POST", "/api/jobs/estimate", estimate, **headers), 200),
        (raw.request("GET", "/api/jobs", **headers), 200),
        (raw.request("GET", "/api/catalogue", accept_encoding="gzip", **headers), 200),
        (raw.request("POST", "/api/jobs/estimate", b'{"stray": 1}', **headers), 400),
        (raw.request("GET", "/api/nothing", **headers), 404),
    ]
    requests = [request for request, _ in kinds] * (REQUESTS // len(kinds))
    await send_all(gateway_url, requests[:20])
    gc.collect()
    gc.disable()
    try:
        statuses = await send_all(gateway_url, requests)
        unreachable = gc.collect()
    finally:
        gc.enable()
    assert statuses == [status for _, status in kinds] * (REQUESTS // len(kinds))
    over_grpc = 0 if isinstance(shared_stack.jobs_channel, LocalChannel) else REQUESTS * 3 // len(kinds)
    assert unreachable < MAX_UNREACHABLE + over_grpc * OBJECTS_OF_GRPC_SERVER

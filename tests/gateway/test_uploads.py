"""Uploads and slow bodies: how many there may be, what they may be sent as, and what a refused one is told."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from gateway.__main__ import by_name
from gateway.app import Gateway
from gateway.http_server import http_server
from gateway.settings import GatewaySettings
from jobs_service.errors import DatasetLimit
from rpc.channels import open_channel
from rpc.identity.tokens import SharedSecret, Verifier
from tests.clients import http_client
from tests.conftest import AUDIENCE, ISSUER, SECRET, Stack, token
from tests.gateway import raw
from tests.gateway.conftest import bearer, open_gateway
from tests.rpc.conftest import boundary
from tests.rpc.test_uploads import SERVICE, Uploads
from tests.serving import serving

JSONL = {"content-type": "application/jsonl"}
ROW = b'{"prompt":"a","completion":"b"}\n'
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
CHUNKS = 24


def upload_head(user: str, name: str = "x", *, length: int | None = None) -> bytes:
    """The head of an upload, in chunks if it has no length."""
    framing = {"transfer_encoding": "chunked"} if length is None else {"content_length": str(length)}
    headers = {"content_type": "application/jsonl", "authorization": f"Bearer {token(user)}", **framing}
    return raw.request("POST", f"/api/datasets?name={name}", **headers)


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the gateway."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()


class Refusing(Uploads):
    """Reads as many chunks of an upload as its name says, then refuses it."""

    async def ImportDataset(self, requests: AsyncIterator[Any], call: Any) -> Any:
        first = await anext(aiter(requests))
        received = 0
        async for request in requests:
            received += len(request.chunk)
            if received >= int(first.name) * 0x10000:
                break
        raise DatasetLimit(limit=1)


@asynccontextmanager
async def refusing_gateway() -> AsyncIterator[str]:
    """A gateway in front of a service that refuses an upload after as many chunks as its name says."""
    async with AsyncExitStack() as opened:
        address = await opened.enter_async_context(serving({SERVICE: Refusing()}, boundary()))
        channel = await opened.enter_async_context(open_channel(address, [SERVICE]))
        settings = GatewaySettings(jwt_secret=SECRET, jwt_issuer=ISSUER, max_uploads_per_user=64)
        verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE)

        async def ready() -> dict[str, bool]:
            return {}

        app = Gateway(settings, by_name([SERVICE], channel), verifier, ready)
        server = http_server(app, host="127.0.0.1", port=0, share_port=False, drain_seconds=1)
        yield f"http://127.0.0.1:{await opened.enter_async_context(server)}"


async def refused_upload(url: str, after: int, pause: float) -> tuple[int, str]:
    """Sends an upload that is refused after some messages, and goes on sending; returns status and reason."""
    async with connection(url) as (reader, writer), asyncio.timeout(30):
        response = asyncio.create_task(reader.read())
        writer.write(upload_head("aaaaaaaa-0000-4000-8000-000000000001", str(after)))
        try:
            for _ in range(CHUNKS):
                if response.done():
                    break
                writer.write(CHUNK)
                await writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            pass
        head, _, body = (await response).partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), httpx.Response(200, content=body).json()["reason"]


async def refusals(url: str, count: int) -> Counter[tuple[int, str]]:
    """Makes uploads that are refused at random points, eight at a time; counts what they are told."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    results: Counter[tuple[int, str]] = Counter()

    async def some() -> None:
        for _ in range(count // 8):
            results[await refused_upload(url, chance.randrange(1, CHUNKS), chance.choice([0, 0, 0.001]))] += 1

    await asyncio.gather(*[some() for _ in range(8)])
    return results


async def test_an_upload_refused_half_way_has_its_own_status() -> None:
    """X16: an upload that the service refuses while it is being sent gets the service's status, and can read it."""
    async with refusing_gateway() as url:
        assert await refusals(url, 80) == {(429, "DATASET_LIMIT"): 80}


@pytest.mark.slow
async def test_thousands_of_refused_uploads_have_their_own_status() -> None:
    """X16: of 2,000 uploads that are refused at any point, none ends as 500 and none without a response."""
    async with refusing_gateway() as url:
        assert await refusals(url, 2_000) == {(429, "DATASET_LIMIT"): 2_000}


@pytest.mark.asyncio(loop_scope="session")
async def test_a_user_has_few_uploads_at_once(shared_stack: Stack) -> None:
    """X03: an upload above a user's limit gets 429 with Retry-After and the limit; other users and later uploads are served."""
    me, other = str(uuid.uuid4()), str(uuid.uuid4())
    async with AsyncExitStack() as opened:
        url = await opened.enter_async_context(open_gateway(shared_stack, max_uploads=4, max_uploads_per_user=2))
        client = await opened.enter_async_context(http_client(url, timeout=10))

        async def post(user: str) -> httpx.Response:
            return await client.post("/api/datasets?name=x", content=ROW, headers=JSONL | bearer(user))

        writers = []
        for _ in range(2):
            _reader, writer = await opened.enter_async_context(connection(url))
            writer.write(upload_head(me, length=1_000) + ROW)
            writers.append(writer)
        async with asyncio.timeout(5):
            while (refused := await post(me)).status_code != 429:
                await asyncio.sleep(0.02)
        body = refused.json()
        assert (body["reason"], body["metadata"], refused.headers["retry-after"]) == (
            "TOO_MANY_UPLOADS",
            {"limit": "2"},
            "1",
        )
        assert (await post(other)).status_code == 201
        for writer in writers:
            writer.close()
        async with asyncio.timeout(5):
            while (await post(me)).status_code != 201:
                await asyncio.sleep(0.02)


@pytest.mark.asyncio(loop_scope="session")
async def test_slow_bodies_have_a_budget(shared_stack: Stack) -> None:
    """X03: bodies that are declared and not sent use up their own user's share only; above it there is 429, until they end."""
    slow, other = str(uuid.uuid4()), str(uuid.uuid4())
    async with AsyncExitStack() as opened:
        url = await opened.enter_async_context(open_gateway(shared_stack, max_buffered_bytes=4 << 20))
        client = await opened.enter_async_context(http_client(url, timeout=10))
        for _ in range(8):
            _, writer = await opened.enter_async_context(connection(url))
            headers = {"content_type": "application/json", "content_length": str(1 << 20)}
            writer.write(raw.request("POST", "/api/jobs", **headers, authorization=f"Bearer {token(slow)}") + b"{")

        async def post(user: str, size: int) -> httpx.Response:
            content = b'{"preset_id":"' + b"x" * size + b'"}'
            headers = {"content-type": "application/json"} | bearer(user)
            return await client.post("/api/jobs", content=content, headers=headers)

        async with asyncio.timeout(5):
            while (refused := await post(slow, 900_000)).status_code != 429:
                await asyncio.sleep(0.02)
        assert (refused.json()["reason"], refused.headers["retry-after"]) == ("OVERLOADED", "1")
        assert (await post(other, 100)).status_code == 400
        assert (await post(other, 900_000)).status_code == 400
        # The bodies time out after half a second.
        async with asyncio.timeout(5):
            while (await post(slow, 900_000)).status_code != 400:
                await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_hundreds_of_slow_uploads_leave_memory_as_it_was(shared_stack: Stack) -> None:
    """X03: 600 uploads of 900 kB that stop before their end are refused but for a few, in bounded memory."""
    process = psutil.Process()
    async with AsyncExitStack() as opened:
        url = await opened.enter_async_context(open_gateway(shared_stack))
        users = [str(uuid.uuid4()) for _ in range(30)]
        before = process.memory_info().rss

        async def one(number: int) -> bytes:
            async with connection(url) as (reader, writer):
                writer.write(upload_head(users[number % len(users)], length=900_000) + b"x" * 800_000)
                return (await reader.read(12))[9:]

        statuses = Counter(await asyncio.gather(*[one(number) for number in range(600)]))
        peak = process.memory_info().rss
    assert set(statuses) <= {b"429", b"408"}
    assert statuses[b"408"] <= 64
    # The client's own 600 bodies are in this process as well.
    assert peak - before < 600 * 900_000 + 128_000_000


@pytest.mark.parametrize(
    ("headers", "advice"),
    [
        ({"content-type": "multipart/form-data; boundary=x"}, "curl -F"),
        ({"content-type": "application/x-www-form-urlencoded"}, "removes line breaks"),
        ({}, "no Content-Type"),
        ({"content-type": "text/plain"}, "application/jsonl"),
    ],
)
async def test_a_form_is_told_what_to_type(api: httpx.AsyncClient, headers: dict[str, str], advice: str) -> None:
    """Case 02: an upload as a form, or of no type, gets 415 with the reason and the curl command that works."""
    answer = await api.post("/api/datasets?name=x", content=ROW, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert advice in answer.json()["details"]
    assert "--data-binary @FILE" in answer.json()["details"]


@pytest.mark.parametrize(
    "media_type",
    [
        "application/jsonl",
        "application/jsonl; charset=UTF-8",
        "application/x-jsonlines",
        "application/jsonlines",
        "application/x-ndjson",
        "application/json",
        "application/octet-stream",
    ],
)
async def test_a_file_may_have_any_of_its_types(api: httpx.AsyncClient, media_type: str) -> None:
    """Case 02: JSON lines are taken under every media type that programs send them as."""
    answer = await api.post("/api/datasets?name=x", content=ROW, headers={"content-type": media_type})
    assert (answer.status_code, answer.json()["data"]["status"]) == (201, "ready")


async def test_a_compressed_request_is_told_to_send_the_file(api: httpx.AsyncClient) -> None:
    """Case 02: Content-Encoding is refused with the way to send a compressed file."""
    answer = await api.post("/api/datasets?name=x", content=ROW, headers=JSONL | {"content-encoding": "gzip"})
    assert answer.status_code == 415
    assert "application/gzip" in answer.json()["details"]

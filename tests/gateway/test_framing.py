"""Group 1 of the faults: HTTP/1.1 as it comes over the socket, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from urllib.parse import urlsplit

import orjson
import psutil
import pytest

from gateway import http_server
from tests.clients import http_client
from tests.conftest import NewDataset, token
from tests.gateway import raw
from tests.gateway.conftest import new_request

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /api/jobs/estimate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
SMUGGLED = b"GET /api/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """An open connection."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()


BROKEN: list[tuple[str, bytes]] = [
    ("H01 both lengths", POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
    ("H02 two lengths", POST + b"content-length: 2\r\ncontent-length: 5\r\n\r\n{}" + SMUGGLED),
    ("H02 a list of lengths", POST + b"content-length: 2, 5\r\n\r\n{}" + SMUGGLED),
    *[
        (f"H03 {length!r}", POST + b"content-length: " + length + b"\r\n\r\n{}" + SMUGGLED)
        for length in (b"-1", b"+5", b"5 x", b"0x5", b"1" + b"0" * 20, b"", b"1_0", b"2;a")
    ],
    *[
        (f"H04 {coding!r}", POST + b"transfer-encoding: " + coding + b"\r\n\r\n0\r\n\r\n" + SMUGGLED)
        for coding in (b"xchunked", b"chunked, chunked", b"identity", b"chunked, gzip", b"chunked;a", b"\x0bchunked")
    ],
    *[
        (f"H04 {coding!r}", POST + b"transfer-encoding: " + coding + b"\r\n\r\n0\r\n\r\n" + SMUGGLED)
        for coding in (b"gzip, chunked", b"identity, chunked", b", chunked", b"gzip\r\ntransfer-encoding: chunked")
    ],
    (
        "H04 in HTTP/1.0",
        POST.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    ),
    ("H04 twice", POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED),
    ("H05 chunk size", POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
    ("H05 chunk too long", POST + b"transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
    ("H05 negative", POST + b"transfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
    ("H05 huge", POST + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
    ("H05 bare LF", POST + b"transfer-encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n" + SMUGGLED),
    ("H06 space before colon", HEALTH + b"x-a : b\r\n\r\n"),
    ("H06 obs-fold", HEALTH + b"x-a: b\r\n c\r\n\r\n"),
    ("H06 fold at first", b"GET /healthz HTTP/1.1\r\n host: localhost\r\n\r\n"),
    ("H06 NUL", HEALTH + b"x-a: b\0c\r\n\r\n"),
    ("H06 bare CR", HEALTH + b"x-a: b\rc\r\n\r\n"),
    ("H06 bare LF in a value", HEALTH + b"x-a: b\nx-b: c\r\n\r\n"),
    ("H06 NUL in a name", HEALTH + b"x\0a: b\r\n\r\n"),
    ("H06 no colon", HEALTH + b"x-a\r\n\r\n"),
    ("H06 empty name", HEALTH + b": b\r\n\r\n"),
    ("H10 non-ASCII path", "GET /é HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()),
    ("H10 control byte in path", b"GET /a\x01b HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ("H10 DEL in path", b"GET /a\x7fb HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ("H10 a space in path", b"GET /a b HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ("H11 lower case", b"get /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ("H11 a made-up method", b"FETCH /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ("H11 1 kB", b"G" * 1024 + b" /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ("H12 HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("H12 TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)),
    ("H12 random bytes", Random(1).randbytes(300)),
    ("H12 HTTP/3.0", b"GET /healthz HTTP/3.0\r\nhost: localhost\r\n\r\n"),
    ("H19 authority", b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n"),
    ("H19 no slash", b"GET healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"),
]


@pytest.mark.parametrize(("row", "data"), BROKEN, ids=[row for row, _ in BROKEN])
async def test_what_is_not_http_is_the_end_of_its_connection(gateway_url: str, row: str, data: bytes) -> None:
    """H01 to H06, H10 to H12: one 400, then the connection is closed; nothing behind it is ever read."""
    answer = await raw.exchange(gateway_url, data)
    assert len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", answer)) == 1, (row, answer)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert status == 400, row
    told = orjson.loads(body)
    assert set(told) == {"error", "details", "code", "reason", "request_id"}
    assert f"x-request-id: {told['request_id']}".encode() in head
    assert b"smuggled" not in answer


@pytest.mark.parametrize(
    ("row", "data"),
    [
        ("H07 no host", b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"),
        ("H07 two hosts", HEALTH + b"host: evil.example\r\nconnection: close\r\n\r\n"),
        ("H10 a fragment", b"GET /healthz#x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
        ("H12 no version", b"GET /healthz\r\n\r\n"),
        (
            "H19 another host",
            b"GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        ),
    ],
)
async def test_what_a_proxy_refuses_is_harmless_here(gateway_url: str, row: str, data: bytes) -> None:
    """H07, H10, H12, H19: what uvicorn accepts has one response, of the path that it names; a proxy in front refuses it."""
    answer = await raw.exchange(gateway_url, data)
    assert len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", answer)) == 1, (row, answer)
    assert b"evil" not in answer


@pytest.mark.parametrize(
    ("row", "data", "status"),
    [
        ("H08 head over 16 KiB", HEALTH + b"".join(b"x-%d: %b\r\n" % (n, b"a" * 1000) for n in range(17)), 431),
        ("H08 a header over 8 KiB", HEALTH + b"x-a: " + b"a" * 9000 + b"\r\n", 431),
        ("H08 a name over 8 KiB", HEALTH + b"a" * 9000 + b": b\r\n", 431),
        ("H08 over 100 headers", HEALTH + b"x-a: b\r\n" * 101, 431),
        ("H08 without an end", HEALTH + b"x-a: " + b"a" * 200_000, 431),
        ("H09 path over 4 KiB", b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", 414),
        ("H09 target without an end", b"GET /" + b"a" * 300_000, 414),
    ],
)
async def test_a_head_has_limits(gateway_url: str, row: str, data: bytes, status: int) -> None:
    """H08 and H09: a head or a path that is too large is told so, and the connection is closed."""
    answer = await raw.send(gateway_url, data + (b"" if row.endswith("end") else b"\r\n"))
    assert answer.status == status, row
    assert set(answer.json()) - {"metadata"} == {"error", "details", "code", "reason", "request_id"}


async def test_a_head_within_its_limits_is_served(gateway_url: str) -> None:
    """H08: just below every limit is fine, with HTTP/1.0 as well."""
    headers = b"".join(b"x-%d: %b\r\n" % (number, b"a" * 100) for number in range(95))
    for line in (headers, b"x-a: " + b"a" * 8000 + b"\r\n"):
        answer = await raw.send(gateway_url, HEALTH + b"connection: close\r\n" + line + b"\r\n")
        assert answer.status == 200
    assert (await raw.send(gateway_url, b"GET /healthz HTTP/1.0\r\n\r\n")).status == 200


async def test_a_chunked_body_is_read(gateway_url: str, new_dataset: NewDataset, me: str) -> None:
    """H05: chunks of any size, with trailers and short extensions, are one body."""
    body = orjson.dumps(new_request(await new_dataset(me)))
    chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body)
    credentials = b"authorization: Bearer " + token(me).encode() + b"\r\nconnection: close\r\n"
    answer = await raw.send(
        gateway_url, POST + credentials + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\nx-trailer: y\r\n\r\n"
    )
    assert (answer.status, answer.json()["success"]) == (200, True)


async def test_a_chunk_extension_is_no_way_in(gateway_url: str, me: str) -> None:
    """H05: long chunk extensions are no part of a body, and a body of them alone is not waited for."""
    credentials = b"authorization: Bearer " + token(me).encode() + b"\r\nconnection: close\r\n"
    credentials += b"transfer-encoding: chunked\r\n\r\n"
    for data in (b"2;a=" + b"b" * 65_536 + b"\r\n{}\r\n0\r\n\r\n", (b"1;" + b"b" * 4096 + b"\r\n \r\n") * 200):
        answer = await raw.send(gateway_url, POST + credentials + data)
        assert answer.status in (400, 408)


@pytest.mark.parametrize(
    ("row", "data"),
    [
        ("H13 nothing", b""),
        ("H13 half a line", b"GET /hea"),
        ("H13 half a head", HEALTH + b"x-a: "),
        ("H13 half a head after a request", HEALTH + b"\r\n" + HEALTH),
    ],
)
async def test_half_a_head_is_not_waited_for(
    gateway_url: str, monkeypatch: pytest.MonkeyPatch, row: str, data: bytes
) -> None:
    """H13: a connection that is silent in the middle of a head is closed, within 10 s by default."""
    assert http_server.HEAD_TIMEOUT_SECONDS < 10
    monkeypatch.setattr(http_server, "HEAD_TIMEOUT_SECONDS", 0.3)
    answer = await raw.exchange(gateway_url, data)
    assert answer.count(b"HTTP/1.1 200") == row.endswith("request")


async def test_a_trickled_head_is_not_waited_for(gateway_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """H13: a byte now and then does not keep a connection open."""
    monkeypatch.setattr("gateway.http_server.HEAD_TIMEOUT_SECONDS", 0.5)
    async with connected(gateway_url) as (reader, writer):
        closed = asyncio.ensure_future(reader.read())
        async with asyncio.timeout(5):
            for byte in HEALTH * 100:
                if closed.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
            # A byte that was on its way when the server closed has its answer in a reset.
            with contextlib.suppress(ConnectionResetError):
                assert await closed == b""


@pytest.mark.parametrize("trickle", [False, True])
async def test_half_a_body_is_not_waited_for(gateway_url: str, me: str, trickle: bool) -> None:
    """H14: a body that stops, or comes a byte at a time, gets 408 and the end; the call's slot is free again."""
    head = POST + b"authorization: Bearer " + token(me).encode() + b"\r\ncontent-length: 1000\r\n\r\n{"
    async with connected(gateway_url) as (reader, writer):
        writer.write(head)
        answer = asyncio.ensure_future(reader.read())
        async with asyncio.timeout(5):
            while trickle and not answer.done():
                writer.write(b" ")
                await asyncio.sleep(0.1)
            result = await answer
    assert result.startswith(b"HTTP/1.1 408 ")
    assert b'"REQUEST_TIMEOUT"' in result


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ("H15", b"expect: 100-continue\r\ncontent-length: 100000000\r\n\r\n"),
        ("H16 declared", b"content-length: 1048577\r\n\r\n"),
        ("H16 chunked", b"transfer-encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 17),
    ],
)
async def test_a_body_over_the_limit_is_not_read(gateway_url: str, me: str, row: str, headers: bytes) -> None:
    """H15 and H16: 413 as soon as it is known, without 100 Continue, and the connection is closed."""
    answer = await raw.exchange(gateway_url, POST + b"authorization: Bearer " + token(me).encode() + b"\r\n" + headers)
    assert answer.startswith(b"HTTP/1.1 413 "), row
    assert b'"TOO_LARGE"' in answer


async def test_a_body_that_is_asked_for_is_sent(gateway_url: str, new_dataset: NewDataset, me: str) -> None:
    """H15: a client that waits for 100 Continue gets it, and then its answer."""
    body = orjson.dumps(new_request(await new_dataset(me)))
    credentials = b"authorization: Bearer " + token(me).encode() + b"\r\nconnection: close\r\n"
    async with connected(gateway_url) as (reader, writer), asyncio.timeout(5):
        writer.write(POST + credentials + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")


async def test_what_waits_for_its_turn_is_not_done_after_a_refusal(
    gateway_url: str, new_dataset: NewDataset, me: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests that wait behind one another when the connection turns out not to be HTTP are neither done nor answered."""
    credentials = b"host: x\r\nauthorization: Bearer " + token(me).encode() + b"\r\n"
    body = orjson.dumps({**new_request(await new_dataset(me)), "preset_id": "custom"})
    first = b"GET /api/jobs HTTP/1.1\r\n" + credentials + b"\r\n"
    head = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    job = b"POST /api/jobs HTTP/1.1\r\n" + credentials + head + body
    answer = await raw.exchange(gateway_url, first + job + job + b"\0\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"400"]
    jobs = await raw.send(gateway_url, first.replace(b"\r\nhost", b"\r\nconnection: close\r\nhost"))
    assert jobs.json()["data"]["pagination"]["total"] == 0
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.WARNING] == []


async def test_a_client_that_never_reads_is_not_served_for_ever(
    gateway_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H18: pipelined requests whose answers nobody takes hold bounded memory, and their connection is closed."""
    assert http_server.SEND_TIMEOUT_SECONDS <= 60
    monkeypatch.setattr(http_server, "SEND_TIMEOUT_SECONDS", 0.5)
    parts = urlsplit(gateway_url)
    before = psutil.Process().memory_info().rss
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(client, (parts.hostname, parts.port))
        request = b"GET /api/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionError):
                while True:
                    await loop.sock_sendall(client, request * 100)
                    await asyncio.sleep(0.02)
    finally:
        client.close()
    assert psutil.Process().memory_info().rss - before < 100_000_000
    async with http_client(gateway_url) as http:
        assert (await http.get("/healthz")).status_code == 200


@pytest.mark.slow
async def test_idle_connections_keep_nobody_out(gateway_url: str) -> None:
    """H20: with 2,000 connections that say nothing, a request is answered as before."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    parts = urlsplit(gateway_url)
    idle = []
    try:
        while len(idle) < 2_000:
            idle.append(await asyncio.open_connection(parts.hostname, parts.port))
        async with http_client(gateway_url) as http:
            started = time.monotonic()
            assert (await http.get("/healthz")).status_code == 200
            assert time.monotonic() - started < 2
    finally:
        for _, writer in idle:
            writer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.getpid()


@pytest.mark.parametrize("head", [b"content-length: 1000000", b"transfer-encoding: chunked"])
async def test_an_answer_before_the_body_ends_the_connection(gateway_url: str, head: bytes) -> None:
    """H14: who is refused before their body came is told that this was all, and cannot keep the connection by sending on."""
    async with connected(gateway_url) as (reader, writer):
        writer.write(b"POST /api/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + head + b"\r\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 401")
            assert b"\r\nconnection: close\r\n" in answer.lower()
            await reader.read()

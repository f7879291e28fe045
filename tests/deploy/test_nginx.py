"""A gateway behind nginx: event streams and uploads."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests import debian
from tests.clients import http_client
from tests.conftest import NewDataset, Stack
from tests.gateway.conftest import bearer, open_gateway
from tests.jobs_service.events.test_events import ANN, STREAM, Reader, create
from tests.jobs_service.trainers import complete, lease, report

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
# nginx as it is, but for compression of everything.
CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_proxied any;
    gzip_types *;
    gzip_min_length 1;
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
}}
"""


@asynccontextmanager
async def nginx(gateway_url: str, folder: Path) -> AsyncIterator[str]:
    """Runs nginx in front of a gateway, with the documented location; yields its address."""
    port = debian.free_port()
    found = re.search(r"```nginx\n(.*?)```", DOCUMENTED, re.DOTALL)
    assert found
    location = found[1].replace("http://127.0.0.1:8080", gateway_url)
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=folder, port=port, location=location))
    async with debian.listening("nginx", "-e", "stderr", "-p", str(folder), "-c", str(file), port=port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """A lease that lasts for the whole test."""
    return {"lease_ms": 60_000, "watch_poll_ms": 20}


@pytest.fixture
async def ann(stack: Stack, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Ann's client, behind nginx."""
    async with (
        open_gateway(stack) as gateway_url,
        nginx(gateway_url, tmp_path) as url,
        http_client(url, timeout=10, headers=bearer(ANN)) as client,
    ):
        yield client


@debian.needs("nginx")
@pytest.mark.slow
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
@pytest.mark.parametrize("accepted", ["identity", "gzip"])
async def test_events_come_through_nginx_one_by_one(
    stack: Stack, ann: httpx.AsyncClient, new_dataset: NewDataset, accepted: str
) -> None:
    """Cases 67, 68: each event arrives before the next one is caused, also with compression, and streams resume."""
    async with ann.stream("GET", "/api/jobs/events", headers={**STREAM, "accept-encoding": accepted}) as answer:
        assert answer.headers.get("content-encoding", "identity") == accepted
        reader = Reader(answer)
        first = await reader.until("snapshot")
        job = await create(ann, await new_dataset(ANN))
        types = [(await reader.until("event")).data["type"]]
        (leased,) = await lease(stack)
        types.append((await reader.until("event")).data["type"])
        await report(stack, leased, step=1)
        types.append((await reader.until("event")).data["type"])
        await complete(stack, leased)
        types.append((await reader.until("event")).data["type"])
    async with ann.stream("GET", f"/api/jobs/events?lastEventId={first.id}", headers=STREAM) as answer:
        again = Reader(answer)
        events = [await again.until("event") for _ in types]
    assert [(event.data["job_id"], event.data["type"]) for event in events] == [(job, type_) for type_ in types]


@debian.needs("nginx")
@pytest.mark.slow
@pytest.mark.parametrize("stack", ["grpc"], indirect=True)
async def test_a_dataset_comes_through_nginx(ann: httpx.AsyncClient) -> None:
    """A file above nginx's own limit of 1 MB is imported, with every row."""
    row = orjson.dumps({"prompt": "Say it.", "completion": "word " * 200}) + b"\n"
    data = row * 2_000
    answer = await ann.post(
        "/api/datasets?name=Rows", content=data, headers={"content-type": "application/jsonl"}, timeout=30
    )
    dataset = answer.json()["data"]
    assert (answer.status_code, dataset["status"], dataset["total_training_pairs"]) == (201, "ready", 2_000)

"""One running stack and one Chromium for all browser tests; for each test a person of its own, who sees only their rows."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import grpc.aio
import httpx
import pytest
import pytest_asyncio
from pipeline.common.v1 import files_pb2
from pipeline.workers.v1 import workers_pb2, workers_pb2_grpc
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright, expect

from tests.deploy.processes import Stack, stack

UI = Path(__file__).parents[2] / "gateway" / "ui"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A host name of a local network, over plain http: not a secure context, as localhost is.
    "--host-resolver-rules=MAP gpu-box.lan 127.0.0.1",
]
expect.set_options(timeout=15_000)
WIDE = {"width": 1280, "height": 900}
COOKIE = "pipeline_session"
# What the browser itself says of what a test provoked.
EXPECTED = (
    "Failed to load resource",
    "violates the following Content Security Policy",
    # Without https some headers do nothing.
    "header has been ignored, because the URL's origin was untrustworthy",
)


@pytest.fixture(scope="session")
def up() -> Iterator[Stack]:
    """The whole stack, started by the code of `make up`."""
    assert (UI / "dist" / "index.html").is_file(), "the page is not built: make ui"
    # PostgreSQL is another user where we are root: pytest's own folders are private.
    with (
        tempfile.TemporaryDirectory(prefix="pipeline-browser-", dir="/tmp") as folder,
        # Webhooks' receivers are on this machine, and there are tests that wait for one.
        stack(Path(folder), simulated_trainer=False, webhook_allow_private=True, webhook_poll_ms=50) as started,
    ):
        yield started


@pytest.fixture(scope="session")
def gateway(up: Stack) -> str:
    """The page's origin."""
    return up.running.gateway


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The machine's Chromium, else Playwright's own. Its headless shell, where there is one, takes a third of the time."""
    executable = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        await browser.close()


@dataclass
class Person:
    """Somebody with a token, and what they do without the page."""

    up: Stack
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def token(self) -> str:
        """A token of this person."""
        assert self.up.running.issuer is not None
        return self.up.running.issuer.open().token(self.id)

    @property
    def gateway(self) -> str:
        """The page's origin."""
        return self.up.running.gateway

    async def ask(self, method: str, path: str, **body: Any) -> Any:
        """The data of a call's answer."""
        async with httpx.AsyncClient(base_url=self.gateway, headers={"authorization": f"Bearer {self.token}"}) as http:
            response = await http.request(method, path, **body)
            assert response.is_success, response.text
            return response.json()["data"]

    async def import_dataset(self, name: str = "Questions", pairs: int = 40) -> str:
        """Imports a dataset of real pairs and returns its id."""
        data = await self.ask(
            "POST",
            "/api/datasets",
            params={"name": name, "file_name": f"{name.lower()}.jsonl"},
            content=jsonl(pairs),
            headers={"content-type": "application/jsonl"},
        )
        assert data["status"] == "ready"
        return str(data["id"])

    async def create_job(self, dataset_id: str, **changes: Any) -> dict[str, Any]:
        """Queues a job on the Balanced preset."""
        body = {
            "dataset_id": dataset_id,
            "gpu_config": {"type": "A100-80GB", "count": 2},
            "hyperparameters": {"learning_rate": 5e-5, "batch_size": 4, "epochs": 3, "rank": 16},
            "preset_id": "balanced",
            **changes,
        }
        return dict(await self.ask("POST", "/api/jobs", json=body))

    async def sql(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Runs a statement as the database's administrator."""
        connection = await asyncpg.connect(self.up.running.database_url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()


@dataclass
class Trainer:
    """A trainer, as the contract has it: it takes a person's job and reports on it."""

    stub: Any
    person: Person
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def _metadata(self) -> list[tuple[str, str]]:
        assert self.person.up.running.issuer is not None
        token = self.person.up.running.issuer.open().token(self.id, role="worker")
        return [("authorization", f"Bearer {token}")]

    async def take(self) -> Any:
        """Leases all that is in the queue, what earlier tests left there too, and returns the person's first job."""
        return (await self.take_all(1))[0]

    async def take_all(self, count: int) -> list[Any]:
        """Leases all that is in the queue until it has `count` jobs of the person, and returns those."""
        taken: list[Any] = []
        jobs = await self.person.sql("select id from lora_training_jobs where user_id = $1::uuid", self.person.id)
        mine = {str(row["id"]) for row in jobs}
        types = (await self.person.ask("GET", "/api/catalogue"))["gpu_types"]
        offers = [workers_pb2.GpuOffer(type=each["type"], count=1000) for each in types]
        while True:
            request = workers_pb2.LeaseJobsRequest(max_jobs=100, gpus=offers[:16], wait_ms=5000, trainer="tests")
            leases = (await self.stub.LeaseJobs(request, metadata=self._metadata, timeout=10)).leases
            assert leases, "nothing is queued"
            taken += [lease for lease in leases if lease.job_id in mine]
            if len(taken) >= count:
                return taken

    async def report(
        self, lease: Any, step: int, stage: str = "training", log_lines: Sequence[str] | None = None, **values: float
    ) -> Any:
        """Reports a step with its metrics, and with a line of its own unless others are given."""
        epoch = step / max(lease.total_steps, 1) * lease.total_epochs
        point = workers_pb2.MetricPoint(step=step, epoch=epoch, values=values)
        request = workers_pb2.ReportProgressRequest(
            job_id=lease.job_id,
            lease_token=lease.lease_token,
            stage=stage,
            epoch=min(int(epoch) + 1, lease.total_epochs),
            step=step,
            metrics=[point] if values else [],
            log_lines=[f"step {step}"] if log_lines is None else log_lines,
        )
        return await self.stub.ReportProgress(request, metadata=self._metadata, timeout=10)

    async def upload(self, lease: Any, name: str, content: bytes) -> files_pb2.StoredFile:
        """Uploads a file of the result."""

        async def requests() -> AsyncIterator[workers_pb2.UploadArtifactRequest]:
            yield workers_pb2.UploadArtifactRequest(job_id=lease.job_id, lease_token=lease.lease_token, name=name)
            for start in range(0, len(content), 512 * 1024):
                yield workers_pb2.UploadArtifactRequest(chunk=content[start : start + 512 * 1024])

        return (await self.stub.UploadArtifact(requests(), metadata=self._metadata, timeout=30)).file

    async def complete(
        self, lease: Any, files: Sequence[files_pb2.StoredFile] = (), *, uri: str = "s3://adapters/tests", step: int = 0
    ) -> None:
        """Reports that the job is done: its result is at `uri`, or in uploaded files."""
        request = workers_pb2.CompleteJobRequest(
            job_id=lease.job_id,
            lease_token=lease.lease_token,
            artifact_uri="" if files else uri,
            files=files,
            result_step=step,
        )
        await self.stub.CompleteJob(request, metadata=self._metadata, timeout=10)

    async def fail(self, lease: Any, message: str) -> None:
        """Reports an error that no other attempt would mend."""
        request = workers_pb2.FailJobRequest(
            job_id=lease.job_id, lease_token=lease.lease_token, error_message=message, retryable=False
        )
        await self.stub.FailJob(request, metadata=self._metadata, timeout=10)


@pytest_asyncio.fixture(loop_scope="session")
async def trainer(person: Person) -> AsyncIterator[Trainer]:
    """A trainer with all GPU types there are."""
    async with grpc.aio.insecure_channel(person.up.running.jobs) as channel:
        yield Trainer(workers_pb2_grpc.WorkerServiceStub(channel), person)


def jsonl(pairs: int) -> bytes:
    """A file of chat messages."""
    lines = (
        {
            "messages": [
                {"role": "user", "content": f"What is {number} plus {number}?"},
                {"role": "assistant", "content": f"{number} plus {number} is {number + number}."},
            ]
        }
        for number in range(pairs)
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.fixture
def person(up: Stack) -> Person:
    """A person whom nobody has seen before."""
    return Person(up)


NewContext = Callable[..., Awaitable[BrowserContext]]


@pytest_asyncio.fixture(loop_scope="session")
async def new_context(chromium: Browser, person: Person) -> AsyncIterator[NewContext]:
    """Opens windows, signed in as the person unless told otherwise. In the end no page may have broken or gone astray."""
    contexts: list[BrowserContext] = []
    broken: list[str] = []

    async def make(*, signed_in: bool = True, host: str = "127.0.0.1", **options: Any) -> BrowserContext:
        origin = person.gateway.replace("127.0.0.1", host)
        context = await chromium.new_context(base_url=origin, **{"viewport": WIDE, **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        context.on("weberror", lambda event: broken.append(str(event.error)))
        context.on(
            "console",
            lambda message: (
                broken.append(message.text)
                if message.type in ("error", "warning") and not any(each in message.text for each in EXPECTED)
                else None
            ),
        )
        context.on("request", lambda request: broken.extend(_astray(request, origin)))
        if signed_in:
            cookie = {"name": COOKIE, "value": person.token, "url": origin, "httpOnly": True}
            await context.add_cookies([{**cookie, "sameSite": "Strict"}])  # type: ignore[list-item]
        return context

    yield make
    for context in contexts:
        await context.close()
    assert broken == []


def _astray(request: Request, gateway: str) -> list[str]:
    own = urlsplit(gateway).netloc
    parts = urlsplit(request.url)
    return [] if parts.scheme in ("data", "blob", "about") or parts.netloc == own else [f"asked {request.url}"]


@pytest_asyncio.fixture(loop_scope="session")
async def page(new_context: NewContext) -> Page:
    """A window of the person's."""
    return await (await new_context()).new_page()


async def stop_the_clock(page: Page) -> None:
    """From here on a page with a clock installed sees time pass only as `page.clock` says, however busy the machine is."""
    await page.clock.pause_at(await page.evaluate("Date.now() + 1000"))


@dataclass
class Calls:
    """The calls of the API that a page makes, in order."""

    made: list[tuple[str, Mapping[str, Any] | None]] = field(default_factory=list)

    def to(self, call: str) -> list[Mapping[str, Any] | None]:
        """Bodies of the calls so far to, say, `POST /api/jobs`."""
        return [body for made, body in self.made if made == call]


@pytest.fixture
def calls(page: Page) -> Calls:
    """What the page asks of the API from here on."""
    seen = Calls()

    def note(request: Request) -> None:
        path = urlsplit(request.url).path
        if path.startswith("/api/"):
            body = request.post_data_json if request.method == "POST" and path.startswith("/api/jobs") else None
            seen.made.append((f"{request.method} {path}", body))

    page.on("request", note)
    return seen

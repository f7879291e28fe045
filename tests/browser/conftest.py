"""One running stack and one Chromium for all browser tests; for each test a person of its own, who sees only their rows."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright

from deploy.running import Stack, stack

UI = Path(__file__).parents[2] / "gateway" / "ui"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = {"width": 1280, "height": 900}
COOKIE = "pipeline_session"
# What the browser itself says of an answer that a test provoked.
EXPECTED = "Failed to load resource"


@pytest.fixture(scope="session")
def up() -> Iterator[Stack]:
    """The whole stack, started by the code of `make up`."""
    assert (UI / "dist" / "index.html").is_file(), "the page is not built: make ui"
    # PostgreSQL is another user where we are root: pytest's own folders are private.
    with tempfile.TemporaryDirectory(prefix="pipeline-browser-", dir="/tmp") as folder, stack(Path(folder)) as started:
        yield started


@pytest.fixture(scope="session")
def gateway(up: Stack) -> str:
    """The page's origin."""
    return up.running.gateway


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The machine's Chromium, else Playwright's own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
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

    async def move_job(self, job_id: str, *states: str, **columns: Any) -> None:
        """Takes a job through these states, as a trainer does, and sets columns on the way."""
        for state in states:
            await self.sql(
                "update lora_training_jobs set status = $2, current_stage = $2 where id = $1::uuid", job_id, state
            )
        for name, value in columns.items():
            await self.sql(f"update lora_training_jobs set {name} = $2 where id = $1::uuid", job_id, value)

    async def sql(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Runs a statement as the database's administrator."""
        connection = await asyncpg.connect(self.up.running.database_url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()


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

    async def make(*, signed_in: bool = True, **options: Any) -> BrowserContext:
        context = await chromium.new_context(base_url=person.gateway, **{"viewport": WIDE, **options})
        context.set_default_timeout(8_000)
        contexts.append(context)
        context.on("weberror", lambda event: broken.append(str(event.error)))
        context.on(
            "console",
            lambda message: (
                broken.append(message.text)
                if message.type in ("error", "warning") and EXPECTED not in message.text
                else None
            ),
        )
        context.on("request", lambda request: broken.extend(_astray(request, person.gateway)))
        if signed_in:
            cookie = {"name": COOKIE, "value": person.token, "url": person.gateway, "httpOnly": True}
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

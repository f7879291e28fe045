"""The gateway over real HTTP, in front of the real services: over gRPC, and in one process."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from gateway.__main__ import ESTIMATOR, JOBS, by_name
from gateway.api_keys import api_key_lookup
from gateway.app import Gateway
from gateway.http_server import http_server
from gateway.settings import GatewaySettings
from rpc.identity.tokens import SharedSecret, Verifier
from rpc.limits import RateLimiter
from rpc.telemetry.exporters import Telemetry
from tests.clients import http_client
from tests.conftest import (
    AUDIENCE,
    ISSUER,
    SECRET,
    NewDataset,
    Stack,
    insert_dataset,
    open_stack,
    token,
)
from tests.databases import Databases, TestDatabase

ALLOWED = "https://good.example"


def bearer(user_id: str, **claims: Any) -> dict[str, str]:
    """Headers of a signed-in caller."""
    return {"authorization": f"Bearer {token(user_id, **claims)}"}


def new_request(dataset_id: str, **fields: Any) -> dict[str, Any]:
    """The Balanced preset on two A100-80GB."""
    return {
        "dataset_id": dataset_id,
        "gpu_config": {"type": "A100-80GB", "count": 2},
        "hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16},
        **fields,
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests share one stack, and with it one event loop: each has users of its own, who see nobody else's rows."""
    for item in items:
        if "gateway_url" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_database(databases: Databases) -> AsyncIterator[TestDatabase]:
    """The database of these tests."""
    async with databases.one() as made:
        yield made


@pytest_asyncio.fixture(
    scope="session", loop_scope="session", params=["grpc", pytest.param("local", marks=pytest.mark.slow)]
)
async def shared_stack(
    request: pytest.FixtureRequest, shared_database: TestDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The services of these tests, both ways."""
    folder = tmp_path_factory.mktemp("gateway")
    async with open_stack(request.param, shared_database.url, folder, webhook_allow_private=True) as opened:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway_url(shared_stack: Stack) -> AsyncIterator[str]:
    """A gateway's address."""
    async with open_gateway(shared_stack) as url:
        yield url


@asynccontextmanager
async def open_gateway(stack: Stack, telemetry: Telemetry | None = None, **overrides: Any) -> AsyncIterator[str]:
    """A gateway in front of a stack; yields its address. `overrides` are settings of it."""
    settings = GatewaySettings(
        jwt_secret=SECRET,
        jwt_issuer=ISSUER,
        dev_issuer=True,
        cors_origins=frozenset({ALLOWED}),
        body_timeout_ms=500,
        **overrides,
    )
    rates = RateLimiter(settings.user_calls_per_second)
    verifier = Verifier(
        SharedSecret(SECRET),
        issuer=ISSUER,
        audience=AUDIENCE,
        find_api_key=api_key_lookup(stack.jobs_channel),
        rates=rates,
    )

    async def ready() -> Mapping[str, bool]:
        return {"estimator": True, "jobs": True}

    channels = by_name(ESTIMATOR, stack.estimator_channel) | by_name(JOBS, stack.jobs_channel)
    app = Gateway(settings, channels, verifier, ready, telemetry)
    async with http_server(app, host="127.0.0.1", port=0, share_port=False, drain_seconds=1) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def me() -> str:
    """A user of the test's own."""
    return str(uuid.uuid4())


@pytest_asyncio.fixture(loop_scope="session")
async def http(gateway_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    async with http_client(gateway_url, timeout=10) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def api(gateway_url: str, me: str) -> AsyncIterator[httpx.AsyncClient]:
    """The client of `me`."""
    async with http_client(gateway_url, timeout=10, headers=bearer(me)) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def new_dataset(shared_database: TestDatabase) -> AsyncIterator[NewDataset]:
    """Creates a dataset of a user and returns its id."""
    connection = await asyncpg.connect(shared_database.admin_url)
    yield partial(insert_dataset, connection)
    await connection.close()

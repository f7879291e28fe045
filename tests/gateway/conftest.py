"""The gateway over real HTTP, in front of the real services: over gRPC, and in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from gateway.__main__ import ESTIMATOR, JOBS, by_name
from gateway.app import Gateway
from gateway.serve import http_server
from gateway.settings import GatewaySettings
from rpc.identity import SharedSecret, Verifier
from tests.conftest import AUDIENCE, ISSUER, SECRET, Stack, token

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
ALLOWED = "https://good.example"


def bearer(user_id: str = ANN, **claims: Any) -> dict[str, str]:
    """Headers of a signed-in caller."""
    return {"authorization": f"Bearer {token(user_id, **claims)}"}


def asked(dataset_id: str, **fields: Any) -> dict[str, Any]:
    """The Balanced preset on two A100-80GB."""
    return {
        "dataset_id": dataset_id,
        "gpu_config": {"type": "A100-80GB", "count": 2},
        "hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16},
        **fields,
    }


@pytest.fixture
async def gateway_url(stack: Stack) -> AsyncIterator[str]:
    """A gateway's address."""
    settings = GatewaySettings(
        jwt_secret=SECRET,
        jwt_issuer=ISSUER,
        dev_issuer=True,
        cors_origins=frozenset({ALLOWED}),
        body_timeout_ms=500,
    )
    verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE)

    async def ready() -> Mapping[str, bool]:
        return {"estimator": True, "jobs": True}

    channels = by_name(ESTIMATOR, stack.estimator_channel) | by_name(JOBS, stack.jobs_channel)
    app = Gateway(settings, channels, verifier, ready)
    async with http_server(app, host="127.0.0.1", port=0, share_port=False, drain_seconds=1) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def http(gateway_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    async with httpx.AsyncClient(base_url=gateway_url, timeout=10) as client:
        yield client


@pytest.fixture
async def ann(gateway_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Ann's client."""
    async with httpx.AsyncClient(base_url=gateway_url, timeout=10, headers=bearer(ANN)) as client:
        yield client

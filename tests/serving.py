"""A gRPC server of a test's own, at any free port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rpc.boundary import Boundary
from rpc.process.settings import CommonSettings
from rpc.server.grpc_server import Services, grpc_server

# No token has this secret: each boundary has a verifier of its own.
SETTINGS = CommonSettings(jwt_secret="a-secret-that-nobody-ever-looks-at", jwt_issuer="tests", drain_seconds=0.2)


@asynccontextmanager
async def serving(services: Services, boundary: Boundary, settings: CommonSettings = SETTINGS) -> AsyncIterator[str]:
    """Serves, healthy, while its body runs; yields the address."""
    async with grpc_server(services, boundary, settings, port=0, share_port=False) as (port, report):
        await report(True)
        yield f"127.0.0.1:{port}"

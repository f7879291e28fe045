"""A gRPC server of a test's own, at any free port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rpc.boundary import Boundary
from rpc.serve import Services, grpc_server


@asynccontextmanager
async def serving(
    services: Services, boundary: Boundary, *, reflect: bool = False, drain_seconds: float = 0.2, **options: Any
) -> AsyncIterator[str]:
    """Serves, healthy, while its body runs; yields the address."""
    async with grpc_server(
        services,
        boundary,
        host="127.0.0.1",
        port=0,
        reflect=reflect,
        share_port=False,
        drain_seconds=drain_seconds,
        **options,
    ) as (port, report):
        await report(True)
        yield f"127.0.0.1:{port}"

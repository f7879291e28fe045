"""A server of one service at a port of its own, for what happens on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pipeline.estimator.v1 import estimator_pb2

from rpc.boundary import Boundary
from rpc.identity.tokens import SharedSecret, Verifier
from rpc.limits import RateLimiter
from tests.conftest import AUDIENCE, ISSUER, SECRET
from tests.serving import SETTINGS, serving

SERVICE = estimator_pb2.DESCRIPTOR.services_by_name["EstimatorService"]


class Servicer:
    """Answers the Estimator's RPCs with what a test has planted; counts the calls that reach it."""

    def __init__(self, behave: Callable[..., Any] | None = None) -> None:
        self.calls = 0
        self._behave = behave

    async def EstimateCost(self, request: Any, call: Any) -> Any:
        self.calls += 1
        return estimator_pb2.EstimateCostResponse()

    async def GetCatalogue(self, request: Any, call: Any) -> Any:
        self.calls += 1
        if self._behave is not None:
            return await self._behave(call) or estimator_pb2.GetCatalogueResponse()
        return estimator_pb2.GetCatalogueResponse()

    async def _unasked(self, request: Any, call: Any) -> Any:
        raise AssertionError("no test of the wire asks this")

    CompareConfigurations = CreateQuote = GetQuote = GetEstimateAccuracy = _unasked


def boundary(*, limit: int = 64, seconds: float = 10, rates: RateLimiter | None = None) -> Boundary:
    """A boundary that believes the tests' issuer."""
    verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE, rates=rates)
    limits = {"max_concurrent_calls": limit, "default_timeout_ms": round(seconds * 1000)}
    return Boundary(SETTINGS.model_copy(update=limits), verifier)


Serve = Callable[..., Coroutine[Any, Any, str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server with a planted servicer and returns its address."""
    async with AsyncExitStack() as opened:

        async def start(
            servicer: Any,
            *,
            reflect: bool = True,
            limit: int = 64,
            seconds: float = 10,
            rates: RateLimiter | None = None,
        ) -> str:
            behind = boundary(limit=limit, seconds=seconds, rates=rates)
            settings = SETTINGS.model_copy(update={"reflection": reflect})
            return await opened.enter_async_context(serving({SERVICE: servicer}, behind, settings))

        yield start

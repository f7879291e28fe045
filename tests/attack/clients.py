"""Clients of other users while an attack runs: what they measure says whether it reached them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import httpx
from pipeline.jobs.v1 import jobs_pb2
from pipeline.jobs.v1.jobs_pb2_grpc import JobsServiceStub

from rpc.process.background import background

TIMEOUT_SECONDS = 10.0
PAUSE_SECONDS = 0.02


@dataclass
class Measured:
    """Latencies in seconds of calls that succeeded, and the errors by status."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def p50(self) -> float:
        """Median in milliseconds."""
        return statistics.median(self.seconds) * 1000 if self.seconds else float("inf")

    @property
    def p99(self) -> float:
        """99th percentile in milliseconds."""
        return statistics.quantiles(self.seconds, n=100)[98] * 1000 if len(self.seconds) > 1 else float("inf")


@asynccontextmanager
async def measuring(gateway: str, jobs: str, tokens: list[str]) -> AsyncIterator[Measured]:
    """Makes calls over HTTP and gRPC, one user per token, for as long as the body runs."""
    measured = Measured()
    async with (
        httpx.AsyncClient(base_url=gateway, timeout=TIMEOUT_SECONDS) as http,
        grpc.aio.insecure_channel(jobs, options=[("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        stub = JobsServiceStub(channel)

        async def over_http(token: str) -> None:
            response = await http.get("/api/jobs?limit=5", headers={"authorization": f"Bearer {token}"})
            if response.status_code != 200:
                raise ConnectionError(str(response.status_code))

        async def over_grpc(token: str) -> None:
            request = jobs_pb2.ListJobsRequest(limit=5)
            await stub.ListJobs(request, metadata=[("authorization", f"Bearer {token}")], timeout=TIMEOUT_SECONDS)

        async def client(token: str) -> None:
            while True:
                for call in (over_http, over_grpc):
                    started = time.monotonic()
                    try:
                        await call(token)
                        measured.seconds.append(time.monotonic() - started)
                    except grpc.aio.AioRpcError as error:
                        measured.errors[error.code().name] += 1
                    except (httpx.HTTPError, OSError) as error:
                        measured.errors[str(error) or type(error).__name__] += 1
                    await asyncio.sleep(PAUSE_SECONDS)

        async with background({f"innocent-{number}": client(token) for number, token in enumerate(tokens)}):
            yield measured

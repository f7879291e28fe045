"""WorkerService: a few lines for each RPC."""

from __future__ import annotations

import asyncio
import random

from pipeline.workers.v1 import workers_pb2

from jobs_service.queue import wire
from jobs_service.queue.lease import Lease, Wanted
from jobs_service.queue.store import Life
from jobs_service.settings import JobsSettings
from rpc.boundary import Call

# A trainer that waits asks again this often; many of them together ask the database this often at most.
ASK_SECONDS = 0.2
ASKS_PER_SECOND = 50
# An answer needs this long to be sent before the caller stops waiting.
ANSWER_SECONDS = 0.5


class WorkerService:
    """Gives jobs to trainers and hears how they go."""

    def __init__(self, life: Life, settings: JobsSettings) -> None:
        self._life = life
        self._settings = settings
        self._waiting = 0

    async def LeaseJobs(self, request: workers_pb2.LeaseJobsRequest, call: Call) -> workers_pb2.LeaseJobsResponse:
        leases = await self._lease(call, wire.wanted(request), request.wait_ms / 1000)
        return workers_pb2.LeaseJobsResponse(leases=[wire.lease(each, self._settings) for each in leases])

    async def ReportProgress(
        self, request: workers_pb2.ReportProgressRequest, call: Call
    ) -> workers_pb2.ReportProgressResponse:
        standing = await self._life.report(call.identity, wire.held(request), wire.report(request))
        return wire.standing(standing)

    async def CompleteJob(self, request: workers_pb2.CompleteJobRequest, call: Call) -> workers_pb2.CompleteJobResponse:
        await self._life.complete(call.identity, wire.held(request), wire.completion(request))
        return workers_pb2.CompleteJobResponse()

    async def FailJob(self, request: workers_pb2.FailJobRequest, call: Call) -> workers_pb2.FailJobResponse:
        await self._life.fail(call.identity, wire.held(request), wire.failure(request))
        return workers_pb2.FailJobResponse()

    async def ReleaseJob(self, request: workers_pb2.ReleaseJobRequest, call: Call) -> workers_pb2.ReleaseJobResponse:
        await self._life.release(call.identity, wire.held(request))
        return workers_pb2.ReleaseJobResponse()

    async def _lease(self, call: Call, wanted: Wanted, wait_seconds: float) -> list[Lease]:
        """Asks until there is a job, the time is up or the server stops."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait_seconds, call.remaining_seconds() - ANSWER_SECONDS)
        await self._life.offer(call.identity, wanted.gpus)
        self._waiting += 1
        try:
            while True:
                leases = await self._life.claim(call.identity, wanted)
                left = until - loop.time()
                if leases or left <= 0 or call.draining.is_set():
                    return leases
                pause = max(ASK_SECONDS, self._waiting / ASKS_PER_SECOND) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
                await asyncio.sleep(min(left, pause))
        finally:
            self._waiting -= 1

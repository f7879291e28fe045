"""WorkerService: a few lines for each RPC."""

from __future__ import annotations

import asyncio
import random

import structlog
from google.protobuf.message import DecodeError
from pipeline.workers.v1 import workers_pb2

from jobs_service.artifacts.files import ArtifactFiles
from jobs_service.artifacts.service import LeasedFiles
from jobs_service.jobs.model import StatusReason
from jobs_service.queue import wire
from jobs_service.queue.lease import Failure, Lease, LeaseRef, LeaseRequest
from jobs_service.queue.returns import QuickReturns
from jobs_service.queue.store import QueueStore
from jobs_service.settings import JobsSettings
from rpc.boundary import Call
from rpc.identity.model import Identity

# How often the queue is read for a trainer that waits, and how often at most for all that wait.
POLL_SECONDS = 0.2
POLLS_PER_SECOND = 50
# Time to send an answer before the caller's deadline.
ANSWER_SECONDS = 0.5
UNREADABLE = "This job's configuration cannot be read. Create it again."

log = structlog.get_logger()


class WorkerService(LeasedFiles):
    """Leases jobs to trainers and takes their reports."""

    def __init__(self, queue: QueueStore, files: ArtifactFiles, settings: JobsSettings) -> None:
        super().__init__(files)
        self._queue = queue
        self._settings = settings
        self._returns = QuickReturns()
        self._waiting = 0

    async def LeaseJobs(self, request: workers_pb2.LeaseJobsRequest, call: Call) -> workers_pb2.LeaseJobsResponse:
        leases = await self._lease(call, wire.lease_request(request), request.wait_ms / 1000)
        readable = [await self._render(call.identity, lease) for lease in leases]
        return workers_pb2.LeaseJobsResponse(leases=[lease for lease in readable if lease is not None])

    async def ReportProgress(
        self, request: workers_pb2.ReportProgressRequest, call: Call
    ) -> workers_pb2.ReportProgressResponse:
        status = await self._queue.report(call.identity, wire.lease_ref(request), wire.report(request))
        return wire.lease_status(status)

    async def GetLease(self, request: workers_pb2.GetLeaseRequest, call: Call) -> workers_pb2.GetLeaseResponse:
        return wire.lease_state(await self._queue.get_lease(call.identity, wire.lease_ref(request)))

    async def CompleteJob(self, request: workers_pb2.CompleteJobRequest, call: Call) -> workers_pb2.CompleteJobResponse:
        await self._queue.complete(call.identity, wire.lease_ref(request), wire.completion(request))
        return workers_pb2.CompleteJobResponse()

    async def FailJob(self, request: workers_pb2.FailJobRequest, call: Call) -> workers_pb2.FailJobResponse:
        await self._queue.fail(call.identity, wire.lease_ref(request), wire.failure(request))
        return workers_pb2.FailJobResponse()

    async def ReleaseJob(self, request: workers_pb2.ReleaseJobRequest, call: Call) -> workers_pb2.ReleaseJobResponse:
        released = await self._queue.release(call.identity, wire.lease_ref(request))
        if released is not None:
            trainer, lease_seconds = released
            self._returns.add(call.identity.user_id, trainer, lease_seconds)
        return workers_pb2.ReleaseJobResponse()

    async def _render(self, trainer: Identity, lease: Lease) -> workers_pb2.Lease | None:
        """Returns the message of a lease; fails the job and returns None where its row is not what the contract allows."""
        try:
            message = wire.lease(lease, self._settings)
        except (ValueError, TypeError, AttributeError, DecodeError) as error:
            log.error("job_unreadable", job_id=str(lease.job_id), error=repr(error))
            failure = Failure(UNREADABLE, retryable=False, reason=StatusReason.NOT_SUPPORTED)
            await self._queue.fail(trainer, LeaseRef(lease.job_id, lease.lease_token), failure)
            return None
        await self.add_signed_urls(message)
        return message

    async def _lease(self, call: Call, request: LeaseRequest, wait_seconds: float) -> list[Lease]:
        """Polls the queue until there is a job, the time is up or the server stops.

        A trainer that returns jobs as fast as it leases them gets none for a while.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait_seconds, call.remaining_seconds() - ANSWER_SECONDS)
        await self._queue.offer(call.identity, request)
        self._waiting += 1
        try:
            while True:
                blocked_seconds = self._returns.pause_seconds(call.identity.user_id, request.trainer)
                leases = [] if blocked_seconds else await self._queue.claim(call.identity, request)
                left = until - loop.time()
                if leases or left <= 0 or call.draining.is_set():
                    return leases
                pause = max(POLL_SECONDS, self._waiting / POLLS_PER_SECOND) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
                await asyncio.sleep(min(left, pause))
        finally:
            self._waiting -= 1

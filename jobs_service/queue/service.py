"""WorkerService: a few lines for each RPC."""

from __future__ import annotations

import structlog
from google.protobuf.message import DecodeError
from pipeline.workers.v1 import workers_pb2 as pb

from jobs_service.artifacts.files import ArtifactFiles
from jobs_service.artifacts.service import LeasedFiles
from jobs_service.jobs.model import LeaseRef, StatusReason
from jobs_service.queue import wire
from jobs_service.queue.claims import Claims
from jobs_service.queue.model import Failure, Lease
from jobs_service.queue.store import QueueStore
from jobs_service.settings import JobsSettings
from rpc.boundary import Call
from rpc.identity.model import Identity

UNREADABLE = "This job's configuration cannot be read. Create it again."

log = structlog.get_logger()


class WorkerService(LeasedFiles):
    """Leases jobs to trainers and takes their reports."""

    def __init__(self, claims: Claims, queue: QueueStore, files: ArtifactFiles, settings: JobsSettings) -> None:
        super().__init__(files)
        self._claims = claims
        self._queue = queue
        self._settings = settings

    async def LeaseJobs(self, request: pb.LeaseJobsRequest, call: Call) -> pb.LeaseJobsResponse:
        leases = await self._claims.wait(call, wire.lease_request(request), request.wait_ms / 1000)
        readable = [await self._render(call.identity, lease) for lease in leases]
        return pb.LeaseJobsResponse(leases=[lease for lease in readable if lease is not None])

    async def ReportProgress(self, request: pb.ReportProgressRequest, call: Call) -> pb.ReportProgressResponse:
        status = await self._queue.report(call.identity, wire.lease_ref(request), wire.report(request))
        return wire.lease_status(status)

    async def GetLease(self, request: pb.GetLeaseRequest, call: Call) -> pb.GetLeaseResponse:
        return wire.lease_state(await self._queue.get_lease(call.identity, wire.lease_ref(request)))

    async def CompleteJob(self, request: pb.CompleteJobRequest, call: Call) -> pb.CompleteJobResponse:
        await self._queue.complete(call.identity, wire.lease_ref(request), wire.completion(request))
        return pb.CompleteJobResponse()

    async def FailJob(self, request: pb.FailJobRequest, call: Call) -> pb.FailJobResponse:
        await self._queue.fail(call.identity, wire.lease_ref(request), wire.failure(request))
        return pb.FailJobResponse()

    async def ReleaseJob(self, request: pb.ReleaseJobRequest, call: Call) -> pb.ReleaseJobResponse:
        released = await self._queue.release(call.identity, wire.lease_ref(request))
        if released is not None:
            trainer, lease_seconds = released
            self._claims.count_return(call.identity, trainer, lease_seconds)
        return pb.ReleaseJobResponse()

    async def _render(self, trainer: Identity, lease: Lease) -> pb.Lease | None:
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

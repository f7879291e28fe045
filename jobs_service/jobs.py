"""JobsService: a few lines for each RPC."""

from __future__ import annotations

from uuid import UUID

from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub
from pipeline.jobs.v1 import jobs_pb2

from jobs_service import wire
from jobs_service.store import Store
from rpc.boundary import Call


class JobsService:
    """Queues training jobs, at the Estimator's price, and shows them to their owner."""

    def __init__(self, store: Store, estimator: EstimatorServiceStub) -> None:
        self._store = store
        self._estimator = estimator

    async def CreateJob(self, request: jobs_pb2.CreateJobRequest, call: Call) -> jobs_pb2.CreateJobResponse:
        wanted, request_id = wire.configuration(request), wire.request_id(request)
        job = await self._store.find_request(call.identity, request_id, wanted) if request_id else None
        if job is None:
            question, timeout = wire.estimate_request(request), call.remaining_seconds()
            answer = await self._estimator.EstimateCost(question, metadata=call.forward(), timeout=timeout)
            job = await self._store.create_job(call.identity, wanted, wire.price(answer), request_id)
        return jobs_pb2.CreateJobResponse(job=wire.job(job))

    async def GetJob(self, request: jobs_pb2.GetJobRequest, call: Call) -> jobs_pb2.GetJobResponse:
        job = await self._store.get_job(call.identity, UUID(request.id))
        return jobs_pb2.GetJobResponse(job=wire.job(job))

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, call: Call) -> jobs_pb2.ListJobsResponse:
        found = await self._store.list_jobs(call.identity, **wire.page_of(request), status=wire.job_status(request))
        jobs = [wire.job(job) for job in found.items]
        return jobs_pb2.ListJobsResponse(jobs=jobs, pagination=wire.pagination(request, found))

"""JobsService: a few lines for each RPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub
from pipeline.jobs.v1 import jobs_pb2

from jobs_service.errors import InvalidTransition, JobFinal
from jobs_service.events.store import History
from jobs_service.events.watch import Snapshot, Told, Watches
from jobs_service.jobs import wire
from jobs_service.jobs.model import Configuration, Job, JobState
from jobs_service.jobs.store import Store
from jobs_service.queue import wire as wire_life
from jobs_service.queue.positions import Census, Waiting
from jobs_service.queue.store import Life
from jobs_service.wire import page_of, pagination
from rpc.boundary import Call

MAX_POINTS = 1000


class JobsService:
    """Queues training jobs, at the Estimator's price, and shows their owner what becomes of them."""

    def __init__(
        self,
        store: Store,
        estimator: EstimatorServiceStub,
        life: Life,
        history: History,
        census: Census,
        watches: Watches,
    ) -> None:
        self._store = store
        self._estimator = estimator
        self._life = life
        self._history = history
        self._census = census
        self._watches = watches

    async def CreateJob(self, request: jobs_pb2.CreateJobRequest, call: Call) -> jobs_pb2.CreateJobResponse:
        job = await self._create(call, wire.configuration(request), wire.request_id(request))
        return jobs_pb2.CreateJobResponse(job=await self._render(job))

    async def GetJob(self, request: jobs_pb2.GetJobRequest, call: Call) -> jobs_pb2.GetJobResponse:
        job = await self._store.get_job(call.identity, UUID(request.id))
        return jobs_pb2.GetJobResponse(job=await self._render(job))

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, call: Call) -> jobs_pb2.ListJobsResponse:
        found = await self._store.list_jobs(call.identity, **page_of(request), status=wire.job_status(request))
        jobs = await self._render_all(found.items)
        return jobs_pb2.ListJobsResponse(jobs=jobs, pagination=pagination(request, found))

    async def GetJobByRequestId(
        self, request: jobs_pb2.GetJobByRequestIdRequest, call: Call
    ) -> jobs_pb2.GetJobByRequestIdResponse:
        job = await self._store.get_job_by_request(call.identity, UUID(request.request_id))
        return jobs_pb2.GetJobByRequestIdResponse(job=await self._render(job))

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, call: Call) -> jobs_pb2.CancelJobResponse:
        await self._life.cancel(call.identity, UUID(request.id))
        job = await self._store.get_job(call.identity, UUID(request.id))
        if job.status != JobState.CANCELLED:
            raise JobFinal(status=job.status)
        return jobs_pb2.CancelJobResponse(job=await self._render(job))

    async def RetryJob(self, request: jobs_pb2.RetryJobRequest, call: Call) -> jobs_pb2.RetryJobResponse:
        failed = await self._store.get_job(call.identity, UUID(request.id))
        if failed.status != JobState.FAILED:
            raise InvalidTransition(
                f"Only a failed job can be retried; this one is {failed.status}.", status=failed.status
            )
        job = await self._create(call, failed.configuration(), wire.request_id(request))
        return jobs_pb2.RetryJobResponse(job=await self._render(job))

    async def ListJobEvents(self, request: jobs_pb2.ListJobEventsRequest, call: Call) -> jobs_pb2.ListJobEventsResponse:
        job = await self._store.get_job(call.identity, UUID(request.id))
        found = await self._history.list_events(call.identity, job.id, **page_of(request))
        events = [wire_life.event(event) for event in found.items]
        return jobs_pb2.ListJobEventsResponse(events=events, pagination=pagination(request, found))

    async def ListJobMetrics(
        self, request: jobs_pb2.ListJobMetricsRequest, call: Call
    ) -> jobs_pb2.ListJobMetricsResponse:
        job = await self._store.get_job(call.identity, UUID(request.id))
        most = request.max_points or MAX_POINTS
        points, total = await self._history.list_metrics(call.identity, job.id, max_points=most)
        return jobs_pb2.ListJobMetricsResponse(points=map(wire_life.metrics, points), total_points=total)

    def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, call: Call
    ) -> AsyncGenerator[jobs_pb2.WatchJobResponse, None]:
        return self._watch(jobs_pb2.WatchJobResponse, call, request.last_event_id, UUID(request.id))

    def WatchJobs(
        self, request: jobs_pb2.WatchJobsRequest, call: Call
    ) -> AsyncGenerator[jobs_pb2.WatchJobsResponse, None]:
        return self._watch(jobs_pb2.WatchJobsResponse, call, request.last_event_id, None)

    async def _watch(
        self, shape: Any, call: Call, last_event_id: str, job_id: UUID | None
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(self._watches.follow(call, last_event_id, job_id)) as messages:
            async for told in messages:
                waiting = await self._waiting(told)
                yield wire_life.told(shape, told, call.identity.user_id, waiting)

    async def _create(self, call: Call, wanted: Configuration, request_id: UUID | None) -> Job:
        job = await self._store.find_request(call.identity, request_id, wanted) if request_id else None
        if job is not None:
            return job
        question, timeout = wire.estimate_request(wanted), call.remaining_seconds()
        answer = await self._estimator.EstimateCost(question, metadata=call.forward(), timeout=timeout)
        price = wire.price(answer)
        wanted.accept(price)
        return await self._store.create_job(call.identity, wanted, price, request_id)

    async def _render(self, job: Job) -> jobs_pb2.Job:
        return (await self._render_all([job]))[0]

    async def _render_all(self, jobs: Sequence[Job]) -> list[jobs_pb2.Job]:
        waiting = await self._census.waiting(jobs)
        return [wire.job(job, waiting.get(job.id)) for job in jobs]

    async def _waiting(self, told: Told) -> dict[UUID, Waiting]:
        return await self._census.waiting(told.what.jobs) if isinstance(told.what, Snapshot) else {}

"""JobsService: a few lines for each RPC. Above the packages, since it shows jobs with their queue position and their events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

import structlog
from google.protobuf.message import DecodeError
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub
from pipeline.jobs.v1 import jobs_pb2 as pb

from jobs_service.artifacts.files import ArtifactFiles
from jobs_service.artifacts.service import OwnedFiles, RecordDownload
from jobs_service.artifacts.store import ArtifactStore
from jobs_service.errors import InvalidTransition, JobFinal
from jobs_service.events import wire as events_wire
from jobs_service.events.store import EventStore
from jobs_service.events.watch import Snapshot, Watches
from jobs_service.jobs import wire
from jobs_service.jobs.model import Configuration, Job, JobState
from jobs_service.jobs.store import JobStore
from jobs_service.queue import wire as queue_wire
from jobs_service.queue.model import QueuePosition
from jobs_service.queue.positions import QueuePositions
from jobs_service.queue.store import QueueStore
from jobs_service.wire import idempotency_key, page_of, pagination
from rpc.boundary import Call
from rpc.telemetry.metrics import Metrics

MAX_POINTS = 1000
# A list that reads all of the caller's jobs counts as this many more calls of its rate.
LIST_ALL_CALLS = 20
# Errors of rendering a row that the contract does not allow.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, DecodeError)

log = structlog.get_logger()


class JobsService(OwnedFiles):
    """Queues training jobs at the Estimator's price, and shows them and their events to their owners."""

    def __init__(
        self,
        jobs: JobStore,
        estimator: EstimatorServiceStub,
        queue: QueueStore,
        positions: QueuePositions,
        events: EventStore,
        watches: Watches,
        artifacts: ArtifactStore,
        files: ArtifactFiles,
        record_download: RecordDownload,
        metrics: Metrics,
    ) -> None:
        super().__init__(artifacts, files, record_download)
        self._jobs = jobs
        self._estimator = estimator
        self._queue = queue
        self._positions = positions
        self._events = events
        self._watches = watches
        self._unreadable = metrics.counter(
            "pipeline_unreadable_jobs_total", "Jobs whose stored row could not be shown in full."
        )

    async def CreateJob(self, request: pb.CreateJobRequest, call: Call) -> pb.CreateJobResponse:
        job = await self._create(call, wire.configuration(request), idempotency_key(request))
        return pb.CreateJobResponse(job=await self._render(job))

    async def _create(self, call: Call, configuration: Configuration, key: UUID | None) -> Job:
        job = await self._jobs.find_request(call.identity, key, configuration) if key else None
        if job is not None:
            return job
        request, timeout = wire.estimate_request(configuration), call.remaining_seconds()
        response = await self._estimator.EstimateCost(request, metadata=call.forward(), timeout=timeout)
        price = wire.price(response)
        configuration.check_memory(price)
        return await self._jobs.create(call.identity, configuration, price, key)

    async def _render(self, job: Job) -> pb.Job:
        return self._message(job, (await self._positions.of([job])).get(job.id))

    def _message(self, job: Job, position: QueuePosition | None) -> pb.Job:
        """Returns the message of a job, without its forecast where the stored estimate cannot be decoded."""
        number, reason = position and position.position, queue_wire.waiting_reason(job, position)
        try:
            return wire.job(job, number, reason)
        except DecodeError as error:
            self._count_unreadable(job, error)
            return wire.job(job._replace(estimate=None), number, reason)

    def _count_unreadable(self, job: Job, error: Exception) -> None:
        log.error("job_unreadable", job_id=str(job.id), error=repr(error))
        self._unreadable.inc()

    async def RetryJob(self, request: pb.RetryJobRequest, call: Call) -> pb.RetryJobResponse:
        failed = await self._jobs.get(call.identity, UUID(request.id))
        if failed.status != JobState.FAILED:
            raise InvalidTransition(
                f"Only a failed job can be retried; this one is {failed.status}.", status=failed.status
            )
        job = await self._create(call, wire.retry_configuration(request, failed), idempotency_key(request))
        return pb.RetryJobResponse(job=await self._render(job))

    async def GetJob(self, request: pb.GetJobRequest, call: Call) -> pb.GetJobResponse:
        job = await self._jobs.get(call.identity, UUID(request.id))
        return pb.GetJobResponse(job=await self._render(job))

    async def ListJobs(self, request: pb.ListJobsRequest, call: Call) -> pb.ListJobsResponse:
        query = wire.job_filter(request)
        if query.reads_all:
            call.consume_rate(LIST_ALL_CALLS)
        page = await self._jobs.list(call.identity, query, **page_of(request))
        jobs = await self._render_all(page.items)
        return pb.ListJobsResponse(jobs=jobs, pagination=pagination(request, page), status_counts=page.status_counts)

    async def _render_all(self, jobs: Sequence[Job]) -> list[pb.Job]:
        """Returns the messages of jobs, without those whose rows cannot be read: one bad row hides no other job."""
        positions = await self._positions.of(jobs)
        messages = []
        for job in jobs:
            try:
                messages.append(self._message(job, positions.get(job.id)))
            except UNREADABLE as error:
                self._count_unreadable(job, error)
        return messages

    async def GetJobByRequestId(self, request: pb.GetJobByRequestIdRequest, call: Call) -> pb.GetJobByRequestIdResponse:
        job = await self._jobs.get_by_request(call.identity, UUID(request.request_id))
        return pb.GetJobByRequestIdResponse(job=await self._render(job))

    async def CancelJob(self, request: pb.CancelJobRequest, call: Call) -> pb.CancelJobResponse:
        await self._queue.cancel(call.identity, UUID(request.id))
        job = await self._jobs.get(call.identity, UUID(request.id))
        if job.status != JobState.CANCELLED:
            raise JobFinal(status=job.status)
        return pb.CancelJobResponse(job=await self._render(job))

    async def UpdateJob(self, request: pb.UpdateJobRequest, call: Call) -> pb.UpdateJobResponse:
        job = await self._jobs.update(
            call.identity, UUID(request.id), name=request.name or None, labels=list(request.labels)
        )
        return pb.UpdateJobResponse(job=await self._render(job))

    async def DeleteJob(self, request: pb.DeleteJobRequest, call: Call) -> pb.DeleteJobResponse:
        await self._jobs.delete(call.identity, UUID(request.id))
        return pb.DeleteJobResponse()

    async def ListJobEvents(self, request: pb.ListJobEventsRequest, call: Call) -> pb.ListJobEventsResponse:
        job = await self._jobs.get(call.identity, UUID(request.id))
        page = await self._events.list_events(call.identity, job.id, **page_of(request))
        events = [events_wire.event(event) for event in page.items]
        return pb.ListJobEventsResponse(events=events, pagination=pagination(request, page))

    async def ListJobMetrics(self, request: pb.ListJobMetricsRequest, call: Call) -> pb.ListJobMetricsResponse:
        job = await self._jobs.get(call.identity, UUID(request.id))
        max_points = request.max_points or MAX_POINTS
        points, total = await self._events.list_metrics(call.identity, job.id, max_points=max_points)
        return pb.ListJobMetricsResponse(points=map(events_wire.metrics, points), total_points=total)

    async def GetCapacity(self, request: pb.GetCapacityRequest, call: Call) -> pb.GetCapacityResponse:
        capacity = await self._positions.capacity()
        return pb.GetCapacityResponse(gpu_types=map(queue_wire.capacity, capacity))

    def WatchJob(self, request: pb.WatchJobRequest, call: Call) -> AsyncGenerator[pb.WatchJobResponse, None]:
        return self._watch(pb.WatchJobResponse, call, request.last_event_id, UUID(request.id))

    def WatchJobs(self, request: pb.WatchJobsRequest, call: Call) -> AsyncGenerator[pb.WatchJobsResponse, None]:
        return self._watch(pb.WatchJobsResponse, call, request.last_event_id, None)

    async def _watch(
        self, response: Any, call: Call, last_event_id: str, job_id: UUID | None
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(self._watches.follow(call, last_event_id, job_id)) as messages:
            async for message in messages:
                jobs = await self._render_all(message.content.jobs) if isinstance(message.content, Snapshot) else []
                yield events_wire.watch_message(response, message, call.identity.user_id, jobs)

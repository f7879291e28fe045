"""Contract messages ↔ models, for what happens to a job: leases and reports, events, metrics and watches."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Protocol, TypeVar
from uuid import UUID

from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.events.model import JobEvent, MetricPoint
from jobs_service.events.watch import End, Ping, Snapshot, Told
from jobs_service.jobs.model import cost_limit_share
from jobs_service.jobs.wire import ACTIONS, REASONS, STATUSES, job, training
from jobs_service.queue.lease import Completion, Failure, Held, Lease, Report, Standing, Wanted
from jobs_service.queue.positions import Waiting
from jobs_service.settings import JobsSettings
from jobs_service.wire import cents, cents_or_none, time


class OnLease(Protocol):
    """A request of a trainer about a job it has."""

    job_id: str
    lease_token: str


def wanted(request: workers_pb2.LeaseJobsRequest) -> Wanted:
    """What a trainer asks for."""
    return Wanted(request.max_jobs, {offer.type: offer.count for offer in request.gpus}, request.trainer)


def held(request: OnLease) -> Held:
    """The lease that a request is about."""
    return Held(UUID(request.job_id), UUID(request.lease_token))


def report(request: workers_pb2.ReportProgressRequest) -> Report:
    """Where the job is."""
    return Report(
        stage=request.stage,
        epoch=request.epoch,
        step=request.step,
        metrics=[_point(point) for point in request.metrics],
        log_lines=list(request.log_lines),
        external_job_id=request.external_job_id,
    )


def completion(request: workers_pb2.CompleteJobRequest) -> Completion:
    """The result."""
    return Completion(
        artifact_uri=request.artifact_uri,
        artifact_id=UUID(request.artifact_id) if request.artifact_id else None,
        final_metrics=_point(request.final_metrics) if request.HasField("final_metrics") else None,
        peak_memory_gib=request.peak_memory_gib if request.HasField("peak_memory_gib") else None,
    )


def failure(request: workers_pb2.FailJobRequest) -> Failure:
    """The result of an attempt."""
    return Failure(request.error_message, request.retryable)


def standing(model: Standing) -> workers_pb2.ReportProgressResponse:
    """The answer to a report."""
    return workers_pb2.ReportProgressResponse(
        stop=model.stop is not None,
        stop_reason=workers_pb2.StopReason.Value(f"STOP_REASON_{(model.stop or 'unspecified').upper()}"),
        expires_at=time(model.expires_at),
        seconds_left=model.seconds_left,
    )


def lease(model: Lease, settings: JobsSettings) -> workers_pb2.Lease:
    """A job as a trainer gets it."""
    return workers_pb2.Lease(
        job_id=str(model.job_id),
        lease_token=str(model.lease_token),
        lease_epoch=model.lease_epoch,
        expires_at=time(model.expires_at),
        lease_ms=settings.lease_ms,
        renew_every_ms=settings.renew_ms,
        attempt=model.attempt,
        max_attempts=model.max_attempts,
        hyperparameters=estimator_pb2.Hyperparameters(**model.hyperparameters),
        gpu_config=estimator_pb2.GpuConfig(**model.gpu_config),
        total_epochs=model.total_epochs,
        total_steps=model.total_steps,
        dataset=workers_pb2.LeaseDataset(
            id=str(model.dataset_id),
            name=model.dataset_name,
            format=model.dataset_format,
            total_training_pairs=model.dataset_pairs,
            total_tokens=model.dataset_tokens,
            storage_bucket=model.storage_bucket,
            storage_path=model.storage_path,
        ),
        seconds_left=model.seconds_left,
        base_model=model.base_model,
        training=training(model.training),
    )


def event(model: JobEvent) -> jobs_pb2.JobEvent:
    """An event as its owner sees it."""
    data = model.data
    limit, reason = data.get("max_cost_usd"), data.get("status_reason")
    cost = Decimal(str(data.get("current_cost", 0)))
    final = data.get("final_cost")
    return jobs_pb2.JobEvent(
        id=model.cursor.render(model.user_id),
        job_id=str(model.job_id),
        revision=model.revision,
        type=jobs_pb2.JobEventType.Value(f"JOB_EVENT_TYPE_{model.type.upper()}"),
        status=STATUSES[model.status],
        current_stage=data.get("current_stage", ""),
        progress=data.get("progress", 0),
        current_epoch=data.get("current_epoch", 0),
        current_step=data.get("current_step", 0),
        current_metrics=data.get("current_metrics", {}),
        current_cost=cents(cost),
        final_cost=cents_or_none(None if final is None else Decimal(str(final))),
        attempt=data.get("attempt", 1),
        error_message=data.get("error_message"),
        status_reason=REASONS[reason] if reason else None,
        is_final=model.is_final,
        allowed_actions=ACTIONS[model.status],
        cost_limit_share=cost_limit_share(cost, None if limit is None else Decimal(str(limit))),
        seconds_left=data.get("seconds_left"),
        log_lines=data.get("log_lines", []),
        created_at=time(model.created_at),
    )


def metrics(model: MetricPoint) -> jobs_pb2.JobMetrics:
    """What was measured at one step."""
    return jobs_pb2.JobMetrics(
        step=model.step, epoch=model.epoch, values=model.values, created_at=time(model.created_at)
    )


Response = TypeVar("Response", jobs_pb2.WatchJobResponse, jobs_pb2.WatchJobsResponse)


def told(response: type[Response], model: Told, user_id: str, waiting: dict[UUID, Waiting]) -> Response:
    """One message of a watch."""
    update: dict[str, Any]
    match model.what:
        case JobEvent():
            update = {"event": event(model.what)}
        case Snapshot(jobs, reset):
            rendered = [job(each, waiting.get(each.id)) for each in jobs]
            update = {"reset" if reset else "snapshot": {"jobs": rendered}}
        case Ping():
            update = {"ping": jobs_pb2.WatchPing()}
        case End(reason):
            code = jobs_pb2.WatchEndReason.Value(f"WATCH_END_REASON_{reason.upper()}")
            update = {"end": jobs_pb2.WatchEnd(reason=code)}
    return response(id=model.cursor.render(user_id), **update)


def _point(point: workers_pb2.MetricPoint) -> MetricPoint:
    return MetricPoint(point.step, point.epoch, dict(point.values))

"""Messages of WorkerService ↔ models of leases and reports."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol
from uuid import UUID

from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.artifacts.model import ArtifactFile
from jobs_service.events.model import MetricPoint
from jobs_service.jobs.model import Job, LeaseRef, StatusReason
from jobs_service.jobs.wire import training
from jobs_service.queue.model import (
    Checkpoint,
    Completion,
    Failure,
    GpuCapacity,
    Lease,
    LeaseRequest,
    LeaseStatus,
    Outcome,
    QueuePosition,
    Report,
    WaitingCode,
)
from jobs_service.settings import JobsSettings
from jobs_service.wire import cents, time

FAILURE_REASONS = {
    workers_pb2.FAILURE_REASON_OUT_OF_MEMORY: StatusReason.OUT_OF_MEMORY,
    workers_pb2.FAILURE_REASON_NOT_SUPPORTED: StatusReason.NOT_SUPPORTED,
}
WAITING_CODES = {code: jobs_pb2.WaitingCode.Value(f"WAITING_CODE_{code.upper()}") for code in WaitingCode}


class HasLease(Protocol):
    """A request that names a lease."""

    job_id: str
    lease_token: str


def lease_request(request: workers_pb2.LeaseJobsRequest) -> LeaseRequest:
    """Returns a trainer's offer and request."""
    gpus = {offer.type: offer.count for offer in request.gpus}
    return LeaseRequest(request.max_jobs, gpus, request.trainer, request.simulated, request.deferred)


def lease_ref(request: HasLease) -> LeaseRef:
    """Returns the lease that a request names."""
    return LeaseRef(UUID(request.job_id), UUID(request.lease_token))


def report(request: workers_pb2.ReportProgressRequest) -> Report:
    """Returns a report of progress."""
    return Report(
        stage=request.stage,
        epoch=request.epoch,
        step=request.step,
        metrics=[_point(point) for point in request.metrics],
        log_lines=list(request.log_lines),
        external_job_id=request.external_job_id,
        checkpoint=Checkpoint(request.checkpoint.uri, request.checkpoint.step)
        if request.HasField("checkpoint")
        else None,
        waiting_reason=request.waiting_reason,
    )


def completion(request: workers_pb2.CompleteJobRequest) -> Completion:
    """Returns the result of a completed job."""
    return Completion(
        artifact_uri=request.artifact_uri,
        artifact_id=UUID(request.artifact_id) if request.artifact_id else None,
        final_metrics=_point(request.final_metrics) if request.HasField("final_metrics") else None,
        files=[ArtifactFile(file.name, file.size, file.sha256) for file in request.files],
        result_step=request.result_step or None,
        measurements=_measurements(request),
    )


def failure(request: workers_pb2.FailJobRequest) -> Failure:
    """Returns the error of a failed attempt."""
    reason = FAILURE_REASONS.get(request.reason, StatusReason.TRAINER_ERROR)
    # Out of memory and unsupported configurations fail again: such a job is not retried, whatever the trainer says.
    retryable = request.retryable and reason is StatusReason.TRAINER_ERROR
    return Failure(request.error_message, retryable, reason, _measurements(request))


def lease_status(model: LeaseStatus) -> workers_pb2.ReportProgressResponse:
    """Returns the response to a report."""
    return workers_pb2.ReportProgressResponse(
        stop=model.stop is not None,
        stop_reason=_stop_reason(model.stop),
        expires_at=time(model.expires_at),
        seconds_left=model.seconds_to_limit,
        current_cost=cents(model.current_cost),
    )


def lease_state(model: LeaseStatus) -> workers_pb2.GetLeaseResponse:
    """Returns the state of a lease."""
    return workers_pb2.GetLeaseResponse(
        stop=model.stop is not None,
        stop_reason=_stop_reason(model.stop),
        expires_at=time(model.expires_at),
        waiting=model.waiting,
    )


def lease(model: Lease, settings: JobsSettings) -> workers_pb2.Lease:
    """Returns a leased job as its trainer gets it."""
    estimate = estimator_pb2.EstimateCostResponse.FromString(model.estimate or b"")
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
            file_size=model.dataset_size,
        ),
        seconds_left=model.seconds_to_limit,
        base_model=model.base_model,
        training=training(model.training),
        plan=estimate.plan,
        estimated_seconds=estimate.estimated_duration_hours * 3600,
        estimated_tokens_per_second=estimate.training_details.estimated_throughput_tokens_per_sec,
        checkpoint=workers_pb2.Checkpoint(uri=model.checkpoint_uri, step=model.checkpoint_step or 0)
        if model.checkpoint_uri
        else None,
        validation_dataset=workers_pb2.LeaseDataset(**model.validation_dataset) if model.validation_dataset else None,
    )


def waiting_reason(model: Job, position: QueuePosition | None) -> jobs_pb2.WaitingReason | None:
    """Returns why a job waits: in the queue, or for its trainer's scheduler; None if it does not wait."""
    if position is not None:
        return jobs_pb2.WaitingReason(
            code=WAITING_CODES[position.code],
            message=position.message,
            gpus_needed=position.gpus_needed,
            gpus_offered=position.gpus_offered,
        )
    if model.waiting_message is not None:
        return jobs_pb2.WaitingReason(
            code=jobs_pb2.WAITING_CODE_SCHEDULER,
            message=model.waiting_message,
            gpus_needed=model.gpu_config["count"],
        )
    return None


def capacity(model: GpuCapacity) -> jobs_pb2.GpuCapacity:
    """Returns the capacity of a GPU type."""
    return jobs_pb2.GpuCapacity(**asdict(model))


def _stop_reason(outcome: Outcome | None) -> workers_pb2.StopReason.ValueType:
    return workers_pb2.StopReason.Value(f"STOP_REASON_{(outcome or 'unspecified').upper()}")


def _point(point: workers_pb2.MetricPoint) -> MetricPoint:
    return MetricPoint(point.step, point.epoch, dict(point.values))


def _measurements(request: workers_pb2.CompleteJobRequest | workers_pb2.FailJobRequest) -> dict[str, Any]:
    """Returns the measurements of a request as fields of their message."""
    if not request.HasField("measurements"):
        return {}
    fields = {field.name: value for field, value in request.measurements.ListFields()}
    if "stack" in fields:
        fields["stack"] = {field.name: value for field, value in fields["stack"].ListFields()}
    return fields

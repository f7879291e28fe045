"""Messages of JobsService ↔ models of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2

from jobs_service.jobs.model import (
    DEFAULT_PRIORITY,
    FINAL,
    Configuration,
    Forecast,
    Job,
    JobFilter,
    JobSort,
    JobState,
    MemoryShortfall,
    Price,
    StatusReason,
    allowed_actions,
    cost_limit_share,
)
from jobs_service.wire import cents, cents_or_none, enum_word, optional_enum_word, time

PRESETS = {enum_word(name, "PRESET_ID_"): number for name, number in estimator_pb2.PresetId.items()}
STATUSES = {state: jobs_pb2.JobStatus.Value(f"JOB_STATUS_{state.upper()}") for state in JobState}
REASONS = {reason: jobs_pb2.StatusReason.Value(f"STATUS_REASON_{reason.upper()}") for reason in StatusReason}
RETRY = jobs_pb2.JOB_ACTION_RETRY
ACTIONS = {
    state: [jobs_pb2.JobAction.Value(f"JOB_ACTION_{action.upper()}") for action in allowed_actions(state)]
    for state in JobState
}


def configuration(request: jobs_pb2.CreateJobRequest) -> Configuration:
    """Returns the job that a request asks for."""
    return Configuration(
        dataset_id=UUID(request.dataset_id),
        preset_id=enum_word(estimator_pb2.PresetId.Name(request.preset_id), "PRESET_ID_"),
        hyperparameters=_set_fields(request.hyperparameters),
        gpu_config=_set_fields(request.gpu_config),
        client_estimated_cost=Decimal(str(request.estimated_cost)) if request.HasField("estimated_cost") else None,
        **limits(request),
        priority=request.priority if request.HasField("priority") else DEFAULT_PRIORITY,
        base_model=request.base_model or None,
        training=_set_fields(request.training) if request.HasField("training") else None,
        provider=request.provider or None,
        quote_id=UUID(request.quote_id) if request.quote_id else None,
        allow_oom_risk=request.allow_oom_risk,
        name=request.name or None,
        labels=tuple(request.labels),
    )


def limits(request: jobs_pb2.CreateJobRequest | jobs_pb2.RetryJobRequest) -> dict[str, Any]:
    """Returns the limits of a request by the names of a configuration's fields; None where it has none."""
    return {
        "max_cost_usd": Decimal(str(request.max_cost_usd)) if request.HasField("max_cost_usd") else None,
        "max_duration_seconds": request.max_duration_seconds if request.HasField("max_duration_seconds") else None,
    }


def retry_configuration(request: jobs_pb2.RetryJobRequest, failed: Job) -> Configuration:
    """Returns the configuration of a failed job with the limits of the request."""
    changes = {
        name: limit for name, limit in limits(request).items() if limit is not None or request.without_old_limits
    }
    return replace(failed.configuration(), **changes)


def estimate_request(configuration: Configuration) -> estimator_pb2.EstimateCostRequest:
    """Returns the request for the price of a job."""
    return estimator_pb2.EstimateCostRequest(
        dataset_id=str(configuration.dataset_id),
        gpu_config=estimator_pb2.GpuConfig(**configuration.gpu_config),
        hyperparameters=estimator_pb2.Hyperparameters(**configuration.hyperparameters),
        base_model=configuration.base_model,
        training=training(configuration.training),
        provider=configuration.provider,
        quote_id=str(configuration.quote_id) if configuration.quote_id else None,
    )


def training(options: Mapping[str, Any] | None) -> estimator_pb2.TrainingOptions | None:
    """Returns how a base model is trained; None if the request did not say."""
    return estimator_pb2.TrainingOptions(**options) if options else None


def price(response: estimator_pb2.EstimateCostResponse) -> Price:
    """Returns the Estimator's price. Its doubles are rounded to cents, so their shortest decimal is the exact amount."""
    return Price(
        estimated_total_cost=Decimal(str(response.estimated_cost)),
        hourly_rate=Decimal(str(response.hourly_rate)),
        storage_usd=Decimal(str(response.cost_breakdown.storage)),
        total_steps=response.training_details.total_steps,
        estimate=response.SerializeToString(),
        # The reference estimate has a model in its plan, too.
        base_model=response.plan.base_model if response.HasField("forecast") else None,
        forecast=_forecast(response.forecast) if response.HasField("forecast") else None,
        memory_shortfall=_memory_shortfall(response),
    )


def _forecast(forecast: estimator_pb2.Forecast) -> Forecast:
    return Forecast(
        model_family=forecast.model_family,
        stack=enum_word(estimator_pb2.SoftwareStack.Name(forecast.stack), "SOFTWARE_STACK_"),
        forecast_p10_seconds=forecast.seconds.p10,
        forecast_seconds=forecast.seconds.p50,
        forecast_p90_seconds=forecast.seconds.p90,
        forecast_overhead_seconds=forecast.overhead_seconds,
        forecast_correction=forecast.correction,
        forecast_slopes=list(forecast.slopes),
        forecast_model=forecast.model_version,
        forecast_tokens=forecast.training_tokens,
    )


def _memory_shortfall(response: estimator_pb2.EstimateCostResponse) -> MemoryShortfall | None:
    memory = response.memory
    if memory.verdict != estimator_pb2.MEMORY_VERDICT_DOES_NOT_FIT:
        return None
    return MemoryShortfall(memory.total_gib, memory.usable_gib, response.repairs[0].title if response.repairs else "")


def job(model: Job, queue_position: int | None, waiting_reason: jobs_pb2.WaitingReason | None) -> jobs_pb2.Job:
    """Returns a job as clients see it."""
    return jobs_pb2.Job(
        id=str(model.id),
        user_id=str(model.user_id),
        dataset_id=str(model.dataset_id),
        dataset_deleted=model.dataset_deleted,
        name=model.name,
        labels=model.labels,
        preset_id=PRESETS[model.preset_id],
        status=STATUSES[model.status],
        current_stage=model.current_stage,
        progress=model.progress,
        current_epoch=model.current_epoch,
        total_epochs=model.total_epochs,
        current_step=model.current_step,
        total_steps=model.total_steps,
        queued_at=time(model.queued_at),
        started_at=time(model.started_at),
        completed_at=time(model.completed_at),
        estimated_total_cost=cents(model.estimated_total_cost),
        client_estimated_cost=cents_or_none(model.client_estimated_cost),
        estimate_differs=model.estimate_differs,
        current_cost=cents(model.current_cost),
        final_cost=cents_or_none(model.final_cost),
        error_message=model.error_message,
        retry_count=model.retry_count,
        external_job_id=model.external_job_id,
        artifact_id=str(model.artifact_id) if model.artifact_id else None,
        created_at=time(model.created_at),
        updated_at=time(model.updated_at),
        is_final=model.status in FINAL,
        allowed_actions=[each for each in ACTIONS[model.status] if each != RETRY or not model.dataset_deleted],
        queue_position=queue_position,
        waiting_reason=waiting_reason,
        max_cost_usd=float(model.max_cost_usd) if model.max_cost_usd is not None else None,
        max_duration_seconds=model.max_duration_seconds,
        priority=model.priority,
        attempt=model.attempt,
        max_attempts=model.max_attempts,
        cost_limit_share=cost_limit_share(model.current_cost, model.max_cost_usd),
        status_reason=REASONS[model.status_reason] if model.status_reason else None,
        revision=model.revision,
        retried_from=str(model.retried_from) if model.retried_from else None,
        seconds_left=model.seconds_left,
        billed_seconds=model.billed_seconds,
        artifact_uri=model.artifact_uri,
        trainer=model.trainer,
        simulated=model.simulated,
        artifact_size=model.artifact_size,
        result_step=model.result_step,
        base_model=model.base_model,
        provider=model.provider,
        allow_oom_risk=model.allow_oom_risk,
        reforecast=reforecast(model.reforecast),
        **_nested(model),
        **_estimate_fields(model.estimate or b""),
    )


def _nested(model: Job) -> Mapping[str, Any]:
    # Mappings, from which the constructor makes messages: messages would be copied.
    return {
        "dataset": {
            "name": model.dataset_name,
            "format": model.dataset_format,
            "total_training_pairs": model.dataset_pairs,
        },
        "hyperparameters": model.hyperparameters,
        "gpu_config": model.gpu_config,
        "current_metrics": model.current_metrics,
        "measurements": model.measurements or None,
        "training": model.training or None,
    }


@lru_cache(maxsize=256)
def _estimate_fields(estimate: bytes) -> Mapping[str, Any]:
    # Cached: many jobs share one estimate.
    response = estimator_pb2.EstimateCostResponse.FromString(estimate)
    return {
        "forecast": response.forecast if response.HasField("forecast") else None,
        "memory": response.memory if response.HasField("memory") else None,
        "quote": response.quote if response.HasField("quote") else None,
        "price": response.price if response.HasField("price") else None,
        "plan": response.plan if response.HasField("plan") else None,
    }


def reforecast(document: Mapping[str, Any]) -> jobs_pb2.Reforecast | None:
    """Returns the forecast of a running job from its own speed; None if there is none yet."""
    if not document:
        return None
    return jobs_pb2.Reforecast(
        hours=estimator_pb2.Range(**document["hours"]),
        cost=estimator_pb2.Range(**document["cost"]),
        seconds=estimator_pb2.Range(**document["seconds"]),
        step=document["step"],
        measured_steps=document["measured_steps"],
        created_at=time(datetime.fromisoformat(document["created_at"])),
        note=document["note"],
        exceeds_p90=document["exceeds_p90"],
        limit=REASONS[document["limit"]] if document.get("limit") else None,
    )


def job_filter(request: jobs_pb2.ListJobsRequest) -> JobFilter:
    """Returns which jobs a request asks for."""
    status = optional_enum_word(request, "status", jobs_pb2.JobStatus, "JOB_STATUS_")
    sort = optional_enum_word(request, "sort", jobs_pb2.JobSort, "JOB_SORT_")
    return JobFilter(
        status=JobState(status) if status else None,
        labels=list(request.labels),
        base_model=request.base_model or None,
        search=request.search,
        sort=JobSort(sort) if sort else JobSort.CREATED,
        is_ascending=request.ascending,
    )


def _set_fields(message: Message) -> dict[str, Any]:
    """Returns the fields that are set, enums by name, as the message's constructor takes them."""
    return {field.name: _plain(field, value) for field, value in message.ListFields()}


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.is_repeated:
        return list(value)
    return field.enum_type.values_by_number[value].name if field.enum_type else value

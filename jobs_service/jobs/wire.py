"""Contract messages ↔ the service's own models, both ways and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pipeline.common.v1 import pagination_pb2
from pipeline.datasets.v1 import datasets_pb2
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2

from jobs_service.database.rows import Page
from jobs_service.datasets.model import Dataset
from jobs_service.jobs.model import (
    DEFAULT_PRIORITY,
    FINAL,
    Configuration,
    Forecast,
    Job,
    JobState,
    Misfit,
    Price,
    StatusReason,
    allowed_actions,
    cost_limit_share,
)
from jobs_service.notifications.model import Notification
from jobs_service.queue.positions import Waiting, WaitingCode

CENT = Decimal("0.01")
DEFAULT_LIMIT = 10
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_SECONDS = 86_400
PRESETS = {name.removeprefix("PRESET_ID_").lower(): number for name, number in estimator_pb2.PresetId.items()}
STATUSES = {state: jobs_pb2.JobStatus.Value(f"JOB_STATUS_{state.upper()}") for state in JobState}
REASONS = {reason: jobs_pb2.StatusReason.Value(f"STATUS_REASON_{reason.upper()}") for reason in StatusReason}
ACTIONS = {
    state: [jobs_pb2.JobAction.Value(f"JOB_ACTION_{action.upper()}") for action in allowed_actions(state)]
    for state in JobState
}
WAITING_CODES = {code: jobs_pb2.WaitingCode.Value(f"WAITING_CODE_{code.upper()}") for code in WaitingCode}


class ListRequest(Protocol):
    """A request for a page."""

    page: int
    limit: int


def configuration(request: jobs_pb2.CreateJobRequest) -> Configuration:
    """What the request asks for."""
    return Configuration(
        dataset_id=UUID(request.dataset_id),
        preset_id=_word(estimator_pb2.PresetId.Name(request.preset_id), "PRESET_ID_"),
        hyperparameters=_set_fields(request.hyperparameters),
        gpu_config=_set_fields(request.gpu_config),
        client_estimated_cost=Decimal(str(request.estimated_cost)) if request.HasField("estimated_cost") else None,
        max_cost_usd=Decimal(str(request.max_cost_usd)) if request.HasField("max_cost_usd") else None,
        max_duration_seconds=request.max_duration_seconds if request.HasField("max_duration_seconds") else None,
        priority=request.priority if request.HasField("priority") else DEFAULT_PRIORITY,
        base_model=request.base_model or None,
        training=_set_fields(request.training) if request.HasField("training") else None,
        provider=request.provider or None,
        quote=UUID(request.quote_id) if request.quote_id else None,
        allow_oom_risk=request.allow_oom_risk,
    )


def request_id(request: jobs_pb2.CreateJobRequest | jobs_pb2.RetryJobRequest) -> UUID | None:
    """The idempotency key; None: not idempotent."""
    return UUID(request.request_id) if request.request_id else None


def estimate_request(wanted: Configuration) -> estimator_pb2.EstimateCostRequest:
    """The question to the Estimator."""
    return estimator_pb2.EstimateCostRequest(
        dataset_id=str(wanted.dataset_id),
        gpu_config=estimator_pb2.GpuConfig(**wanted.gpu_config),
        hyperparameters=estimator_pb2.Hyperparameters(**wanted.hyperparameters),
        base_model=wanted.base_model,
        training=training(wanted.training),
        provider=wanted.provider,
        quote_id=str(wanted.quote) if wanted.quote else None,
    )


def training(options: Mapping[str, Any] | None) -> estimator_pb2.TrainingOptions | None:
    """How a base model is trained, as it was given; None: nothing was."""
    return estimator_pb2.TrainingOptions(**options) if options else None


def price(answer: estimator_pb2.EstimateCostResponse) -> Price:
    """The Estimator's answer. Its doubles are rounded to cents, so their shortest decimal is the amount meant."""
    return Price(
        estimated_total_cost=Decimal(str(answer.estimated_cost)),
        hourly_rate=Decimal(str(answer.hourly_rate)),
        total_steps=answer.training_details.total_steps,
        answer=answer.SerializeToString(),
        forecast=_forecast(answer.forecast) if answer.HasField("forecast") else None,
        misfit=_misfit(answer),
    )


def _forecast(forecast: estimator_pb2.Forecast) -> Forecast:
    return Forecast(
        model_family=forecast.model_family,
        stack=_word(estimator_pb2.SoftwareStack.Name(forecast.stack), "SOFTWARE_STACK_"),
        p10_seconds=forecast.seconds.p10,
        seconds=forecast.seconds.p50,
        p90_seconds=forecast.seconds.p90,
        overhead_seconds=forecast.overhead_seconds,
        correction=forecast.correction,
        slopes=list(forecast.slopes),
        model_version=forecast.model_version,
    )


def _misfit(answer: estimator_pb2.EstimateCostResponse) -> Misfit | None:
    memory = answer.memory
    if memory.verdict != estimator_pb2.MEMORY_VERDICT_DOES_NOT_FIT:
        return None
    return Misfit(memory.total_gib, memory.usable_gib, answer.repairs[0].title if answer.repairs else "")


def job(model: Job, waiting: Waiting | None) -> dict[str, Any]:
    """A job as clients see it: the fields of a Job."""
    return {
        "id": str(model.id),
        "user_id": str(model.user_id),
        "dataset_id": str(model.dataset_id),
        "dataset": {
            "name": model.dataset_name,
            "format": model.dataset_format,
            "total_training_pairs": model.dataset_pairs,
        },
        "preset_id": PRESETS[model.preset_id],
        "hyperparameters": model.hyperparameters,
        "gpu_config": model.gpu_config,
        "status": STATUSES[model.status],
        "current_stage": model.current_stage,
        "progress": model.progress,
        "current_epoch": model.current_epoch,
        "total_epochs": model.total_epochs,
        "current_step": model.current_step,
        "total_steps": model.total_steps,
        "current_metrics": model.current_metrics,
        "queued_at": time(model.queued_at),
        "started_at": time(model.started_at),
        "completed_at": time(model.completed_at),
        "estimated_total_cost": cents(model.estimated_total_cost),
        "client_estimated_cost": cents_or_none(model.client_estimated_cost),
        "estimate_differs": model.estimate_differs,
        "current_cost": cents(model.current_cost),
        "final_cost": cents_or_none(model.final_cost),
        "error_message": model.error_message,
        "retry_count": model.retry_count,
        "external_job_id": model.external_job_id,
        "artifact_id": str(model.artifact_id) if model.artifact_id else None,
        "created_at": time(model.created_at),
        "updated_at": time(model.updated_at),
        "is_final": model.status in FINAL,
        "allowed_actions": ACTIONS[model.status],
        "queue_position": waiting.position if waiting else None,
        "waiting_reason": waiting_reason(waiting) if waiting else None,
        "max_cost_usd": float(model.max_cost_usd) if model.max_cost_usd is not None else None,
        "max_duration_seconds": model.max_duration_seconds,
        "priority": model.priority,
        "attempt": model.attempt,
        "max_attempts": model.max_attempts,
        "cost_limit_share": cost_limit_share(model.current_cost, model.max_cost_usd),
        "status_reason": REASONS[model.status_reason] if model.status_reason else None,
        "revision": model.revision,
        "retried_from": str(model.retried_from) if model.retried_from else None,
        "seconds_left": model.seconds_left,
        "billed_seconds": model.billed_seconds,
        "artifact_uri": model.artifact_uri,
        "trainer": model.trainer,
        "base_model": model.base_model,
        "training": training(model.training),
        "provider": model.provider,
        "allow_oom_risk": model.allow_oom_risk,
        **_kept(model.estimate or b""),
    }


@lru_cache(maxsize=256)
def _kept(answer: bytes) -> Mapping[str, Any]:
    """What a job shows of the Estimator's answer, which many jobs share."""
    told = estimator_pb2.EstimateCostResponse.FromString(answer)
    return {
        name: getattr(told, name) if told.HasField(name) else None for name in ("forecast", "memory", "quote", "price")
    }


def waiting_reason(model: Waiting) -> Mapping[str, Any]:
    """Why a job waits: the fields of a WaitingReason."""
    return {
        "code": WAITING_CODES[model.code],
        "message": model.message,
        "gpus_needed": model.gpus_needed,
        "gpus_offered": model.gpus_offered,
    }


def dataset(model: Dataset) -> datasets_pb2.Dataset:
    """A dataset as clients see it."""
    return datasets_pb2.Dataset(
        id=str(model.id),
        user_id=str(model.user_id),
        name=model.name,
        description=model.description,
        format=model.format,
        status=datasets_pb2.DatasetStatus.Value(f"DATASET_STATUS_{model.status.upper()}"),
        training_ready=model.training_ready,
        total_training_pairs=model.total_training_pairs,
        total_validation_pairs=model.total_validation_pairs,
        total_tokens=model.total_tokens,
        storage_bucket=model.storage_bucket,
        storage_path=model.storage_path,
        file_name=model.file_name,
        file_size=model.file_size,
        validated_at=time(model.validated_at),
        validation_errors=[datasets_pb2.ValidationError(**error) for error in model.validation_errors],
        validation_error_count=model.validation_error_count,
        created_at=time(model.created_at),
        updated_at=time(model.updated_at),
        p50_tokens=model.p50_tokens,
        p95_tokens=model.p95_tokens,
        longest_tokens=model.longest_tokens,
        token_histogram=[
            datasets_pb2.TokenBin(up_to_tokens=edge, samples=samples) for edge, samples in model.token_histogram
        ],
    )


def notification(model: Notification) -> notifications_pb2.Notification:
    """A notification as clients see it."""
    # Its class makes a Struct of a mapping.
    metadata: Any = model.metadata
    return notifications_pb2.Notification(
        id=str(model.id),
        user_id=str(model.user_id),
        type=model.type,
        title=model.title,
        message=model.message,
        priority=model.priority,
        read=model.read,
        action_url=model.action_url,
        metadata=metadata,
        created_at=time(model.created_at),
    )


def page_of(request: ListRequest) -> dict[str, int]:
    """The page that a request asks for, with the defaults of what it leaves out."""
    return {"page": request.page or 1, "limit": request.limit or DEFAULT_LIMIT}


def job_status(request: jobs_pb2.ListJobsRequest) -> str | None:
    """The status to list; None: all."""
    return _word(jobs_pb2.JobStatus.Name(request.status), "JOB_STATUS_") if request.HasField("status") else None


def dataset_status(request: datasets_pb2.ListDatasetsRequest) -> str | None:
    """The status to list; None: all."""
    if not request.HasField("status"):
        return None
    return _word(datasets_pb2.DatasetStatus.Name(request.status), "DATASET_STATUS_")


def pagination(request: ListRequest, found: Page[Any]) -> pagination_pb2.Pagination:
    """Where the page stands."""
    asked = page_of(request)
    return pagination_pb2.Pagination(
        page=asked["page"],
        limit=asked["limit"],
        total=found.total,
        total_pages=math.ceil(found.total / asked["limit"]),
    )


def _set_fields(message: Message) -> dict[str, Any]:
    """The fields that are set, enums by name: what the message can be made of again."""
    return {field.name: _plain(field, value) for field, value in message.ListFields()}


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.is_repeated:
        return list(value)
    return field.enum_type.values_by_number[value].name if field.enum_type else value


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def cents(amount: Decimal) -> float:
    """Money as the wire has it: US dollars rounded to cents."""
    return float(amount.quantize(CENT, ROUND_HALF_UP))


def cents_or_none(amount: Decimal | None) -> float | None:
    """The same for money that may not be there."""
    return None if amount is None else cents(amount)


def time(moment: datetime | None) -> Any:
    """A time as a message's field. Timestamp's own `FromDatetime` takes ten times as long."""
    if moment is None:
        return None
    since = moment - EPOCH
    return {"seconds": since.days * DAY_SECONDS + since.seconds, "nanos": since.microseconds * 1_000}

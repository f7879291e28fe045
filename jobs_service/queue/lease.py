"""What passes between the queue and its trainers: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson

from jobs_service.events.model import MetricPoint


class Outcome(StrEnum):
    """How a lease ends."""

    COMPLETED = "completed"
    FAILED = "failed"
    RELEASED = "released"
    LEASE_EXPIRED = "lease_expired"
    COST_LIMIT = "cost_limit"
    DURATION_LIMIT = "duration_limit"
    CANCELLED = "cancelled"


# Ends that a trainer is told of with its next report. The others are the trainer's own doing, or its silence.
STOPPED = frozenset({Outcome.CANCELLED, Outcome.COST_LIMIT, Outcome.DURATION_LIMIT})
# Ends after which the job may be another trainer's.
GIVEN_UP = frozenset({Outcome.LEASE_EXPIRED, Outcome.RELEASED})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a trainer asks for: at most so many jobs that fit into its GPUs together."""

    max_jobs: int
    gpus: Mapping[str, int]
    trainer: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A job given to a trainer for a while. `seconds_left`: to the nearer of the owner's limits."""

    job_id: UUID
    lease_token: UUID
    lease_epoch: int
    expires_at: datetime
    attempt: int
    max_attempts: int
    hyperparameters: Mapping[str, Any]
    gpu_config: Mapping[str, Any]
    total_epochs: int
    total_steps: int
    dataset_id: UUID
    dataset_name: str
    dataset_format: str | None
    dataset_pairs: int | None
    dataset_tokens: int | None
    storage_bucket: str | None
    storage_path: str | None
    base_model: str | None
    training: Mapping[str, Any]
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as reports name it."""

    job_id: UUID
    token: UUID


@dataclass(frozen=True, slots=True)
class Report:
    """Where a job is."""

    stage: str
    epoch: int
    step: int
    metrics: Sequence[MetricPoint]
    log_lines: Sequence[str]
    external_job_id: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What a report is answered with: go on until `expires_at`, or stop and why."""

    stop: Outcome | None = None
    expires_at: datetime | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of a job that is done."""

    artifact_uri: str
    artifact_id: UUID | None
    final_metrics: MetricPoint | None
    peak_memory_gib: float | None


@dataclass(frozen=True, slots=True)
class Failure:
    """The result of an attempt that failed."""

    error_message: str
    retryable: bool


def digest(result: Completion | Failure) -> bytes:
    """A fingerprint of a result: reporting the same one again is fine. SHA-256, 32 bytes."""
    told = asdict(result)
    if told.get("peak_memory_gib") is None:
        told.pop(
            "peak_memory_gib", None
        )  # as it was before there was such a figure: servers of both kinds share a database
    return sha256(orjson.dumps(told, default=str, option=orjson.OPT_SORT_KEYS)).digest()

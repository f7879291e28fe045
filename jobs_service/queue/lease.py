"""Leases, and what trainers report on them: pure."""

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


# Outcomes that the answer to a trainer's next report names. The others come from the trainer, or from its silence.
STOPPED = frozenset({Outcome.CANCELLED, Outcome.COST_LIMIT, Outcome.DURATION_LIMIT})
# Outcomes after which another trainer may have the job.
GIVEN_UP = frozenset({Outcome.LEASE_EXPIRED, Outcome.RELEASED})


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A trainer's request for jobs: at most `max_jobs`, which together need at most `gpus`, the number of each type."""

    max_jobs: int
    gpus: Mapping[str, int]
    trainer: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that a trainer has until `expires_at`. `seconds_left`: GPU time to the nearer of the owner's limits."""

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
class LeaseRef:
    """A lease as reports name it."""

    job_id: UUID
    token: UUID


@dataclass(frozen=True, slots=True)
class Report:
    """A report of progress."""

    stage: str
    epoch: int
    step: int
    metrics: Sequence[MetricPoint]
    log_lines: Sequence[str]
    external_job_id: str


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """The answer to a report: the lease holds until `expires_at`, or the trainer must stop for the reason `stop`."""

    stop: Outcome | None = None
    expires_at: datetime | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of a completed job."""

    artifact_uri: str
    artifact_id: UUID | None
    final_metrics: MetricPoint | None
    peak_memory_gib: float | None


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of a failed attempt."""

    error_message: str
    retryable: bool


def digest(result: Completion | Failure) -> bytes:
    """Returns a fingerprint of a result, with which a repeated report is recognised: SHA-256, 32 bytes."""
    return sha256(orjson.dumps(asdict(result), default=str, option=orjson.OPT_SORT_KEYS)).digest()

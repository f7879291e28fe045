"""Leases, requests for them, reports and results on them, and positions in the queue: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from jobs_service.artifacts.model import ArtifactFile
from jobs_service.events.model import MetricPoint
from jobs_service.jobs.model import StatusReason

UNUSUAL = re.compile(r"[^ -~]")


class Outcome(StrEnum):
    """How a lease ends."""

    COMPLETED = "completed"
    FAILED = "failed"
    RELEASED = "released"
    LEASE_EXPIRED = "lease_expired"
    COST_LIMIT = "cost_limit"
    DURATION_LIMIT = "duration_limit"
    CANCELLED = "cancelled"


# Outcomes that the response to a trainer's next report names.
STOPPED = frozenset({Outcome.CANCELLED, Outcome.COST_LIMIT, Outcome.DURATION_LIMIT})
# Outcomes after which another trainer may have the job.
GIVEN_UP = frozenset({Outcome.LEASE_EXPIRED, Outcome.RELEASED})


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A trainer's request for at most `max_jobs` jobs. `gpus`: number of GPUs of each type that they may need together."""

    max_jobs: int
    gpus: Mapping[str, int]
    trainer: str
    simulated: bool = False
    # Whether a scheduler starts the jobs later.
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that a trainer has until `expires_at`. `seconds_to_limit`: GPU time to the nearer of the owner's limits."""

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
    dataset_size: int | None
    base_model: str | None
    training: Mapping[str, Any]
    estimate: bytes | None
    checkpoint_uri: str | None
    checkpoint_step: int | None
    seconds_to_limit: float | None
    # As the contract's LeaseDataset; empty without one.
    validation_dataset: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GpuCapacity:
    """GPUs of one type and the jobs of all users for them. `starting_jobs` wait for their trainer's scheduler."""

    gpu_type: str
    free_gpus: int
    busy_gpus: int
    running_jobs: int
    starting_jobs: int
    queued_jobs: int
    longest_wait_seconds: float


class Checkpoint(NamedTuple):
    """A saved state of a training: its URI, and the step of the trainer's own count."""

    uri: str
    step: int


@dataclass(frozen=True, slots=True)
class Report:
    """A report of progress."""

    stage: str
    epoch: int
    step: int
    metrics: Sequence[MetricPoint]
    log_lines: Sequence[str]
    external_job_id: str
    checkpoint: Checkpoint | None = None
    waiting_reason: str = ""


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """State of a lease: it lasts until `expires_at`, or the trainer must stop for the reason `stop`.

    `waiting`: no report has had another stage than `waiting`, so nothing is billed yet.
    """

    stop: Outcome | None = None
    expires_at: datetime | None = None
    seconds_to_limit: float | None = None
    current_cost: Decimal = Decimal(0)
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of a completed job."""

    artifact_uri: str
    artifact_id: UUID | None
    final_metrics: MetricPoint | None
    files: Sequence[ArtifactFile] = ()
    result_step: int | None = None
    measurements: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of a failed attempt."""

    error_message: str
    retryable: bool
    reason: StatusReason = StatusReason.TRAINER_ERROR
    measurements: Mapping[str, Any] = field(default_factory=dict)


def digest(result: Completion | Failure) -> bytes:
    """Returns a fingerprint of a result, which identifies a repeated report: SHA-256, 32 bytes."""
    return sha256(orjson.dumps(asdict(result), default=str, option=orjson.OPT_SORT_KEYS)).digest()


def software(measurements: Mapping[str, Any]) -> str | None:
    """Returns the software of a training, as far as it affects speed; None if it was not reported.

    Example: `torch 2.13, transformers 5.1, sdpa, packing, liger`. Patch versions and builds are left out.
    """
    stack = measurements.get("stack")
    if not stack:
        return None
    # It is shown to operators and users: printable ASCII alone.
    words = {name: UNUSUAL.sub("_", text) for name, text in stack.items() if isinstance(text, str)}
    versions = [
        f"{name} {'.'.join(words[name].split('+')[0].split('.')[:2])}"
        for name in ("torch", "transformers")
        if name in words
    ]
    packing = "packing" if stack.get("packing") else ""
    return ", ".join(filter(None, [*versions, words.get("attention"), packing, words.get("kernels")]))


class WaitingCode(StrEnum):
    """Why a queued job waits."""

    QUEUE = "queue"
    NO_TRAINER = "no_trainer"
    NEXT_ATTEMPT = "next_attempt"
    NEXT = "next"


class QueuePosition(NamedTuple):
    """A job's position in the queue, from 1, and why it waits."""

    position: int
    code: WaitingCode
    message: str
    gpus_needed: int
    gpus_offered: int

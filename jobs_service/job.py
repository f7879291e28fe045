"""A training job and the states it goes through: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    INITIALIZING = "initializing"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.INITIALIZING, JobState.CANCELLED}),
    JobState.INITIALIZING: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a person asked for. `hyperparameters` and `gpu_config` are the contract's fields, those that were set."""

    dataset_id: UUID
    preset_id: str
    hyperparameters: Mapping[str, Any]
    gpu_config: Mapping[str, Any]
    client_estimated_cost: Decimal | None

    def digest(self) -> bytes:
        """A fingerprint: two requests with the same one ask for the same job. SHA-256, 32 bytes."""
        return sha256(orjson.dumps(asdict(self), default=str, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass(frozen=True, slots=True)
class Price:
    """What the Estimator said of a configuration. US dollars, rounded to cents."""

    estimated_total_cost: Decimal
    hourly_rate: Decimal
    total_steps: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is stored, with its dataset in short. Costs in US dollars, unrounded; progress in percent."""

    id: UUID
    user_id: UUID
    dataset_id: UUID
    dataset_name: str
    dataset_format: str | None
    dataset_pairs: int | None
    preset_id: str
    hyperparameters: Mapping[str, Any]
    gpu_config: Mapping[str, Any]
    status: JobState
    current_stage: str
    progress: float
    current_epoch: int
    total_epochs: int
    current_step: int
    total_steps: int
    current_metrics: Mapping[str, Any]
    queued_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    estimated_total_cost: Decimal
    client_estimated_cost: Decimal | None
    current_cost: Decimal
    final_cost: Decimal | None
    error_message: str | None
    retry_count: int
    external_job_id: str | None
    artifact_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @property
    def estimate_differs(self) -> bool:
        """Whether the person saw another price than the job has: by half a cent or more."""
        seen = self.client_estimated_cost
        return seen is not None and abs(seen - self.estimated_total_cost) >= Decimal("0.005")

"""A training job and its states: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from jobs_service.errors import DoesNotFit


class JobState(StrEnum):
    """The states of a job."""

    QUEUED = "queued"
    INITIALIZING = "initializing"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


# The states that may follow each state. Back to queued: an attempt ended and the job goes on. The trigger change_job checks the
# same.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.INITIALIZING, JobState.CANCELLED}),
    JobState.INITIALIZING: frozenset({JobState.QUEUED, JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
FINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)


class StatusReason(StrEnum):
    """Why a job is in its state, where the state alone does not say so."""

    TRAINER_ERROR = "trainer_error"
    LEASE_EXPIRED = "lease_expired"
    COST_LIMIT = "cost_limit"
    DURATION_LIMIT = "duration_limit"
    CANCELLED_BY_OWNER = "cancelled_by_owner"
    RELEASED = "released"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_SUPPORTED = "not_supported"


class JobAction(StrEnum):
    """What an owner can do with a job."""

    CANCEL = "cancel"
    RETRY = "retry"
    DELETE = "delete"


def allowed_actions(state: JobState) -> list[JobAction]:
    """Returns what an owner can do with a job in a state."""
    if JobState.CANCELLED in TRANSITIONS[state]:
        return [JobAction.CANCEL]
    return [JobAction.RETRY, JobAction.DELETE] if state == JobState.FAILED else [JobAction.DELETE]


DEFAULT_PRIORITY = 5


@dataclass(frozen=True, slots=True)
class Configuration:
    """A job as its owner requests it. Fields are named like columns; mappings have the fields that the request sets."""

    dataset_id: UUID
    preset_id: str
    hyperparameters: Mapping[str, Any]
    gpu_config: Mapping[str, Any]
    client_estimated_cost: Decimal | None
    max_cost_usd: Decimal | None = None
    max_duration_seconds: int | None = None
    priority: int = DEFAULT_PRIORITY
    retried_from: UUID | None = None
    base_model: str | None = None
    training: Mapping[str, Any] | None = None
    provider: str | None = None
    quote_id: UUID | None = None
    allow_oom_risk: bool = False
    name: str | None = None
    labels: tuple[str, ...] = ()

    @property
    def dataset_ids(self) -> list[UUID]:
        """The dataset to train on and, if there is one, the dataset to validate with."""
        validation = (self.training or {}).get("validation_dataset_id")
        return [self.dataset_id, UUID(validation)] if validation else [self.dataset_id]

    def digest(self) -> bytes:
        """Returns a fingerprint that equal requests share: SHA-256, 32 bytes.

        Fields with their default value are left out, so that a new field does not change the fingerprints of old requests.
        """
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        content = {
            name: value for name, value in asdict(self).items() if name not in defaults or value != defaults[name]
        }
        return sha256(orjson.dumps(content, default=str, option=orjson.OPT_SORT_KEYS)).digest()

    def check_memory(self, price: Price) -> None:
        """Raises DoesNotFit if the job needs more memory than its GPUs have and its owner does not accept that."""
        shortfall = price.memory_shortfall
        if shortfall is not None and not self.allow_oom_risk:
            raise DoesNotFit(needed_gib=shortfall.needed_gib, usable_gib=shortfall.usable_gib, repair=shortfall.repair)


@dataclass(frozen=True, slots=True)
class MemoryShortfall:
    """A job that needs more memory than one of its GPUs has, GiB. `repair`: a change that makes it fit; may be empty."""

    needed_gib: float
    usable_gib: float
    repair: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast that the finished job is compared with. Fields are named like columns."""

    model_family: str
    stack: str
    forecast_p10_seconds: float
    forecast_seconds: float
    forecast_p90_seconds: float
    forecast_overhead_seconds: float
    forecast_correction: float
    forecast_slopes: list[float]
    forecast_model: str
    forecast_tokens: float


@dataclass(frozen=True, slots=True)
class Price:
    """The Estimator's response, US dollars rounded to cents. `estimate` is the message itself, which the job keeps.

    `base_model` is the catalogue's name, where the request may have an alias.
    """

    estimated_total_cost: Decimal
    hourly_rate: Decimal
    storage_usd: Decimal
    total_steps: int
    estimate: bytes
    base_model: str | None = None
    forecast: Forecast | None = None
    memory_shortfall: MemoryShortfall | None = None


class Job(NamedTuple):
    """A job as its owner sees it: columns of the view job_details. Costs up to now, US dollars, unrounded; progress in percent.

    A named tuple, since a frozen dataclass of so many fields takes ten times as long to create, and a page has a hundred.
    `own_jobs_ahead`: jobs of the same owner and GPU type that wait before it; None if it does not wait.
    """

    id: UUID
    user_id: UUID
    dataset_id: UUID
    dataset_name: str
    dataset_format: str | None
    dataset_pairs: int | None
    dataset_deleted: bool
    name: str | None
    labels: Sequence[str]
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
    priority: int
    max_cost_usd: Decimal | None
    max_duration_seconds: int | None
    status_reason: StatusReason | None
    revision: int
    attempt: int
    max_attempts: int
    retried_from: UUID | None
    artifact_uri: str | None
    artifact_size: int | None
    result_step: int | None
    measurements: Mapping[str, Any]
    trainer: str | None
    simulated: bool
    billed_seconds: float
    seconds_left: float | None
    waiting_message: str | None
    own_jobs_ahead: int | None
    base_model: str | None
    training: Mapping[str, Any]
    provider: str | None
    allow_oom_risk: bool
    estimate: bytes | None
    reforecast: Mapping[str, Any]

    def configuration(self) -> Configuration:
        """Returns the request that creates the same job again."""
        shared: dict[str, Any] = {
            name: getattr(self, name) for name in Configuration.__match_args__ if hasattr(self, name)
        }
        changes = {"client_estimated_cost": None, "retried_from": self.id, "training": self.training or None}
        return Configuration(**shared | changes | {"labels": tuple(self.labels)})

    @property
    def estimate_differs(self) -> bool:
        """Whether the price that the client showed differs from the job's by half a cent or more."""
        shown = self.client_estimated_cost
        return shown is not None and abs(shown - self.estimated_total_cost) >= Decimal("0.005")


class LeaseRef(NamedTuple):
    """A lease as a trainer's request names it."""

    job_id: UUID
    token: UUID


class JobSort(StrEnum):
    """What a list of jobs is sorted by."""

    CREATED = "created"
    NAME = "name"
    DATASET = "dataset"
    BASE_MODEL = "base_model"
    STATUS = "status"
    COST = "cost"
    ESTIMATED_COST = "estimated_cost"
    PROGRESS = "progress"
    DURATION = "duration"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list, and in which order."""

    status: JobState | None
    labels: Sequence[str]
    base_model: str | None
    search: str
    sort: JobSort
    is_ascending: bool

    @property
    def reads_all(self) -> bool:
        """Whether a page reads all of the user's jobs. Otherwise it is cut in an index: newest first, of one status or all."""
        newest_first = self.sort == JobSort.CREATED and not self.is_ascending
        return not newest_first or bool(self.labels or self.base_model or self.search)


def cost_limit_share(cost: Decimal, limit: Decimal | None) -> float | None:
    """Returns the share of a cost limit that is used, 0 to 1; None without a limit."""
    return None if limit is None else float(min(cost / limit, Decimal(1)))

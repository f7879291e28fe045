"""Datasets: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class DatasetStatus(StrEnum):
    """The state of a dataset."""

    UPLOADING = "uploading"
    VALIDATING = "validating"
    READY = "ready"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Training data of one user.

    `validation_errors` and `validation_warnings`: the fields of `problems.Problem`, one for each reason. `token_histogram`:
    upper edge in tokens and number of samples of each bin. `file_size` and `stored_size`: bytes of the uploaded and the stored
    file.
    """

    id: UUID
    user_id: UUID
    name: str
    description: str | None
    format: str | None
    status: DatasetStatus
    training_ready: bool
    total_training_pairs: int | None
    total_validation_pairs: int | None
    total_tokens: int | None
    p50_tokens: int | None
    p95_tokens: int | None
    longest_tokens: int | None
    token_histogram: Sequence[tuple[int, int]]
    storage_bucket: str | None
    storage_path: str | None
    file_name: str | None
    file_size: int | None
    validated_at: datetime | None
    validation_errors: Sequence[Mapping[str, Any]]
    validation_error_count: int
    validation_warnings: Sequence[Mapping[str, Any]]
    total_rows: int | None
    stored_size: int | None
    created_at: datetime
    updated_at: datetime

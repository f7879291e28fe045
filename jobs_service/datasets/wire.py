"""Datasets ↔ contract messages."""

from __future__ import annotations

from pipeline.datasets.v1 import datasets_pb2

from jobs_service.datasets.model import Dataset
from jobs_service.wire import enum_word, time


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


def dataset_status(request: datasets_pb2.ListDatasetsRequest) -> str | None:
    """The status to list; None: all."""
    if not request.HasField("status"):
        return None
    return enum_word(datasets_pb2.DatasetStatus.Name(request.status), "DATASET_STATUS_")

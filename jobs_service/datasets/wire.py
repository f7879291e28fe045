"""Datasets ↔ contract messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.datasets.v1 import datasets_pb2 as pb

from jobs_service.datasets.formats.mapping import ColumnMapping
from jobs_service.datasets.model import Dataset
from jobs_service.wire import optional_enum_word, time
from rpc.errors import ValidationFailed

# Most characters of a text and most messages of a row in a preview.
MAX_CHARACTERS, MAX_MESSAGES = 4_000, 100
PREVIEW_TEXTS = frozenset({"tools", "prompt", "completion", "text", "error", "source"})
_ERROR_FIELDS = [field.name for field in pb.ValidationError.DESCRIPTOR.fields]


def dataset(model: Dataset) -> pb.Dataset:
    """Returns the message of a dataset."""
    return pb.Dataset(
        id=str(model.id),
        user_id=str(model.user_id),
        name=model.name,
        description=model.description,
        format=model.format,
        status=pb.DatasetStatus.Value(f"DATASET_STATUS_{model.status.upper()}"),
        training_ready=model.training_ready,
        total_training_pairs=model.total_training_pairs,
        total_validation_pairs=model.total_validation_pairs,
        total_tokens=model.total_tokens,
        storage_bucket=model.storage_bucket,
        storage_path=model.storage_path,
        file_name=model.file_name,
        file_size=model.file_size,
        validated_at=time(model.validated_at),
        validation_errors=[_error(problem) for problem in model.validation_errors],
        validation_error_count=model.validation_error_count,
        validation_warnings=[_warning(problem) for problem in model.validation_warnings],
        total_rows=model.total_rows,
        stored_size=model.stored_size,
        created_at=time(model.created_at),
        updated_at=time(model.updated_at),
        p50_tokens=model.p50_tokens,
        p95_tokens=model.p95_tokens,
        longest_tokens=model.longest_tokens,
        token_histogram=[pb.TokenBin(up_to_tokens=edge, samples=samples) for edge, samples in model.token_histogram],
    )


def mapping(request: pb.ImportDatasetRequest) -> ColumnMapping:
    """Returns the mapping of columns and roles of an upload. Raises ValidationFailed."""
    try:
        return ColumnMapping.parse(request.mapping)
    except ValueError as error:
        raise ValidationFailed([("mapping", str(error))]) from None


def preview_row(row: Mapping[str, Any]) -> pb.PreviewRow:
    """Returns the message of a stored row, its texts cut to the size of a preview."""
    cut = _Cut()
    message = pb.PreviewRow(
        row=row.get("row", 0),
        line=row.get("line", 0),
        pairs=row.get("pairs", 0),
        tokens=row.get("tokens", 0),
        messages=[_message(each, cut) for each in row.get("messages", ())[:MAX_MESSAGES]],
    )
    for key in PREVIEW_TEXTS & row.keys():
        setattr(message, key, cut(row[key]))
    message.truncated = cut.done or len(row.get("messages", ())) > MAX_MESSAGES
    return message


class _Cut:
    """Cuts texts, and remembers in `done` whether it did."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, text: str) -> str:
        self.done |= len(text) > MAX_CHARACTERS
        return text[:MAX_CHARACTERS]


def _message(message: Mapping[str, Any], cut: _Cut) -> pb.PreviewMessage:
    functions = [call["function"] for call in message.get("tool_calls", ())[:MAX_MESSAGES]]
    return pb.PreviewMessage(
        role=message["role"],
        content=cut(message["content"]),
        reasoning=cut(message.get("reasoning_content", "")),
        tool_calls=[pb.PreviewToolCall(name=cut(each["name"]), arguments=cut(each["arguments"])) for each in functions],
        trained=message.get("train", False),
        name=cut(message.get("name", "")),
    )


def _error(problem: Mapping[str, Any]) -> pb.ValidationError:
    return pb.ValidationError(**{key: problem[key] for key in _ERROR_FIELDS if key in problem})


def _warning(problem: Mapping[str, Any]) -> pb.ValidationWarning:
    return pb.ValidationWarning(
        kind=problem["kind"], message=problem["reason"], count=problem["count"], lines=problem["lines"]
    )


def dataset_status(request: pb.ListDatasetsRequest) -> str | None:
    """Returns the status to list; None: all."""
    return optional_enum_word(request, "status", pb.DatasetStatus, "DATASET_STATUS_")

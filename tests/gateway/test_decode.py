"""Kinds of fields that no request over HTTP has yet: what a body may say of them, by the contract's own messages."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2
from pydantic import ValidationError

from gateway.api.decode import MAX_STRUCT_DEPTH, decoder


def read(message: type[Message], fields: dict[str, Any]) -> Any:
    """The message that a JSON object makes."""
    return message(**decoder(message.DESCRIPTOR).validate_python(fields))


def nested(depth: int) -> Any:
    """Lists in lists."""
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("row", "message", "fields"),
    [
        ("J05", jobs_pb2.WatchJobResponse, {"snapshot": {}, "event": {}}),
        *[("J11", datasets_pb2.ImportDatasetRequest, {"chunk": text}) for text in ("!!", "a", "YQ=a", 5)],
        ("J15", jobs_pb2.Job, {"current_metrics": {"a": nested(MAX_STRUCT_DEPTH)}}),
        *[("J02", jobs_pb2.Job, {"current_metrics": value}) for value in (5, "x", [])],
        *[
            ("Q12", jobs_pb2.Job, {"created_at": text})
            for text in (
                "2026-01-31T12:00:00",
                "10000-01-01T00:00:00Z",
                "0000-12-31T23:59:59Z",
                "2026-01-31T12:00:60Z",
                "2026-02-30T12:00:00Z",
                "2026-01-31 12:00:00Z",
                1769860800,
            )
        ],
    ],
)
def test_what_such_a_field_cannot_hold_is_refused(row: str, message: type[Message], fields: dict[str, Any]) -> None:
    """Two of a oneof, bytes that are not base64, times that are none and what is no object are not read."""
    with pytest.raises(ValidationError):
        read(message, fields)


def test_what_such_a_field_can_hold_is_kept() -> None:
    """J11, J23, J25: base64 of either alphabet, padded or not; any name in an object; the first and the last of all times."""
    for text in ("+/8=", "-_8=", "+/8", "-_8"):
        assert read(datasets_pb2.ImportDatasetRequest, {"chunk": text}).chunk == b"\xfb\xff"
    for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"):
        assert read(jobs_pb2.Job, {"created_at": text}).created_at.ToJsonString() == text
    metrics = {"__proto__": {"a": 1.0}, "constructor": None, "deep": nested(MAX_STRUCT_DEPTH - 3)}
    assert MessageToDict(read(jobs_pb2.Job, {"current_metrics": metrics}).current_metrics) == metrics

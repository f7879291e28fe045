"""Messages of a training process: one JSON object a line, on the pipe that PIPELINE_REPORTS names."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Report:
    """Progress: arguments of `Job.report`."""

    fields: dict[str, Any]


@dataclass(frozen=True)
class ProcessId:
    """The process that SIGTERM is sent to, instead of the one that was started."""

    pid: int


@dataclass(frozen=True)
class Result:
    """The training is done. `folder` has the result's files."""

    folder: str
    step: int
    max_steps: int
    stopped_early: bool = False
    result_step: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    measurements: dict[str, Any] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether the training reached its end, and was not merely interrupted."""
        return self.stopped_early or self.step == self.max_steps


@dataclass(frozen=True)
class Failure:
    """The training failed."""

    message: str
    retryable: bool = True
    reason: str = ""
    measurements: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """The training saved a checkpoint and stopped, after SIGTERM."""

    step: int


# Types of the messages that have one field, by its name. A message without any of these fields is a report.
KINDS: dict[str, TypeAdapter[Result | Failure | Saved]] = {
    "result": TypeAdapter(Result),
    "error": TypeAdapter(Failure),
    "saved": TypeAdapter(Saved),
}
Message = Report | ProcessId | Result | Failure | Saved
REPORT_FIELDS = ("step", "of", "epoch", "stage", "values", "lines", "platform_id", "checkpoint")


def parse(line: bytes) -> Message:
    """Parses a line. A line that is not a message becomes a log line of the job."""
    text = line.decode(errors="replace").strip()
    try:
        return _message(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return Report({"lines": [text]})


def _message(fields: dict[str, Any]) -> Message:
    for kind, adapter in KINDS.items():
        if kind in fields:
            return adapter.validate_python({name: value for name, value in fields[kind].items() if value is not None})
    if "pid" in fields:
        return ProcessId(int(fields["pid"]))
    report = {name: fields[name] for name in REPORT_FIELDS if fields.get(name) is not None}
    if not report:
        raise ValueError("no message")
    if not isinstance(report.get("values", {}), dict):
        raise TypeError("values")
    lines = report.get("lines")
    report |= {"lines": [lines]} if isinstance(lines, str) else {}
    if "checkpoint" in report:
        report["checkpoint"] = (report["checkpoint"]["uri"], report["checkpoint"]["step"])
    return Report(report)

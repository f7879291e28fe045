"""Reports of a trainer, converted to what the contract allows, so that no logged value ends a training."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.workers.v1 import workers_pb2

# Limits of one report in the contract, and of the buffer.
MAX_POINTS, MAX_LINES, MAX_VALUES = 100, 100, 32
MAX_LINE, MAX_STAGE, MAX_PLATFORM_ID, MAX_NAME, MAX_URI = 2_000, 64, 200, 64, 1_000
BUFFERED_POINTS, BUFFERED_LINES = 2_000, 1_000
# Largest magnitude of a value, largest epoch, and longest text shown of a value that was left out.
LARGEST, MAX_EPOCH, MAX_SHOWN = 1e30, 1e6, 200
# Largest step of a checkpoint, in the trainer's own count.
MAX_STEP = 2**53


def clean_text(text: object, limit: int) -> str:
    """Returns a text without NULs and lone surrogates, cut to `limit` characters."""
    return str(text).replace("\0", "").encode("utf-8", "replace").decode()[:limit]


def number(value: Any) -> float | None:
    """Returns a number, a NumPy scalar, or a tensor or array of one element as a finite float; None for anything else."""
    if isinstance(value, str | bytes):
        return None
    try:
        converted = float(value.item() if hasattr(value, "item") else value)
    except Exception:  # a library's own type may raise anything
        return None
    return converted if math.isfinite(converted) and abs(converted) <= LARGEST else None


def clean_values(values: Mapping[Any, Any]) -> tuple[dict[str, float], list[str]]:
    """Returns valid values by valid names, and a log line for each that was renamed or left out."""
    cleaned, lines = dict[str, float](), list[str]()
    for key, value in values.items():
        converted = number(value)
        if converted is None:
            lines.append(f"{clean_text(key, MAX_NAME)} is {clean_text(_shown(value), MAX_SHOWN)}")
            continue
        name = _name(key)
        if name in cleaned or len(cleaned) == MAX_VALUES:
            lines.append(f"metric {clean_text(key, MAX_NAME)} = {converted:g} (over {MAX_VALUES} values, or twice)")
            continue
        cleaned[name] = converted
        if name != key:
            lines.append(f"metric {clean_text(key, MAX_NAME)} is recorded as {name}")
    return cleaned, lines


def _name(key: object) -> str:
    name = re.sub(r"[^A-Za-z0-9_./-]+", "_", str(key))
    if not re.match(r"[A-Za-z]", name):
        name = f"m{name}" if name.startswith("_") else f"m_{name}"
    return name[:MAX_NAME]


def _shown(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # as above
        return f"a {type(value).__name__}"


class ReportBuffer:
    """Reports that are not sent yet: the newest position, and the points and lines since the last request.

    Not thread-safe. A full buffer drops the oldest points and lines.
    """

    def __init__(self, job_id: str, lease_token: str, *, total_steps: int, total_epochs: int) -> None:
        self._position = workers_pb2.ReportProgressRequest(job_id=job_id, lease_token=lease_token)
        self._total_steps, self._total_epochs = total_steps, total_epochs
        self._points: deque[workers_pb2.MetricPoint] = deque(maxlen=BUFFERED_POINTS)
        self._lines: deque[str] = deque(maxlen=BUFFERED_LINES)
        self._remarks: set[str] = set()
        self.has_news = False

    @property
    def step(self) -> int:
        """The last reported step."""
        return self._position.step

    @property
    def has_started(self) -> bool:
        """Whether an epoch or a step was reported: the job is running then."""
        return bool(self._position.epoch or self._position.step)

    def add(
        self,
        step: object = None,
        *,
        of: object = None,
        epoch: object = None,
        stage: str = "",
        values: Mapping[Any, Any] | None = None,
        lines: Iterable[object] | None = None,
        platform_id: str = "",
        checkpoint: tuple[object, object] | None = None,
    ) -> None:
        """Adds one report. Values that the contract does not allow are cut, renamed or turned into log lines."""
        at, steps, epochs = number(step), number(of), number(epoch)
        if at is not None:
            mapped = int(at) * self._total_steps // int(steps) if steps and steps >= 1 else int(at)
            self._position.step = max(0, min(mapped, self._total_steps))
        if epochs is not None:
            self._position.epoch = max(0, min(math.floor(epochs) + 1, self._total_epochs))
        self._position.stage = clean_text(stage, MAX_STAGE) or self._position.stage
        self._position.external_job_id = clean_text(platform_id, MAX_PLATFORM_ID) or self._position.external_job_id
        if checkpoint is not None:
            self._set_checkpoint(*checkpoint)
        kept, remarks = clean_values(values or {})
        # One line for a metric that is renamed or left out at every step.
        remarks = [line for line in remarks if line not in self._remarks]
        if len(self._remarks) < BUFFERED_LINES:
            self._remarks.update(remarks)
        self._lines.extend(clean_text(line, MAX_LINE) for line in (*(lines or ()), *remarks))
        if kept:
            done = min(max(0.0, epochs or 0.0), MAX_EPOCH)
            self._points.append(workers_pb2.MetricPoint(step=self._position.step, epoch=done, values=kept))
        self.has_news = True

    def _set_checkpoint(self, uri: object, step: object) -> None:
        text, at = clean_text(uri, MAX_URI + 1), number(step)
        if 0 < len(text) <= MAX_URI and at is not None and 0 <= at <= MAX_STEP:
            self._position.checkpoint.uri, self._position.checkpoint.step = text, int(at)
        else:
            self._lines.append(
                f"a checkpoint is not recorded: {clean_text(uri, MAX_SHOWN)} at {clean_text(step, MAX_SHOWN)}"
            )

    def take(self) -> workers_pb2.ReportProgressRequest:
        """Returns the next request, and removes its points and lines from the buffer."""
        request = workers_pb2.ReportProgressRequest()
        request.CopyFrom(self._position)
        request.metrics.extend(self._points.popleft() for _ in range(min(MAX_POINTS, len(self._points))))
        request.log_lines.extend(self._lines.popleft() for _ in range(min(MAX_LINES, len(self._lines))))
        self.has_news = bool(self._points or self._lines)
        return request

    def final_point(self, values: Mapping[Any, Any]) -> workers_pb2.MetricPoint | None:
        """Returns a point at the last reported step, or at the job's last step; None if no value is valid."""
        kept, _ = clean_values(values)
        if not kept:
            return None
        step, epoch = self.step or self._total_steps, self._position.epoch or self._total_epochs
        return workers_pb2.MetricPoint(step=step, epoch=float(epoch), values=kept)

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
# Largest absolute value of a metric, largest epoch, and longest quotation of a value that is left out.
MAX_VALUE, MAX_EPOCH, MAX_QUOTED = 1e30, 1e6, 200
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
    return converted if math.isfinite(converted) and abs(converted) <= MAX_VALUE else None


def clean_values(values: Mapping[Any, Any]) -> tuple[dict[str, float], list[str]]:
    """Returns valid values by valid names, and a log line for each that was renamed or left out."""
    cleaned, lines = dict[str, float](), list[str]()
    for key, value in values.items():
        converted = number(value)
        if converted is None:
            lines.append(f"{clean_text(key, MAX_NAME)} is {clean_text(_as_text(value), MAX_QUOTED)}")
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


def _as_text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # the type's own `__str__` may raise anything
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
        self._warnings: set[str] = set()
        self.has_unsent = False

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
        own_step, own_total, epochs_done = number(step), number(of), number(epoch)
        if own_step is not None:
            job_step = int(own_step)
            if own_total and own_total >= 1:
                job_step = job_step * self._total_steps // int(own_total)
            self._position.step = max(0, min(job_step, self._total_steps))
        if epochs_done is not None:
            self._position.epoch = max(0, min(math.floor(epochs_done) + 1, self._total_epochs))
        self._position.stage = clean_text(stage, MAX_STAGE) or self._position.stage
        self._position.external_job_id = clean_text(platform_id, MAX_PLATFORM_ID) or self._position.external_job_id
        if checkpoint is not None:
            self._set_checkpoint(*checkpoint)
        valid, warnings = clean_values(values or {})
        # One line for a metric that is renamed or left out at every step.
        warnings = [line for line in warnings if line not in self._warnings]
        if len(self._warnings) < BUFFERED_LINES:
            self._warnings.update(warnings)
        self._lines.extend(clean_text(line, MAX_LINE) for line in (*(lines or ()), *warnings))
        if valid:
            point_epoch = min(max(0.0, epochs_done or 0.0), MAX_EPOCH)
            self._points.append(workers_pb2.MetricPoint(step=self._position.step, epoch=point_epoch, values=valid))
        self.has_unsent = True

    def _set_checkpoint(self, uri: object, step: object) -> None:
        text, own_step = clean_text(uri, MAX_URI + 1), number(step)
        if 0 < len(text) <= MAX_URI and own_step is not None and 0 <= own_step <= MAX_STEP:
            self._position.checkpoint.uri, self._position.checkpoint.step = text, int(own_step)
        else:
            self._lines.append(
                f"a checkpoint is not recorded: {clean_text(uri, MAX_QUOTED)} at {clean_text(step, MAX_QUOTED)}"
            )

    def take(self) -> workers_pb2.ReportProgressRequest:
        """Returns the next request, and removes its points and lines from the buffer."""
        request = workers_pb2.ReportProgressRequest()
        request.CopyFrom(self._position)
        request.metrics.extend(self._points.popleft() for _ in range(min(MAX_POINTS, len(self._points))))
        request.log_lines.extend(self._lines.popleft() for _ in range(min(MAX_LINES, len(self._lines))))
        self.has_unsent = bool(self._points or self._lines)
        return request

    def final_point(self, values: Mapping[Any, Any]) -> workers_pb2.MetricPoint | None:
        """Returns a point at the last reported step, or at the job's last step; None if no value is valid."""
        valid, _ = clean_values(values)
        if not valid:
            return None
        step, epoch = self.step or self._total_steps, self._position.epoch or self._total_epochs
        return workers_pb2.MetricPoint(step=step, epoch=float(epoch), values=valid)

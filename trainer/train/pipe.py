"""Messages of a training process to the supervisor: one JSON object a line, written by the first process of the training.

With several nodes, the first process of each node also sends its own supervisor the process to stop.
"""

from __future__ import annotations

import json
import math
import os
import threading
from typing import Any


class Pipe:
    """Writes messages to the supervisor's pipe. Does nothing without a pipe, or in other processes than the first.

    `rank` and `local_rank`: number of the process in the training and on its node.
    """

    def __init__(self, path: str | None, *, rank: int, local_rank: int) -> None:
        self._file = os.open(path, os.O_WRONLY) if path and local_rank == 0 else None
        self._is_first = rank == 0
        self._lock = threading.Lock()

    def report(self, **fields: Any) -> None:
        """Sends progress: `step`, `of`, `epoch`, `stage`, `values`, `lines`, `checkpoint`."""
        if self._is_first:
            self._send(fields)

    def log(self, *lines: str) -> None:
        """Sends lines for the job's log."""
        if lines:
            self.report(lines=list(lines))

    def send(self, kind: str, **fields: Any) -> None:
        """Sends a message of a kind: `result`, `error` or `saved`."""
        self.report(**{kind: fields})

    def pid(self) -> None:
        """Sends the id of this process, as the one to send SIGTERM to."""
        self._send({"pid": os.getpid()})

    def _send(self, message: dict[str, Any]) -> None:
        if self._file is None:
            return
        line = memoryview(json.dumps(message, default=_to_json).encode() + b"\n")
        with self._lock:
            while line:
                line = line[os.write(self._file, line) :]


def _to_json(value: Any) -> Any:
    """Returns tensors and NumPy scalars as numbers, anything else as text."""
    try:
        number = value.item()
    except Exception:  # a library's own type may raise anything
        return str(value)
    return number if not isinstance(number, float) or math.isfinite(number) else str(number)

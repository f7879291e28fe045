"""What a client writes down: one line of JSON for each call, once its end is known."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any


class History:
    """A client's file. Each line reaches the kernel before the next call, so that a killed client leaves what it knew."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)
        self._lock = threading.Lock()

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, op: str, began: float, outcome: str, **about: Any) -> None:
        """One entry. Times are of the machine's monotonic clock, which all processes share."""
        entry = {"op": op, "began": began, "ended": time.monotonic(), "outcome": outcome, **about}
        with self._lock:
            self._file.write(json.dumps(entry).encode() + b"\n")

"""Measurements of a training: speed, tokens, seconds of each part, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

# First steps, which the speed leaves out: they warm up caches and kernels.
WARM_UP_STEPS = 20
GIB = 2**30


class Meter:
    """Measures a training: tokens, and seconds of each part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"load": 0.0, "eval": 0.0, "checkpoint": 0.0}
        self.trained_tokens = 0
        self._speeds: list[float] = []
        self._began = self._last_step = 0.0
        self._part_seconds = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time of its body to a part: `load`, `eval` or `checkpoint`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - began)

    def add(self, name: str, seconds: float) -> None:
        """Adds seconds to a part."""
        self.seconds[name] += seconds
        self._part_seconds += seconds

    def start(self) -> None:
        """Starts the time of the first step."""
        self._began = self._last_step = time.monotonic()
        self._part_seconds = 0.0

    def step(self, tokens: int, *, counts: bool) -> float:
        """Adds the tokens, without padding, of the steps since the last call. Returns their tokens per second.

        `counts`: whether they count for the speed, after the warm-up.
        """
        now = time.monotonic()
        seconds = now - self._last_step - self._part_seconds
        self._last_step, self._part_seconds = now, 0.0
        self.trained_tokens += tokens
        speed = tokens / max(seconds, 1e-6)
        if counts:
            self._speeds.append(speed)
        return speed

    def measurements(self, *, longest: int, packing: bool, model: Any, fused: bool) -> dict[str, Any]:
        """Returns the fields of the contract's Measurements."""
        total = time.monotonic() - self._began if self._began else 0.0
        config = getattr(model, "config", None)
        return {
            "tokens_per_second": statistics.median(self._speeds) if self._speeds else None,
            "trained_tokens": self.trained_tokens,
            "load_seconds": self.seconds["load"],
            "train_seconds": max(0.0, total - self.seconds["eval"] - self.seconds["checkpoint"]),
            "eval_seconds": self.seconds["eval"],
            "checkpoint_seconds": self.seconds["checkpoint"],
            "peak_memory_gib": peak_memory_gib(),
            "longest_sequence": longest or None,
            "stack": {
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "attention": str(getattr(config, "_attn_implementation", "") or ""),
                "packing": packing,
                "kernels": "liger" if fused else "",
            },
        }


def peak_memory_gib() -> float | None:
    """Returns the most memory that PyTorch reserved on this process's GPU, GiB; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_reserved()) / GIB

"""GPUs of this machine by the catalogue's types."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from trainer.client import TrainerError

# Names in NVML (regular expressions) and types of the catalogue. The first match is used. A GH200, a GB200 and a laptop's
# RTX 4090 are other types.
TYPES = (
    (r"A100.*80G", "A100-80GB"),
    (r"A100.*40G", "A100-40GB"),
    (r"\bH100\b", "H100"),
    (r"\bH200\b", "H200"),
    (r"\bB200\b", "B200"),
    (r"V100.*32GB", "V100-32GB"),
    (r"\bL40S\b", "L40S"),
    (r"\bL4\b", "L4"),
    (r"\bA10G?\b", "A10G"),
    (r"RTX 4090(?! Laptop)", "RTX-4090"),
    (r"\bMI300X\b", "MI300X"),
)


def type_of(name: str) -> str | None:
    """Returns the catalogue's type of a GPU by its name in NVML; None if the catalogue has none."""
    return next((type_ for pattern, type_ in TYPES if re.search(pattern, name, re.IGNORECASE)), None)


def detect() -> tuple[dict[str, int], list[str]]:
    """Returns the GPUs of this machine by type, and the names of those without a type. Raises TrainerError."""
    try:
        import pynvml
    except ImportError:
        raise TrainerError("set the GPUs to offer (--gpus A100-80GB=2), or install pipeline-lora[train-gpu]") from None
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        names = [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except pynvml.NVMLError as error:
        raise TrainerError(f"no NVIDIA GPU was found ({error}): set the GPUs to offer with --gpus") from error
    gpus = Counter(type_ for name in names if (type_ := type_of(name)))
    return dict(gpus), sorted({name for name in names if type_of(name) is None})


def parse(text: str) -> tuple[str, int]:
    """Parses `A100-80GB=2` as (type, count); the default count is 1. Raises ValueError."""
    type_, _, count = text.partition("=")
    if not type_ or (count and not re.fullmatch(r"[1-9]\d{0,4}", count)):
        raise ValueError(text)
    return type_, int(count or 1)


def check(gpus: Mapping[str, int], catalogue_types: frozenset[str]) -> None:
    """Raises TrainerError for a type that the catalogue does not have. Checks nothing if `catalogue_types` is empty."""
    unknown = sorted(set(gpus) - catalogue_types) if catalogue_types else []
    if unknown:
        raise TrainerError(
            f"the catalogue has no GPU type {', '.join(unknown)}; it has {', '.join(sorted(catalogue_types))}"
        )

"""What would make a job fit: changes to its configuration that a client can apply, cheapest to the person first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from estimator_service.forecast import Forecast, Point, forecast
from estimator_service.hardware import Gpu

MAX_REPAIRS = 5
SHORTEST = 256


class Repair(NamedTuple):
    """Changed fields with their new values, the configuration they make and its forecast."""

    patch: dict[str, str | int | bool]
    point: Point
    forecast: Forecast


def repairs(point: Point, other_gpus: Sequence[Gpu] = ()) -> list[Repair]:
    """Up to five changes after which the job fits, none when it does already; prices are the caller's to add."""
    if forecast(point).verdict == "fits":
        return []
    found: list[Repair] = []
    for patch, changed in _changes(point, other_gpus):
        seen = forecast(changed)
        if seen.verdict == "fits":
            found.append(Repair(patch, changed, seen))
        if len(found) == MAX_REPAIRS:
            break
    return found


def _changes(point: Point, other_gpus: Sequence[Gpu]) -> Iterator[tuple[dict[str, str | int | bool], Point]]:
    w = point.workload
    if not w.checkpointing:
        yield {"activation_checkpointing": True}, point._replace(workload=replace(w, checkpointing=True))
    batch, accumulation = w.batch, w.accumulation
    while batch > 1:
        accumulation, batch = -(-accumulation * batch // (batch // 2)), batch // 2
        smaller = point._replace(workload=replace(w, batch=batch, accumulation=accumulation))
        if forecast(smaller).verdict == "fits" or batch == 1:
            yield {"batch_size": batch, "gradient_accumulation": accumulation}, smaller
            break
    if w.method != "qlora":
        quantised = replace(w, method="qlora", weight_bits=4, pure_16bit=False)
        yield {"method": "qlora"}, point._replace(workload=quantised)
        yield (
            {"method": "qlora", "batch_size": 1, "gradient_accumulation": w.batch * w.accumulation},
            point._replace(workload=replace(quantised, batch=1, accumulation=w.batch * w.accumulation)),
        )
    length = w.length // 2
    while length >= SHORTEST:
        tokens = None if w.tokens is None else min(w.tokens, length)
        shorter = point._replace(workload=replace(w, length=length, tokens=tokens))
        if forecast(shorter).verdict == "fits":
            yield {"sequence_length": length}, shorter
            break
        length //= 2
    for gpu in sorted(other_gpus, key=lambda gpu: gpu.memory_gb):
        if gpu.memory_gb > point.gpu.memory_gb:
            yield {"gpu_type": gpu.id}, point._replace(gpu=gpu)

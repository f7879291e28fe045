"""Finds changes of a configuration after which a job fits into memory, the smallest change first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from estimator_service.catalogue.model import JobDefaults
from estimator_service.datasets.model import Dataset
from estimator_service.forecasts.configuration import Placement
from estimator_service.forecasts.job_forecast import JobForecast, job_forecast
from estimator_service.forecasts.plan import TrainingSpec, plan, with_options
from estimator_service.learning.corrections import Corrections, corrected
from estimator_service.physics.forecast import Point, fits

MAX_REPAIRS = 5
MIN_LENGTH = 256  # tokens at which samples may be cut


@dataclass(frozen=True, slots=True)
class Change:
    """New values for fields of a request; None or absent: unchanged. `options` are those of `training`."""

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None
    gpu_type: str | None = None
    gpu_count: int | None = None


class Repair(NamedTuple):
    """A change, and the forecast after it."""

    change: Change
    job: JobForecast


Candidate = tuple[Change, TrainingSpec, Placement]


class Forecaster(NamedTuple):
    """Forecasts jobs on one dataset."""

    dataset: Dataset
    corrections: Corrections
    defaults: JobDefaults

    def fits(self, spec: TrainingSpec, placement: Placement) -> bool:
        planned = plan(spec, placement.gpu, self.dataset, self.defaults)
        return fits(corrected(Point(planned.workload, placement.gpu, placement.number), self.corrections))

    def forecast(self, spec: TrainingSpec, placement: Placement) -> JobForecast:
        planned = plan(spec, placement.gpu, self.dataset, self.defaults)
        point = corrected(Point(planned.workload, placement.gpu, placement.number), self.corrections)
        return job_forecast(planned, point, placement.price, self.defaults)


def repairs(
    spec: TrainingSpec, placement: Placement, job: JobForecast, forecaster: Forecaster, others: Sequence[Placement]
) -> list[Repair]:
    """Returns up to five changes after which the job fits, at most one of a kind; pairs of changes if no single one does."""
    repairs = _first_of_each(_kinds(spec, placement, job, others), forecaster)
    return repairs or _first_of_each(_pairs(spec, placement, job, others), forecaster)


def _first_of_each(kinds: Iterator[Iterator[Candidate]], forecaster: Forecaster) -> list[Repair]:
    """Returns the first candidate of each kind that fits, up to `MAX_REPAIRS`."""
    repairs = []
    for kind in kinds:
        for change, new_spec, new_placement in kind:
            if forecaster.fits(new_spec, new_placement):
                repairs.append(Repair(change, forecaster.forecast(new_spec, new_placement)))
                break
        if len(repairs) == MAX_REPAIRS:
            break
    return repairs


def _kinds(
    spec: TrainingSpec, placement: Placement, job: JobForecast, others: Sequence[Placement]
) -> Iterator[Iterator[Candidate]]:
    """Yields the candidates of each kind of change."""
    if spec.options.activation_checkpointing is False:
        change = Change("Compute activations again in the backward pass", {"activation_checkpointing": True})
        yield iter([(change, with_options(spec, activation_checkpointing=True), placement)])
    yield _smaller_batches(spec, placement)
    if job.plan.workload.method == "full":
        yield _with_method(spec, placement, "lora", "Train an adapter instead of every weight (LoRA)")
    if job.plan.workload.method != "qlora":
        yield _with_method(spec, placement, "qlora", "Quantise the base model to 4 bits (QLoRA)")
    yield _shorter(spec, placement, job)
    yield _other_gpus(spec, placement, others)
    yield _more_gpus(spec, placement)


def _pairs(
    spec: TrainingSpec, placement: Placement, job: JobForecast, others: Sequence[Placement]
) -> Iterator[Iterator[Candidate]]:
    """Yields pairs of changes: another method or shorter samples with other or more GPUs, or other GPUs with more of them."""
    firsts = [_shorter(spec, placement, job), _other_gpus(spec, placement, others)]
    if job.plan.workload.method != "qlora":
        firsts.insert(0, _with_method(spec, placement, "qlora", "Quantise the base model to 4 bits (QLoRA)"))
    for first in map(list, firsts):
        if first and first[0][0].gpu_type is None:
            yield (_combined(one, two) for one in first for two in _other_gpus(one[1], one[2], others))
        yield (_combined(one, two) for one in first for two in _more_gpus(one[1], one[2]))


def _combined(first: Candidate, second: Candidate) -> Candidate:
    """Returns the second candidate, which was made from the first, with the changes of both."""
    one, two = first[0], second[0]
    change = Change(
        f"{one.title}; {two.title[0].lower()}{two.title[1:]}",
        {**one.options, **two.options},
        batch=two.batch or one.batch,
        gpu_type=two.gpu_type or one.gpu_type,
        gpu_count=two.gpu_count or one.gpu_count,
    )
    return change, second[1], second[2]


def _smaller_batches(spec: TrainingSpec, placement: Placement) -> Iterator[Candidate]:
    """Halves the batch and doubles gradient accumulation, so that an optimizer step still has as many samples."""
    samples_per_step = spec.batch * (spec.options.gradient_accumulation or 1)
    batch = spec.batch
    while batch > 1:
        batch //= 2
        accumulation = -(-samples_per_step // batch)
        changed = replace(with_options(spec, gradient_accumulation=accumulation), batch=batch)
        title = f"Take {batch} at once and add up {accumulation} of them"
        yield Change(title, {"gradient_accumulation": accumulation}, batch=batch), changed, placement


def _with_method(spec: TrainingSpec, placement: Placement, method: str, title: str) -> Iterator[Candidate]:
    """Yields another method, then the same with recomputed activations and a batch of one."""
    yield Change(title, {"method": method}), with_options(spec, method=method), placement
    accumulation = spec.batch * (spec.options.gradient_accumulation or 1)
    options = {"method": method, "activation_checkpointing": True, "gradient_accumulation": accumulation}
    changed = replace(with_options(spec, **options), batch=1)
    yield Change(f"{title}, one sample at once", options, batch=1), changed, placement


def _shorter(spec: TrainingSpec, placement: Placement, job: JobForecast) -> Iterator[Candidate]:
    length = job.plan.workload.length // 2
    while length >= MIN_LENGTH:
        changed = with_options(spec, sequence_length=length)
        yield Change(f"Cut samples at {length} tokens", {"sequence_length": length}), changed, placement
        length //= 2


def _other_gpus(spec: TrainingSpec, placement: Placement, others: Sequence[Placement]) -> Iterator[Candidate]:
    """Yields GPU types with more memory, the cheapest first."""
    for other in sorted(others, key=lambda other: (other.price, other.gpu.id)):
        if other.gpu.usable_bytes > placement.gpu.usable_bytes:
            yield Change(f"Use {other.gpu.id}", gpu_type=other.gpu.id), spec, other


def _more_gpus(spec: TrainingSpec, placement: Placement) -> Iterator[Candidate]:
    number = placement.number * 2
    while number <= 8:
        yield Change(f"Use {number} GPUs", gpu_count=number), spec, placement._replace(number=number)
        number *= 2

"""What would make a job fit: changes to its configuration that a client can apply, those that change least first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from estimator_service.catalogue.gpus import Gpu
from estimator_service.forecasts.job_forecast import JobForecast
from estimator_service.forecasts.plan import TrainingSpec, with_options

MAX_REPAIRS = 5
SHORTEST = 256


class Placement(NamedTuple):
    """Where a job runs: GPUs of one type at a price, US dollars an hour for each."""

    gpu: Gpu
    number: int
    price: float


@dataclass(frozen=True, slots=True)
class Change:
    """Fields of a request with their new values; None and absent: as they are. `options` are those of `training`."""

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None
    gpu_type: str | None = None
    gpu_count: int | None = None


class Repair(NamedTuple):
    """A change, and the job with it."""

    change: Change
    job: JobForecast


Candidate = tuple[Change, TrainingSpec, Placement]


class Forecaster(Protocol):
    """Says of a job whether it fits, and of those that do what they take."""

    def fits(self, spec: TrainingSpec, placement: Placement) -> bool: ...
    def forecast(self, spec: TrainingSpec, placement: Placement) -> JobForecast: ...


def repairs(
    spec: TrainingSpec, placement: Placement, job: JobForecast, forecaster: Forecaster, others: Sequence[Placement]
) -> list[Repair]:
    """Up to five changes after which the job fits, at most one of a kind; two changes together where no single one does."""
    repairs = _first_of_each(_kinds(spec, placement, job, others), forecaster)
    return repairs or _first_of_each(_pairs(spec, placement, job, others), forecaster)


def _first_of_each(kinds: Iterator[Iterator[Candidate]], forecaster: Forecaster) -> list[Repair]:
    """The first candidate of each kind that fits, up to `MAX_REPAIRS`."""
    repairs = []
    for kind in kinds:
        for change, changed, placed in kind:
            if forecaster.fits(changed, placed):
                repairs.append(Repair(change, forecaster.forecast(changed, placed)))
                break
        if len(repairs) == MAX_REPAIRS:
            break
    return repairs


def _kinds(
    spec: TrainingSpec, placement: Placement, job: JobForecast, others: Sequence[Placement]
) -> Iterator[Iterator[Candidate]]:
    """Candidates of one kind after the other; of each kind the first that fits is taken."""
    if spec.options.activation_checkpointing is False:
        change = Change("Compute activations again in the backward pass", {"activation_checkpointing": True})
        yield iter([(change, with_options(spec, activation_checkpointing=True), placement)])
    yield _smaller_batches(spec, placement)
    if job.plan.workload.method == "full":
        yield _with_method(spec, placement, "lora", "Train an adapter instead of every weight (LoRA)")
    if job.plan.workload.method != "qlora":
        yield _with_method(spec, placement, "qlora", "Quantise the base model to 4 bits (QLoRA)")
    yield _shorter(spec, placement, job)
    yield _elsewhere(spec, placement, others)
    yield _more_gpus(spec, placement)


def _pairs(
    spec: TrainingSpec, placement: Placement, job: JobForecast, others: Sequence[Placement]
) -> Iterator[Iterator[Candidate]]:
    """Two changes together: another method or shorter samples, and other or more GPUs; or other GPUs and more of them."""
    firsts = [_shorter(spec, placement, job), _elsewhere(spec, placement, others)]
    if job.plan.workload.method != "qlora":
        firsts.insert(0, _with_method(spec, placement, "qlora", "Quantise the base model to 4 bits (QLoRA)"))
    for first in map(list, firsts):
        if first and first[0][0].gpu_type is None:
            yield (_together(one, two) for one in first for two in _elsewhere(one[1], one[2], others))
        yield (_together(one, two) for one in first for two in _more_gpus(one[1], one[2]))


def _together(first: Candidate, second: Candidate) -> Candidate:
    """The second candidate, which was made from the first, with the changes of both."""
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
    """Halves the batch and adds up as many more, so that an optimizer step still sees as many samples."""
    together = spec.batch * (spec.options.gradient_accumulation or 1)
    batch = spec.batch
    while batch > 1:
        batch //= 2
        accumulation = -(-together // batch)
        changed = replace(with_options(spec, gradient_accumulation=accumulation), batch=batch)
        title = f"Take {batch} at once and add up {accumulation} of them"
        yield Change(title, {"gradient_accumulation": accumulation}, batch=batch), changed, placement


def _with_method(spec: TrainingSpec, placement: Placement, method: str, title: str) -> Iterator[Candidate]:
    """Another method; where that is not enough, with recomputed activations and one sample at once as well."""
    yield Change(title, {"method": method}), with_options(spec, method=method), placement
    accumulation = spec.batch * (spec.options.gradient_accumulation or 1)
    options = {"method": method, "activation_checkpointing": True, "gradient_accumulation": accumulation}
    changed = replace(with_options(spec, **options), batch=1)
    yield Change(f"{title}, one sample at once", options, batch=1), changed, placement


def _shorter(spec: TrainingSpec, placement: Placement, job: JobForecast) -> Iterator[Candidate]:
    length = job.plan.workload.length // 2
    while length >= SHORTEST:
        changed = with_options(spec, sequence_length=length)
        yield Change(f"Cut samples at {length} tokens", {"sequence_length": length}), changed, placement
        length //= 2


def _elsewhere(spec: TrainingSpec, placement: Placement, others: Sequence[Placement]) -> Iterator[Candidate]:
    """GPUs with more memory, the cheapest first."""
    for other in sorted(others, key=lambda other: (other.price, other.gpu.id)):
        if other.gpu.usable_bytes > placement.gpu.usable_bytes:
            yield Change(f"Use {other.gpu.id}", gpu_type=other.gpu.id), spec, other


def _more_gpus(spec: TrainingSpec, placement: Placement) -> Iterator[Candidate]:
    number = placement.number * 2
    while number <= 8:
        yield Change(f"Use {number} GPUs", gpu_count=number), spec, placement._replace(number=number)
        number *= 2

"""Plans the training of a job: fills in the options that the request leaves open, and lists them as assumptions. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from estimator_service.catalogue.base_models import Model, Tokenizer
from estimator_service.catalogue.gpus import Gpu, Traits
from estimator_service.catalogue.model import JobDefaults
from estimator_service.datasets.model import Dataset, Lengths, cut
from estimator_service.physics.evidence import Z90
from estimator_service.physics.workload import ATTENTION, Method, Precision, Stack, Workload

DEFAULT_LENGTH = 2048  # if the lengths of samples were not counted
MAX_LENGTH = 131_072
MIN_LENGTH = 128
MIN_VALIDATION = 20  # fewest samples of a validation fraction: the loss of fewer is too noisy
MAX_GPUS = 8  # of a job
LENGTH_MULTIPLE = 8  # lengths are padded to a multiple of it, for tensor cores


@dataclass(frozen=True, slots=True)
class Options:
    """The request's `training` options; None: left open."""

    method: Method | None = None
    sequence_length: int | None = None
    gradient_accumulation: int | None = None
    precision: Precision | None = None
    activation_checkpointing: bool | None = None
    packing: bool | None = None
    target_modules: tuple[str, ...] = ()
    stack: Stack | None = None
    validation_fraction: float | None = None
    early_stopping_patience: int | None = None
    seed: int | None = None
    validation_dataset_id: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """The training that a request asks for; `batch` is that of each GPU."""

    model: Model
    options: Options
    batch: int
    epochs: int
    rank: int


class Assumption(NamedTuple):
    """A field that was left open, the value that was assumed, and why."""

    field: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What one GPU trains in a step, and how much is trained; `sequences` are those of an epoch on all GPUs together."""

    workload: Workload
    lengths: Lengths
    sequences: float
    validation_sequences: float
    epochs: int
    length: int  # tokens at which samples are cut
    assumptions: tuple[Assumption, ...]
    doubts: tuple[str, ...]  # why the forecast may be far off

    @property
    def training_tokens(self) -> float:
        """Tokens of all epochs, without padding."""
        return self.sequences * (self.length if self.workload.packed else self.lengths.mean) * self.epochs


class _Filled(NamedTuple):
    """The part of a plan that depends on neither the model nor the rank."""

    method: Method
    precision: Precision
    length: int
    lengths: Lengths
    padded: tuple[float, ...]  # see Workload
    sequences: float
    validation_sequences: float
    assumptions: tuple[Assumption, ...]


def plan(spec: TrainingSpec, gpu: Gpu, dataset: Dataset, defaults: JobDefaults) -> Plan:
    """Returns the plan of a training on a GPU type with a dataset."""
    options, tokenizer = spec.options, spec.model.tokenizer
    counted, dataset = dataset, _in_own_tokens(dataset, tokenizer)
    filled = _filled(options, gpu.traits, spec.batch, dataset, defaults)
    packed, method, length = bool(options.packing), filled.method, filled.length
    workload = Workload(
        model=spec.model,
        method=method,
        rank=spec.rank,
        targets=options.target_modules or ATTENTION,
        batch=spec.batch,
        accumulation=options.gradient_accumulation or 1,
        length=length if packed else min(length, dataset.longest or length),
        tokens=None if packed else filled.lengths.mean,
        precision=filled.precision,
        checkpointing=options.activation_checkpointing is not False,
        flash_attention=not gpu.is_old,
        packed=packed,
        padded=filled.padded,
        stack=options.stack or "plain",
        weight_bits=4 if method == "qlora" else 16,
        token_spread=tokenizer.log_spread(dataset.script_tokens),
    )
    doubts = () if dataset.tokens and dataset.pairs else ("the dataset's tokens were not counted",)
    return Plan(
        workload, filled.lengths, filled.sequences, filled.validation_sequences, spec.epochs, length,
        filled.assumptions + _token_assumption(spec.model, counted, dataset), doubts,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _in_own_tokens(dataset: Dataset, tokenizer: Tokenizer) -> Dataset:
    ratio = tokenizer.ratio(dataset.script_tokens)
    return dataset if ratio == 1.0 else dataset.in_tokens(ratio)


def _token_assumption(model: Model, counted: Dataset, dataset: Dataset) -> tuple[Assumption, ...]:
    """Says how the tokens of the model's own tokenizer follow from those that were counted; empty if they are the same."""
    spread = model.tokenizer.log_spread(dataset.script_tokens)
    if not counted.tokens or not spread:
        return ()
    ratio = model.tokenizer.ratio(dataset.script_tokens)
    scripts = ", ".join(script for script, *_ in dataset.script_tokens) or "unknown script"
    reason = (
        f"{counted.tokens:,} with Mistral-7B's tokenizer, times {ratio:.2f} for {model.name}'s ({scripts}; "
        f"± {math.expm1(Z90 * spread):.0%} in four of five languages)"
    )
    return (Assumption("dataset.total_tokens", f"{dataset.tokens:,}", reason),)


@lru_cache(maxsize=1024)
def _filled(options: Options, traits: Traits, batch: int, dataset: Dataset, defaults: JobDefaults) -> _Filled:
    assumptions = list[Assumption]()

    def assume(field: str, value: str, reason: str) -> None:
        assumptions.append(Assumption(field, value, reason))

    method: Method = options.method or "lora"
    if options.method is None:
        assume("training.method", method, "the usual way to fine-tune")
    length = options.sequence_length or _length(dataset)
    if options.sequence_length is None:
        reason = "the longest sample of the dataset" if dataset.longest else "the lengths of samples were not counted"
        assume("training.sequence_length", str(length), reason)
    lengths = cut(
        dataset, length, default_pairs=defaults.default_pairs, default_tokens_per_pair=defaults.default_tokens_per_pair
    )
    if not dataset.tokens:
        assume("dataset.total_tokens", f"{lengths.tokens:.0f}", "the tokens were not counted")
    if not dataset.bins:
        assume("dataset.token_histogram", "every sample of the mean length", "the lengths were not counted")
    precision = _precision(options.precision, traits)
    if precision != options.precision:
        reason = (
            "the usual arithmetic" if options.precision is None else f"GPUs of this type have no {options.precision}"
        )
        assume("training.precision", precision, reason)
    for field, requested, value in (
        ("gradient_accumulation", options.gradient_accumulation, 1),
        ("activation_checkpointing", options.activation_checkpointing, True),
        ("packing", options.packing, False),
        ("stack", options.stack, "plain"),
    ):
        if requested is None:
            assume(f"training.{field}", str(value).lower(), "the usual setting")
    if not options.target_modules and method != "full":
        assume("training.target_modules", " ".join(f"{name}_proj" for name in ATTENTION), "the usual adapters")
    sequences = lengths.tokens / length if options.packing else float(lengths.samples)
    validation_pairs = dataset.validation_pairs
    if options.validation_fraction:
        # The trainer splits the samples in the same way: docs/trainers.md.
        samples = float(lengths.samples)
        validation_samples = min(max(MIN_VALIDATION, round(samples * options.validation_fraction)), samples - 1)
        validation = sequences * validation_samples / samples
        sequences -= validation
    elif options.validation_dataset_id and dataset.validation_tokens:
        # In sequences of the mean length: the time is proportional to the tokens.
        validation = dataset.validation_tokens / (length if options.packing else lengths.mean)
    elif validation_pairs:
        validation = sequences * validation_pairs / (dataset.pairs or defaults.default_pairs)
    else:
        # Without any of these the trainer does not validate.
        validation = 0.0
    assume("startup", f"{defaults.startup_seconds:.0f} s", "getting machines; loading the base model comes on top")
    padded = (1.0,) if options.packing else tuple(lengths.padding(batch * number) for number in range(1, MAX_GPUS + 1))
    return _Filled(method, precision, length, lengths, padded, sequences, validation, tuple(assumptions))


def _length(dataset: Dataset) -> int:
    """Returns the length of the longest sample, so that none is cut, as a multiple of LENGTH_MULTIPLE."""
    longest = min(MAX_LENGTH, max(MIN_LENGTH, dataset.longest or DEFAULT_LENGTH))
    return -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def default_precision(traits: Traits) -> Precision:
    """Returns the precision on a GPU type for requests without one."""
    return _precision(None, traits)


def _precision(requested: Precision | None, traits: Traits) -> Precision:
    """Returns the requested precision if the GPU type supports it, else the closest that it supports."""
    if requested == "fp8" and traits.fp8:
        return "fp8"
    return "bf16" if requested != "fp16" and traits.bf16 else "fp16"


def canonical(spec: TrainingSpec, planned: Plan) -> dict[str, object]:
    """Returns the configuration with all defaults filled in. Equivalent requests have equal ones."""
    w = planned.workload
    return {
        "base_model": spec.model.name,
        "training.method": w.method,
        "training.sequence_length": planned.length,
        "training.gradient_accumulation": w.accumulation,
        "training.precision": w.precision,
        "training.activation_checkpointing": w.checkpointing,
        "training.packing": w.packed,
        "training.target_modules": sorted(set(w.targets)) if w.method != "full" else [],
        "training.stack": w.stack,
        "training.validation_fraction": spec.options.validation_fraction or 0.0,
        "training.validation_dataset_id": spec.options.validation_dataset_id,
    }


def with_options(spec: TrainingSpec, **changes: object) -> TrainingSpec:
    """Returns the training with other options."""
    return replace(spec, options=replace(spec.options, **changes))  # type: ignore[arg-type] # fields known by name only

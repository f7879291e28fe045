"""Forecasts ↔ contract messages: what a base model adds to an estimate, both ways and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, get_args

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue import Dated, Offer
from estimator_service.cost import SECONDS_PER_HOUR, to_cents
from estimator_service.dataset import Dataset
from estimator_service.forecast import VERDICTS, Confidence, Numbers
from estimator_service.memory import GIB
from estimator_service.outlook import JobForecast
from estimator_service.parameters import fitted
from estimator_service.plan import Assumption, Options
from estimator_service.repairs import Change, Repair

VERDICT_VALUES = tuple(pb.MemoryVerdict.Value(f"MEMORY_VERDICT_{verdict.upper()}") for verdict in VERDICTS)
CONFIDENCES = {word: pb.Confidence.Value(f"CONFIDENCE_{word.upper()}") for word in get_args(Confidence)}
STACKS = {word: pb.SoftwareStack.Value(f"SOFTWARE_STACK_{word.upper()}") for word in ("plain", "tuned")}
TITLES = {
    "arithmetic": "matrix arithmetic",
    "memory_traffic": "moving activations and logits",
    "dequantisation": "unpacking 4-bit weights",
    "launch": "starting kernels",
    "communication": "exchanging data between GPUs",
    "optimizer": "updating weights",
}
INSIDE = "everything about it lies within the measured runs"


def options(training: pb.TrainingOptions) -> Options:
    """How a base model is to be trained."""
    given = {field.name: value for field, value in training.ListFields()}
    return Options(
        method=_word(pb.TrainingMethod, "TRAINING_METHOD_", given.get("method")),
        sequence_length=given.get("sequence_length"),
        gradient_accumulation=given.get("gradient_accumulation"),
        precision=_word(pb.Precision, "PRECISION_", given.get("precision")),
        activation_checkpointing=given.get("activation_checkpointing"),
        packing=given.get("packing"),
        target_modules=tuple(sorted(given.get("target_modules", ()))),
        stack=_word(pb.SoftwareStack, "SOFTWARE_STACK_", given.get("stack")),
    )


def answer(
    job: JobForecast,
    found: Sequence[Repair],
    dataset: Dataset,
    price: Dated,
    catalogue_version: str,
) -> pb.EstimateCostResponse:
    """An estimate of a job that names a base model, rounded. Its repairs are told by what they change."""
    seen, numbers = job.outlook, job.forecast.numbers
    return pb.EstimateCostResponse(
        estimated_cost=to_cents(seen.cost),
        cost_breakdown=pb.CostBreakdown(compute=to_cents(seen.compute), storage=to_cents(seen.storage)),
        estimated_duration_hours=to_cents(seen.hours),
        hourly_rate=to_cents(seen.hourly_rate),
        training_details=pb.TrainingDetails(
            total_steps=int(seen.total_steps),
            steps_per_epoch=int(seen.steps_per_epoch),
            estimated_throughput_tokens_per_sec=numbers.tokens_per_s,
            dataset_name=dataset.name,
        ),
        forecast=_forecast(job),
        memory=_memory(job),
        repairs=[_repair(repair, job) for repair in found],
        price=gpu_price(price),
        catalogue_version=catalogue_version,
    )


def _forecast(job: JobForecast) -> pb.Forecast:
    seen, planned = job.outlook, job.plan
    reason = "; ".join(job.doubts) or INSIDE
    rate = f"The GPUs cost {seen.hourly_rate:.2f} $/h."
    note = "Four of five such runs lie between P10 and P90." if job.is_quotable else f"Not a quote: {reason}. {rate}"
    return pb.Forecast(
        hours=pb.Range(p10=to_cents(seen.hours_p10), p50=to_cents(seen.hours), p90=to_cents(seen.hours_p90)),
        cost=pb.Range(p10=to_cents(seen.cost_p10), p50=to_cents(seen.cost), p90=to_cents(seen.cost_p90)),
        confidence=CONFIDENCES[job.confidence],
        confidence_reason=reason,
        is_quote=job.is_quotable,
        note=note,
        drivers=[
            pb.Driver(name=name, share=round(share, 4), title=TITLES[name]) for name, share in job.forecast.drivers
        ],
        split=pb.TimeSplit(
            startup=to_cents(seen.startup),
            training=to_cents(seen.training),
            validation=to_cents(seen.validation),
            save=to_cents(seen.save),
        ),
        assumptions=assumptions(planned.assumptions),
        learned_from_jobs=job.point.jobs,
        truncated_share=planned.lengths.truncated_share,
        padding_share=round(1.0 - 1.0 / (planned.workload.padded or 1.0), 4),
        seconds=pb.Range(
            p10=to_cents(seen.hours_p10 * SECONDS_PER_HOUR),
            p50=to_cents(seen.hours * SECONDS_PER_HOUR),
            p90=to_cents(seen.hours_p90 * SECONDS_PER_HOUR),
        ),
        overhead_seconds=to_cents((seen.startup + seen.save) * SECONDS_PER_HOUR),
        model_family=planned.workload.model.family,
        stack=STACKS[planned.workload.stack],
        correction=job.point.correction,
        slopes=job.forecast.features,
        model_version=fitted().version,
    )


def _memory(job: JobForecast) -> pb.MemoryForecast:
    used, usable = job.forecast.numbers.memory, job.point.gpu.usable_bytes
    return pb.MemoryForecast(
        verdict=VERDICT_VALUES[int(job.forecast.numbers.verdict)],
        total_gib=to_cents(used.total / GIB),
        usable_gib=to_cents(usable / GIB),
        headroom_gib=to_cents((usable - used.total) / GIB),
        margin_share=fitted().spread.memory_margin,
        weights_gib=to_cents(used.weights / GIB),
        adapters_gib=to_cents(used.adapters / GIB),
        gradients_gib=to_cents(used.gradients / GIB),
        optimizer_gib=to_cents(used.optimizer / GIB),
        activations_gib=to_cents(used.activations / GIB),
        logits_gib=to_cents(used.logits / GIB),
        overhead_gib=to_cents(used.overhead / GIB),
        longest_tokens=job.plan.workload.length,
        correction=job.point.memory,
        learned_from_jobs=job.point.peaks,
    )


def _repair(repair: Repair, now: JobForecast) -> pb.Repair:
    cost, hours = to_cents(repair.job.outlook.cost), to_cents(repair.job.outlook.hours)
    return pb.Repair(
        title=repair.change.title,
        patch=_patch(repair.change),
        estimated_cost=cost,
        cost_change=to_cents(cost - to_cents(now.outlook.cost)),
        estimated_duration_hours=hours,
        hours_change=to_cents(hours - to_cents(now.outlook.hours)),
        memory=_memory(repair.job),
    )


def _patch(change: Change) -> pb.ConfigurationPatch:
    patch = pb.ConfigurationPatch()
    if change.gpu_type is not None:
        patch.gpu_config.type = change.gpu_type
    if change.gpu_count is not None:
        patch.gpu_config.count = change.gpu_count
    if change.batch is not None:
        patch.hyperparameters.batch_size = change.batch
    for name, value in change.options.items():
        if name == "method":
            patch.training.method = pb.TrainingMethod.Value(f"TRAINING_METHOD_{value.upper()}")
        else:
            setattr(patch.training, name, value)
    return patch


@lru_cache(maxsize=1024)
def assumptions(named: tuple[Assumption, ...]) -> tuple[pb.Assumption, ...]:
    """What was filled in."""
    return tuple(pb.Assumption(field=each.field, value=each.value, reason=each.reason) for each in named)


def gpu_price(price: Dated) -> pb.GpuPrice:
    """A price with where it comes from."""
    return pb.GpuPrice(
        provider=price.provider if isinstance(price, Offer) else "",
        usd_per_hour=price.price_usd_per_hour,
        date=price.price_date.isoformat(),
        source=price.price_source,
    )


def memory_columns(numbers: Numbers) -> tuple[list[int], Any]:
    """Verdicts as the contract has them, and GiB unrounded, of a table of points."""
    verdicts = [VERDICT_VALUES[index] for index in numbers.verdict.astype(int).tolist()]
    return verdicts, numbers.memory.total / GIB


def _word(enum: Any, prefix: str, value: int | None) -> Any:
    return None if value is None else enum.Name(value).removeprefix(prefix).lower()

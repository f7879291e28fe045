"""Converts forecasts from and to messages of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, get_args

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue.model import GpuPrice
from estimator_service.catalogue.wire import gpu_price
from estimator_service.datasets.model import Dataset
from estimator_service.forecasts.job_forecast import JobForecast
from estimator_service.forecasts.plan import Assumption, Options
from estimator_service.forecasts.repairs import Change, Repair
from estimator_service.forecasts.warnings import SettingWarning
from estimator_service.physics.evidence import run_class
from estimator_service.physics.forecast import VERDICTS, Confidence
from estimator_service.physics.memory import GIB
from estimator_service.physics.parameters import fitted
from estimator_service.reference import SECONDS_PER_HOUR, to_cents

# Nested messages as dictionaries: protobuf builds them in place, in a third of the time of building and copying each.
Fields = dict[str, Any]
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
    "pipeline": "waiting for other pipeline stages",
}
NO_REPAIR = "It does not fit on any of our GPU types, with any known change or two together."
INSIDE = "everything about it lies within the measured runs"


def options(training: pb.TrainingOptions) -> Options:
    """Returns the options of a request."""
    fields = {field.name: value for field, value in training.ListFields()}
    return Options(
        method=_word(pb.TrainingMethod, "TRAINING_METHOD_", fields.get("method")),
        sequence_length=fields.get("sequence_length"),
        gradient_accumulation=fields.get("gradient_accumulation"),
        precision=_word(pb.Precision, "PRECISION_", fields.get("precision")),
        activation_checkpointing=fields.get("activation_checkpointing"),
        packing=fields.get("packing"),
        target_modules=tuple(sorted(fields.get("target_modules", ()))),
        stack=_word(pb.SoftwareStack, "SOFTWARE_STACK_", fields.get("stack")),
        validation_fraction=fields.get("validation_fraction"),
        early_stopping_patience=fields.get("early_stopping_patience"),
        seed=fields.get("seed"),
        validation_dataset_id=fields["validation_dataset_id"].lower() if "validation_dataset_id" in fields else None,
    )


def response(
    job: JobForecast,
    repairs: Sequence[Repair],
    dataset: Dataset,
    price: GpuPrice,
    catalogue_version: str,
    reference: float | None,
) -> pb.EstimateCostResponse:
    """Returns the estimate of a job that names a base model, rounded. `reference`: the reference estimate, US dollars."""
    totals, numbers = job.totals, job.forecast.numbers
    fields: Fields = {
        "estimated_cost": to_cents(totals.cost),
        "cost_breakdown": {"compute": to_cents(totals.compute), "storage": to_cents(totals.storage)},
        "estimated_duration_hours": to_cents(totals.hours),
        "hourly_rate": to_cents(totals.hourly_rate),
        "training_details": {
            "total_steps": int(totals.total_steps),
            "steps_per_epoch": int(totals.steps_per_epoch),
            "estimated_throughput_tokens_per_sec": numbers.tokens_per_s,
            "dataset_name": dataset.name,
        },
        "forecast": _forecast(job),
        "memory": _memory(job),
        "repairs": [_repair(repair, job) for repair in repairs],
        "price": gpu_price(price),
        "catalogue_version": catalogue_version,
        "basis": _basis(job, reference),
        "repairs_note": NO_REPAIR if job.forecast.verdict == "does_not_fit" and not repairs else None,
    }
    return pb.EstimateCostResponse(**fields)


def _effective_batch(job: JobForecast) -> int:
    w = job.plan.workload
    return w.batch * w.accumulation * job.point.count


def _steps_note(job: JobForecast) -> str:
    w, totals = job.plan.workload, job.totals
    factors = [f"{w.batch} samples a GPU"]
    factors += [f"{w.accumulation} added up"] * (w.accumulation > 1)
    factors += [f"{job.point.count} GPUs"] * (job.point.count > 1)
    unit = "sequences" if w.packed else "samples"
    return (
        f"{' × '.join(factors)} = {_effective_batch(job)} a step; "
        f"{job.plan.sequences:,.0f} {unit} are {totals.steps_per_epoch:,.0f} steps an epoch."
    )


def _basis(job: JobForecast, reference: float | None) -> str:
    w = job.plan.workload
    text = f"Forecast for {w.model.name}, {w.method}, on {job.point.count} × {job.point.gpu.id}."
    if reference is None:
        return text
    return (
        f"{text} Without a base model the estimate is ${to_cents(reference):.2f}: it takes one speed for a GPU type, "
        "whatever the model."
    )


def _startup(job: JobForecast) -> Fields:
    defaults, p50 = job.defaults, job.totals.startup * SECONDS_PER_HOUR
    load = p50 - defaults.startup_seconds
    return _range(defaults.startup_p10_seconds + load, p50, defaults.startup_p90_seconds + load)


def _forecast(job: JobForecast) -> Fields:
    totals, planned = job.totals, job.plan
    reason = "; ".join(job.doubts) or INSIDE
    rate = f"The GPUs cost ${totals.hourly_rate:.2f}/h."
    return {
        "hours": _range(totals.hours_p10, totals.hours, totals.hours_p90),
        "cost": _range(totals.cost_p10, totals.cost, totals.cost_p90),
        "confidence": CONFIDENCES[job.confidence],
        "confidence_reason": reason,
        "is_quote": job.is_quotable,
        "note": "Four of five such runs lie between P10 and P90."
        if job.is_quotable
        else f"Not a quote: {reason}. {rate}",
        "drivers": [
            {"name": name, "share": round(share, 4), "title": TITLES[name]} for name, share in job.forecast.drivers
        ],
        "split": {
            "startup": to_cents(totals.startup),
            "training": to_cents(totals.training),
            "validation": to_cents(totals.validation),
            "save": to_cents(totals.save),
        },
        "assumptions": assumptions((*planned.assumptions, *_sharding(job))),
        "learned_from_jobs": job.point.speed_jobs,
        "learned_software": job.point.software,
        "truncated_share": planned.lengths.truncated_share,
        "padding_share": round(1.0 - 1.0 / (planned.workload.padded or (1.0,))[0], 4),
        "seconds": _range(*(hours * SECONDS_PER_HOUR for hours in (totals.hours_p10, totals.hours, totals.hours_p90))),
        "overhead_seconds": to_cents((totals.startup + totals.save) * SECONDS_PER_HOUR),
        "model_family": planned.workload.model.family,
        "stack": STACKS[planned.workload.stack],
        "correction": job.point.speed_correction,
        "slopes": job.forecast.features,
        "model_version": fitted().version,
        "startup_seconds": _startup(job),
        "effective_batch": _effective_batch(job),
        "steps_note": _steps_note(job),
        "training_seconds": _range(*job.training_seconds),
        "validation_seconds": to_cents(totals.validation * SECONDS_PER_HOUR),
        "save_seconds": to_cents(totals.save * SECONDS_PER_HOUR),
        "fastest_training_seconds": to_cents(job.fastest_training_seconds),
        "training_tokens": round(planned.training_tokens),
        "range_sources": fitted().widths[run_class(planned.workload, job.point.gpu, job.point.count)].sources,
    }


def _sharding(job: JobForecast) -> tuple[Assumption, ...]:
    """Returns the parallelism that was chosen, as an assumption; none on one GPU."""
    count = job.point.count
    if count == 1:
        return ()
    if job.forecast.zero == 3:
        reason = (
            "a copy of the model does not fit on each GPU" if job.plan.workload.method != "full" else "the usual way"
        )
        return (Assumption("parallelism", f"weights sharded over {count} GPUs", reason),)
    return (Assumption("parallelism", f"data parallel on {count} GPUs", "a copy of the model fits on each GPU"),)


def _range(p10: float, p50: float, p90: float) -> Fields:
    return {"p10": to_cents(p10), "p50": to_cents(p50), "p90": to_cents(p90)}


def _memory(job: JobForecast) -> Fields:
    used, usable = job.forecast.numbers.peak, job.point.gpu.usable_bytes
    return {
        "verdict": VERDICT_VALUES[int(job.forecast.numbers.verdict)],
        **{f"{part}_gib": to_cents(size / GIB) for part, size in zip(used._fields, used, strict=True)},
        "usable_gib": to_cents(usable / GIB),
        "headroom_gib": to_cents((usable - used.total) / GIB),
        "margin_share": fitted().spread.memory_margin,
        "longest_tokens": job.plan.workload.length,
        "correction": job.point.memory_correction,
        "learned_from_jobs": job.point.memory_jobs,
        "sharded_over": job.point.count if job.forecast.zero == 3 else 1,
    }


def _repair(repair: Repair, now: JobForecast) -> Fields:
    cost, hours = to_cents(repair.job.totals.cost), to_cents(repair.job.totals.hours)
    return {
        "title": repair.change.title,
        "patch": _patch(repair.change),
        "estimated_cost": cost,
        "cost_change": to_cents(cost - to_cents(now.totals.cost)),
        "estimated_duration_hours": hours,
        "hours_change": to_cents(hours - to_cents(now.totals.hours)),
        "memory": _memory(repair.job),
    }


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


def warning(model: SettingWarning) -> pb.Warning:
    """Returns a warning as a message."""
    return pb.Warning(field=model.field, message=model.message, source=model.source)


@lru_cache(maxsize=1024)
def assumptions(models: tuple[Assumption, ...]) -> tuple[pb.Assumption, ...]:
    """Returns assumptions as messages."""
    return tuple(pb.Assumption(field=each.field, value=each.value, reason=each.reason) for each in models)


def _word(enum: Any, prefix: str, value: int | None) -> Any:
    return None if value is None else enum.Name(value).removeprefix(prefix).lower()

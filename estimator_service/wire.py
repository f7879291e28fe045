"""Contract messages ↔ the service's own models, both ways and nothing else."""

from __future__ import annotations

from functools import lru_cache

import protovalidate
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.timestamp_pb2 import Timestamp
from pipeline.estimator.v1 import estimator_pb2

from estimator_service.catalogue import Catalogue, CatalogueError, GpuType
from estimator_service.cost import Estimate, Run, to_cents
from estimator_service.datasets import Dataset
from rpc.errors import UnknownGpuType

# A longer name than any GPU's is not worth repeating to whoever sent it.
MAX_ECHO = 64


def gpu_type(config: estimator_pb2.GpuConfig, catalogue: Catalogue) -> GpuType:
    """The GPU type that a configuration names. Raises UnknownGpuType, which lists those there are."""
    found = catalogue.by_type.get(config.type)
    if found is None:
        asked = f"'{config.type}'" if len(config.type) <= MAX_ECHO else "this type"
        there_are = ", ".join(catalogue.by_type)
        raise UnknownGpuType([("gpu_config.type", f"{asked} is not in the catalogue; there are {there_are}")])
    return found


def run(request: estimator_pb2.EstimateCostRequest, gpu: GpuType, dataset: Dataset) -> Run:
    """What is to be trained on what."""
    return Run(
        pairs=dataset.pairs,
        tokens=dataset.tokens,
        price_usd_per_hour=gpu.price_usd_per_hour,
        tokens_per_second=gpu.tokens_per_second,
        gpu_count=request.gpu_config.count,
        batch_size=request.hyperparameters.batch_size,
        epochs=request.hyperparameters.epochs,
    )


def answer(found: Estimate, dataset: Dataset) -> estimator_pb2.EstimateCostResponse:
    """An estimate, rounded: the one place where money and hours are."""
    return estimator_pb2.EstimateCostResponse(
        estimated_cost=to_cents(found.total),
        cost_breakdown=estimator_pb2.CostBreakdown(compute=to_cents(found.compute), storage=to_cents(found.storage)),
        estimated_duration_hours=to_cents(found.hours),
        hourly_rate=to_cents(found.hourly_rate),
        training_details=estimator_pb2.TrainingDetails(
            total_steps=found.total_steps,
            steps_per_epoch=found.steps_per_epoch,
            estimated_throughput_tokens_per_sec=found.throughput,
            dataset_name=dataset.name,
        ),
    )


def catalogue(data: Catalogue) -> estimator_pb2.GetCatalogueResponse:
    """The catalogue with the limits of the contract. Raises CatalogueError where a preset or default is outside them."""
    try:
        answer = _catalogue(data)
    except ValueError as error:  # a number that no field of its kind can hold
        raise CatalogueError(f"catalogue: {error}") from error
    checked = {f"preset {preset.name}: hyperparameters": preset.hyperparameters for preset in answer.presets}
    for where, message in {**checked, "defaults.gpu_config": answer.defaults.gpu_config}.items():
        for violation in protovalidate.collect_violations(message):
            raise CatalogueError(f"catalogue: {where}: {violation.proto}".replace("\n", " "))
    return answer


def _catalogue(data: Catalogue) -> estimator_pb2.GetCatalogueResponse:
    effective_at = Timestamp()
    effective_at.FromDatetime(data.effective_at)
    return estimator_pb2.GetCatalogueResponse(
        gpu_types=[estimator_pb2.GpuType(**gpu.model_dump()) for gpu in data.gpu_types],
        presets=[
            estimator_pb2.Preset(
                id=_preset_id(preset.id),
                name=preset.name,
                description=preset.description,
                hyperparameters=estimator_pb2.Hyperparameters(**preset.hyperparameters.model_dump()),
            )
            for preset in data.presets
        ],
        limits=_limits(),
        sliders=[estimator_pb2.FieldSlider(**slider.model_dump()) for slider in data.sliders],
        defaults=estimator_pb2.FormDefaults(
            preset_id=_preset_id(data.defaults.preset_id),
            gpu_config=estimator_pb2.GpuConfig(**data.defaults.gpu_config.model_dump()),
        ),
        version=data.version,
        effective_at=effective_at,
    )


def _preset_id(word: str) -> estimator_pb2.PresetId.ValueType:
    return estimator_pb2.PresetId.Value(f"PRESET_ID_{word.upper()}")


@lru_cache(maxsize=1)
def _limits() -> list[estimator_pb2.FieldLimit]:
    groups = {
        "gpu_config": estimator_pb2.GpuConfig.DESCRIPTOR,
        "hyperparameters": estimator_pb2.Hyperparameters.DESCRIPTOR,
    }
    return [limit for path, message in groups.items() for limit in _limits_of(path, message)]


def _limits_of(path: str, message: Descriptor) -> list[estimator_pb2.FieldLimit]:
    """The numeric limits that the contract sets on a message's fields."""
    limits = []
    for field in message.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        kind = rules.WhichOneof("type")
        if kind not in ("int32", "double"):
            continue
        bounds = {bound.name: value for bound, value in getattr(rules, kind).ListFields()}
        limits.append(
            estimator_pb2.FieldLimit(
                field=f"{path}.{field.name}",
                min=bounds.get("gte", bounds.get("gt")),
                max=bounds.get("lte", bounds.get("lt")),
                min_exclusive="gt" in bounds,
                max_exclusive="lt" in bounds,
            )
        )
    return limits

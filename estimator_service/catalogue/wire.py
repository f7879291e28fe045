"""The catalogue and its prices as contract messages."""

from __future__ import annotations

from functools import lru_cache

import protovalidate
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.timestamp_pb2 import Timestamp
from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue import base_models, gpus
from estimator_service.catalogue.model import Catalogue, CatalogueError, GpuPrice, GpuType, ModelGpuType, Offer


def catalogue(data: Catalogue) -> pb.GetCatalogueResponse:
    """Returns the catalogue with the contract's limits. Raises CatalogueError if a preset or default is outside them."""
    try:
        response = _catalogue(data)
    except ValueError as error:  # a number that is out of the range of its field's type
        raise CatalogueError(f"catalogue: {error}") from error
    checked = {f"preset {preset.name}: hyperparameters": preset.hyperparameters for preset in response.presets}
    for where, message in {**checked, "defaults.gpu_config": response.defaults.gpu_config}.items():
        for violation in protovalidate.collect_violations(message):
            raise CatalogueError(f"catalogue: {where}: {violation.proto}".replace("\n", " "))
    return response


def _catalogue(data: Catalogue) -> pb.GetCatalogueResponse:
    effective_at = Timestamp()
    effective_at.FromDatetime(data.effective_at)
    return pb.GetCatalogueResponse(
        gpu_types=[_gpu_type(gpu) for gpu in data.gpu_types],
        model_gpu_types=[_gpu_type(gpu) for gpu in data.model_gpu_types],
        base_models=[_base_model(model) for model in base_models.all_models().values()],
        presets=[
            pb.Preset(
                id=preset_id(preset.id),
                name=preset.name,
                description=preset.description,
                hyperparameters=pb.Hyperparameters(**preset.hyperparameters.model_dump()),
            )
            for preset in data.presets
        ],
        limits=_limits(),
        sliders=[pb.FieldSlider(**slider.model_dump()) for slider in data.sliders],
        defaults=pb.FormDefaults(
            preset_id=preset_id(data.defaults.preset_id),
            gpu_config=pb.GpuConfig(**data.defaults.gpu_config.model_dump()),
        ),
        version=data.version,
        effective_at=effective_at,
        target_modules=_allowed_items(pb.TrainingOptions.DESCRIPTOR, "target_modules"),
    )


@lru_cache(maxsize=16)
def preset_id(word: str) -> pb.PresetId.ValueType:
    """Returns a preset's number in the contract."""
    return pb.PresetId.Value(f"PRESET_ID_{word.upper()}")


def _gpu_type(gpu: ModelGpuType) -> pb.GpuType:
    known = gpus.all_gpus().get(gpu.type)
    return pb.GpuType(
        type=gpu.type,
        name=gpu.name,
        price_usd_per_hour=gpu.price_usd_per_hour,
        tokens_per_second=gpu.tokens_per_second if isinstance(gpu, GpuType) else 0.0,
        memory_gb=known.memory_gb if known else gpu.memory_gb or 0.0,
        note=gpu.note,
        bandwidth_gb_s=known.bandwidth_gb_s if known else 0.0,
        tflops_16bit=known.fp16_tflops if known else 0.0,
        tflops_8bit=known.fp8_tflops if known else None,
        price_date=gpu.price_date.isoformat(),
        price_source=gpu.price_source,
        offers=[gpu_price(offer) for offer in gpu.offers],
    )


def _base_model(model: base_models.Model) -> pb.BaseModel:
    return pb.BaseModel(
        id=model.name,
        family=model.family,
        params_b=model.params_b,
        active_params_b=model.active_b or model.params_b,
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        ffn=model.ffn,
        vocab=model.vocab,
        experts=model.experts,
        aliases=model.aliases,
        source=model.source,
        target_modules=model.modules,
        license=model.license,
        context_tokens=model.context_tokens,
    )


@lru_cache(maxsize=1)
def _limits() -> list[pb.FieldLimit]:
    groups = {
        "gpu_config": pb.GpuConfig.DESCRIPTOR,
        "hyperparameters": pb.Hyperparameters.DESCRIPTOR,
        "training": pb.TrainingOptions.DESCRIPTOR,
    }
    return [limit for path, message in groups.items() for limit in _limits_of(path, message)]


def _limits_of(path: str, message: Descriptor) -> list[pb.FieldLimit]:
    """Returns the numeric limits that the contract sets on a message's fields."""
    limits = []
    for field in message.fields:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        kind = rules.WhichOneof("type")
        if kind not in ("int32", "double"):
            continue
        bounds = {bound.name: value for bound, value in getattr(rules, kind).ListFields()}
        limits.append(
            pb.FieldLimit(
                field=f"{path}.{field.name}",
                min=bounds.get("gte", bounds.get("gt")),
                max=bounds.get("lte", bounds.get("lt")),
                min_exclusive="gt" in bounds,
                max_exclusive="lt" in bounds,
            )
        )
    return limits


def _allowed_items(message: Descriptor, field: str) -> list[str]:
    """Returns the texts that the contract allows as items of a field."""
    rules = message.fields_by_name[field].GetOptions().Extensions[validate_pb2.field]
    return list(getattr(rules.repeated.items.string, "in"))


def gpu_price(price: GpuPrice) -> pb.GpuPrice:
    """Returns a price with its date and source."""
    return pb.GpuPrice(
        provider=price.provider if isinstance(price, Offer) else "",
        usd_per_hour=price.price_usd_per_hour,
        date=price.price_date.isoformat(),
        source=price.price_source,
    )

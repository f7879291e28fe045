"""Contract messages ↔ the service's own models, both ways and nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import protovalidate
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.timestamp_pb2 import Timestamp
from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue import base_models as models
from estimator_service.catalogue import gpus as hardware
from estimator_service.catalogue.catalogue import Catalogue, CatalogueError, GpuType, ModelGpuType
from estimator_service.datasets.model import Dataset
from estimator_service.errors import UnknownBaseModel, UnknownGpuType, UnknownProvider
from estimator_service.forecasts.plan import TrainingSpec
from estimator_service.forecasts.repairs import Placement
from estimator_service.forecasts.wire import gpu_price, options
from estimator_service.quotes.terms import Configuration
from estimator_service.reference import Estimate, to_cents
from rpc.errors import ValidationFailed

# A longer name than any GPU's is not worth repeating to whoever sent it.
MAX_ECHO = 64


class Configured(Protocol):
    """A request that names a configuration: EstimateCostRequest and CreateQuoteRequest have the same fields for it."""

    @property
    def dataset_id(self) -> str: ...
    @property
    def gpu_config(self) -> pb.GpuConfig: ...
    @property
    def hyperparameters(self) -> pb.Hyperparameters: ...
    @property
    def base_model(self) -> str: ...
    @property
    def training(self) -> pb.TrainingOptions: ...
    @property
    def provider(self) -> str: ...
    def SerializeToString(self) -> bytes: ...


def configuration(request: Configured, catalogue: Catalogue) -> Configuration:
    """What a request is about. Raises UnknownGpuType, UnknownBaseModel, UnknownProvider, ValidationFailed."""
    check_needs_base_model(request)
    model = base_model(request.base_model) if request.base_model else None
    for_models = model is not None
    known = usable_types(catalogue, for_models=for_models)
    gpu = known_type(request.gpu_config.type, known, catalogue, "gpu_config.type", for_models=for_models)
    price = gpu.price(request.provider)
    if price is None:
        there_are = ", ".join(offer.provider for offer in gpu.offers) or "none"
        raise UnknownProvider([("provider", f"has no offer for {gpu.type}; there are {there_are}")])
    how, count = request.hyperparameters, request.gpu_config.count
    return Configuration(
        gpu=gpu,
        gpu_count=count,
        price=price,
        provider=request.provider,
        batch=how.batch_size,
        epochs=how.epochs,
        spec=TrainingSpec(model, options(request.training), how.batch_size, how.epochs, how.rank) if model else None,
        placement=Placement(physics(gpu.type), count, price.price_usd_per_hour) if model else None,
    )


def hyperparameters(request: Configured) -> Mapping[str, Any]:
    """The hyperparameters that a request sets, by name."""
    return {field.name: value for field, value in request.hyperparameters.ListFields()}


def configuration_key(request: Configured) -> bytes:
    """The same for the same configuration."""
    return request.SerializeToString()


def check_needs_base_model(request: Configured | pb.CompareConfigurationsRequest) -> None:
    """Raises ValidationFailed where a request says how to train a base model, and names none."""
    if request.base_model:
        return
    beside = "training" if request.training.ListFields() else "provider" if getattr(request, "provider", "") else None
    if beside:
        raise ValidationFailed([("base_model", f"value is required beside {beside}")])


def base_model(name: str) -> models.Model:
    """The base model of a name. Raises UnknownBaseModel, which lists those that are spelled alike."""
    found = models.find(name)
    if found is None:
        asked = f"'{name}'" if len(name) <= MAX_ECHO else "this model"
        close = difflib.get_close_matches(name.lower(), list(models.catalogue()), n=5, cutoff=0.4)
        there_are = ", ".join(close or list(models.catalogue())[:10])
        raise UnknownBaseModel([("base_model", f"{asked} is not in the catalogue; try {there_are}")])
    return found


def usable_types(catalogue: Catalogue, *, for_models: bool) -> Mapping[str, ModelGpuType]:
    """GPU types by their id: those for every job, or those for jobs that name a base model."""
    return catalogue.by_type_for_models if for_models else catalogue.by_type


def known_type(
    name: str, known: Mapping[str, ModelGpuType], catalogue: Catalogue, path: str, *, for_models: bool
) -> ModelGpuType:
    """The GPU type of a name. Raises UnknownGpuType, which lists those there are."""
    found = known.get(name)
    if found is None:
        asked = f"'{name}'" if len(name) <= MAX_ECHO else "this type"
        why = "is not in the catalogue"
        if not for_models and name in catalogue.by_type_for_models:
            why = "is only for jobs that name a base_model"
        raise UnknownGpuType([(path, f"{asked} {why}; there are {', '.join(known)}")])
    return found


def physics(gpu_type: str) -> hardware.Gpu:
    """What is known of a GPU type that jobs with a base model can use."""
    return hardware.catalogue()[gpu_type]


def gpus_for_models(catalogue: Catalogue) -> list[tuple[hardware.Gpu, ModelGpuType]]:
    """Every GPU type for jobs that name a base model."""
    return [(physics(entry.type), entry) for entry in catalogue.by_type_for_models.values()]


def reference_template(gpu: GpuType, version: str) -> pb.EstimateCostResponse:
    """What every reference estimate of a GPU type says, by a version of the catalogue."""
    return pb.EstimateCostResponse(price=gpu_price(gpu), catalogue_version=version)


def answer(template: pb.EstimateCostResponse, found: Estimate, dataset: Dataset) -> pb.EstimateCostResponse:
    """A reference estimate, rounded. It goes on from a copy: making the same messages anew takes twice as long."""
    answer = pb.EstimateCostResponse()
    answer.CopyFrom(template)
    answer.estimated_cost = to_cents(found.total)
    answer.estimated_duration_hours = to_cents(found.hours)
    answer.hourly_rate = to_cents(found.hourly_rate)
    costs, details = answer.cost_breakdown, answer.training_details
    costs.compute, costs.storage = to_cents(found.compute), to_cents(found.storage)
    details.total_steps, details.steps_per_epoch = found.total_steps, found.steps_per_epoch
    details.estimated_throughput_tokens_per_sec = found.throughput
    details.dataset_name = dataset.name
    return answer


def catalogue(data: Catalogue) -> pb.GetCatalogueResponse:
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


def _catalogue(data: Catalogue) -> pb.GetCatalogueResponse:
    effective_at = Timestamp()
    effective_at.FromDatetime(data.effective_at)
    return pb.GetCatalogueResponse(
        gpu_types=[_gpu_type(gpu) for gpu in data.gpu_types],
        model_gpu_types=[_gpu_type(gpu) for gpu in data.model_gpu_types],
        base_models=[_base_model(model) for model in models.catalogue().values()],
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
        target_modules=_words_of(pb.TrainingOptions.DESCRIPTOR, "target_modules"),
    )


@lru_cache(maxsize=16)
def preset_id(word: str) -> pb.PresetId.ValueType:
    """A preset's number in the contract."""
    return pb.PresetId.Value(f"PRESET_ID_{word.upper()}")


def _gpu_type(gpu: ModelGpuType) -> pb.GpuType:
    known = hardware.catalogue().get(gpu.type)
    return pb.GpuType(
        type=gpu.type,
        name=gpu.name,
        price_usd_per_hour=gpu.price_usd_per_hour,
        tokens_per_second=gpu.tokens_per_second if isinstance(gpu, GpuType) else 0.0,
        memory_gb=gpu.memory_gb,
        note=gpu.note,
        bandwidth_gb_s=known.bandwidth_gb_s if known else 0.0,
        tflops_16bit=known.fp16_tflops if known else 0.0,
        tflops_8bit=known.fp8_tflops if known else None,
        price_date=gpu.price_date.isoformat(),
        price_source=gpu.price_source,
        offers=[gpu_price(offer) for offer in gpu.offers],
    )


def _base_model(model: models.Model) -> pb.BaseModel:
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
    """The numeric limits that the contract sets on a message's fields."""
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


def _words_of(message: Descriptor, field: str) -> list[str]:
    """The words that the contract allows as items of a field."""
    rules = message.fields_by_name[field].GetOptions().Extensions[validate_pb2.field]
    return list(getattr(rules.repeated.items.string, "in"))

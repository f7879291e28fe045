"""Reads a request for an estimate or quote: looks its GPU type, price and base model up, and refuses unknown names.

The forecast of the configuration is made in `plan.py` (what is trained), then `job_forecast.py` (time and cost).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue import base_models, gpus
from estimator_service.catalogue.model import Catalogue, ModelGpuType
from estimator_service.errors import UnknownBaseModel, UnknownGpuType, UnknownProvider
from estimator_service.forecasts.configuration import JobConfiguration, Placement
from estimator_service.forecasts.plan import TrainingSpec
from estimator_service.forecasts.wire import options
from rpc.errors import ValidationFailed

# Longer names are not quoted in error messages.
MAX_QUOTED_CHARACTERS = 64

ConfiguredRequest = pb.EstimateCostRequest | pb.CreateQuoteRequest


def job_configuration(request: ConfiguredRequest, catalogue: Catalogue) -> JobConfiguration:
    """Returns a request's configuration. Raises UnknownGpuType, UnknownBaseModel, UnknownProvider, ValidationFailed."""
    check_needs_base_model(request)
    model = base_model(request.base_model) if request.base_model else None
    for_models = model is not None
    types = usable_types(catalogue, for_models=for_models)
    gpu = gpu_type(request.gpu_config.type, types, catalogue, "gpu_config.type", for_models=for_models)
    price = gpu.price(request.provider)
    if price is None:
        providers = ", ".join(offer.provider for offer in gpu.offers) or "none"
        raise UnknownProvider([("provider", f"has no offer for {gpu.type}; there are {providers}")])
    values, count = request.hyperparameters, request.gpu_config.count
    spec = placement = None
    if model:
        check_target_modules(request.training, model)
        check_validation(request.training, request.dataset_id)
        spec = TrainingSpec(model, options(request.training), values.batch_size, values.epochs, values.rank)
        placement = Placement(gpus.all_gpus()[gpu.type], count, price.price_usd_per_hour)
    return JobConfiguration(
        gpu=gpu,
        gpu_count=count,
        price=price,
        provider=request.provider,
        batch=values.batch_size,
        epochs=values.epochs,
        learning_rate=values.learning_rate,
        spec=spec,
        placement=placement,
    )


def hyperparameters(request: ConfiguredRequest) -> Mapping[str, Any]:
    """Returns the hyperparameters that a request sets, by name."""
    return {field.name: value for field, value in request.hyperparameters.ListFields()}


def check_needs_base_model(request: ConfiguredRequest | pb.CompareConfigurationsRequest) -> None:
    """Raises ValidationFailed if a request has fields that need a base model, but no base model."""
    if request.base_model:
        return
    field = "training" if request.training.ListFields() else "provider" if getattr(request, "provider", "") else None
    if field:
        raise ValidationFailed([("base_model", f"value is required beside {field}")])


def base_model(name: str) -> base_models.Model:
    """Returns the base model of a name. Raises UnknownBaseModel, which lists models of similar names."""
    model = base_models.find(name)
    if model is None:
        quoted = f"'{name}'" if len(name) <= MAX_QUOTED_CHARACTERS else "this model"
        similar = difflib.get_close_matches(name.lower(), list(base_models.all_models()), n=5, cutoff=0.4)
        choices = ", ".join(similar or list(base_models.all_models())[:10])
        raise UnknownBaseModel([("base_model", f"{quoted} is not in the catalogue; try {choices}")])
    return model


def check_target_modules(training: pb.TrainingOptions, model: base_models.Model) -> None:
    """Raises ValidationFailed, which lists the model's modules, for modules that it does not have."""
    wrong = [
        (
            f"training.target_modules[{index}]",
            f"{model.name} has no {name}; it has {', '.join(model.modules)}; all-linear means all of them",
        )
        for index, name in enumerate(training.target_modules)
        if name != "all-linear" and name not in model.modules
    ]
    if wrong:
        raise ValidationFailed(wrong)


def check_validation(training: pb.TrainingOptions, dataset_id: str) -> None:
    """Raises ValidationFailed for validation data from two sources, and for early stopping without any."""
    has_dataset, has_fraction = bool(training.validation_dataset_id), training.validation_fraction > 0
    if has_dataset and has_fraction:
        raise ValidationFailed([("training.validation_dataset_id", "excludes validation_fraction; choose one")])
    if has_dataset and training.validation_dataset_id.lower() == dataset_id.lower():
        raise ValidationFailed([("training.validation_dataset_id", "is the dataset that the job trains on")])
    if training.early_stopping_patience and not (has_dataset or has_fraction):
        text = "value is for jobs with validation_fraction or validation_dataset_id"
        raise ValidationFailed([("training.early_stopping_patience", text)])


def usable_types(catalogue: Catalogue, *, for_models: bool) -> Mapping[str, ModelGpuType]:
    """Returns the GPU types for jobs with or without a base model, by id."""
    return catalogue.by_type_for_models if for_models else catalogue.by_type


def gpu_type(
    name: str, types: Mapping[str, ModelGpuType], catalogue: Catalogue, path: str, *, for_models: bool
) -> ModelGpuType:
    """Returns the GPU type of a name. Raises UnknownGpuType, which lists the types, for the field `path`."""
    gpu = types.get(name)
    if gpu is None:
        quoted = f"'{name}'" if len(name) <= MAX_QUOTED_CHARACTERS else "this type"
        reason = "is not in the catalogue"
        if not for_models and name in catalogue.by_type_for_models:
            reason = "is only for jobs that name a base_model"
        raise UnknownGpuType([(path, f"{quoted} {reason}; there are {', '.join(types)}")])
    return gpu

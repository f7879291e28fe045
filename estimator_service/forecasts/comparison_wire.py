"""Converts comparisons from and to messages of the contract."""

from __future__ import annotations

from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue.base_models import Model
from estimator_service.catalogue.gpus import all_gpus
from estimator_service.catalogue.model import Catalogue, ModelGpuType
from estimator_service.catalogue.wire import preset_id
from estimator_service.datasets.model import Dataset
from estimator_service.errors import TooManyPoints
from estimator_service.forecasts import requests
from estimator_service.forecasts.comparison import MAX_POINTS, Choice, Comparison, Grid, best, pareto
from estimator_service.forecasts.plan import TrainingSpec
from estimator_service.forecasts.wire import VERDICT_VALUES, assumptions, options
from rpc.errors import ValidationFailed

DEFAULT_COUNTS = (1, 2, 4, 8)
PREFIX = "PRESET_ID_"


def grid(request: pb.CompareConfigurationsRequest, catalogue: Catalogue) -> Grid:
    """Returns the points of a request. Raises UnknownGpuType, UnknownBaseModel, TooManyPoints, ValidationFailed."""
    requests.check_needs_base_model(request)
    model = requests.base_model(request.base_model) if request.base_model else None
    if model:
        requests.check_target_modules(request.training, model)
        requests.check_validation(request.training, request.dataset_id)
    types, counts = _types(request, catalogue, for_models=model is not None), list(request.gpu_counts or DEFAULT_COUNTS)
    choices = _choices(request, catalogue, model)
    points = len(types) * len(counts) * len(choices)
    if points > MAX_POINTS:
        product = f"{len(types)} GPU types by {len(counts)} counts by {len(choices)} presets are {points} points"
        raise TooManyPoints([("gpu_types", f"{product}; at most {MAX_POINTS} are compared in one call")])
    machines = [all_gpus()[entry.type] for entry in types] if model else None
    return Grid(types, machines, counts, choices)


def response(
    request: pb.CompareConfigurationsRequest, compared: Grid, comparison: Comparison, dataset: Dataset, version: str
) -> pb.CompareConfigurationsResponse:
    """Returns a comparison as a message."""
    forecast = comparison.plan is not None
    configurations = [
        (pb.GpuConfig(type=entry.type, count=count), preset_id(choice.preset_id))
        for entry in compared.types
        for count in compared.counts
        for choice in compared.choices
    ]
    rows = zip(
        configurations,
        comparison.cost.tolist(),
        comparison.hours.tolist(),
        comparison.hourly_rate.tolist(),
        comparison.cost_p10.tolist(),
        comparison.cost_p90.tolist(),
        comparison.hours_p10.tolist(),
        comparison.hours_p90.tolist(),
        comparison.verdicts.tolist(),
        comparison.memory_gib.tolist(),
        comparison.quotable,
        pareto(comparison).tolist(),
        strict=True,
    )
    points = [
        pb.ComparisonPoint(
            gpu_config=gpu_config,
            preset_id=preset,
            estimated_cost=cost,
            estimated_duration_hours=hours,
            hourly_rate=rate,
            cost_p10=cost_p10 if forecast else None,
            cost_p90=cost_p90 if forecast else None,
            hours_p10=hours_p10 if forecast else None,
            hours_p90=hours_p90 if forecast else None,
            verdict=VERDICT_VALUES[verdict] if forecast else None,
            memory_gib=gib if forecast else None,
            is_quote=quotable,
            is_pareto=best,
        )
        for (gpu_config, preset), cost, hours, rate, cost_p10, cost_p90, hours_p10, hours_p90, verdict, gib, quotable, best
        in rows
    ]  # fmt: skip
    return pb.CompareConfigurationsResponse(
        points=points,
        **best(
            comparison,
            request.deadline_hours if request.HasField("deadline_hours") else None,
            request.budget_usd if request.HasField("budget_usd") else None,
        ),
        dataset_name=dataset.name,
        catalogue_version=version,
        assumptions=assumptions(comparison.plan.assumptions) if comparison.plan else [],
    )


def _types(request: pb.CompareConfigurationsRequest, catalogue: Catalogue, *, for_models: bool) -> list[ModelGpuType]:
    usable = requests.usable_types(catalogue, for_models=for_models)
    names = list(request.gpu_types) or list(usable)
    return [
        requests.gpu_type(name, usable, catalogue, f"gpu_types[{index}]", for_models=for_models)
        for index, name in enumerate(names)
    ]


def _choices(request: pb.CompareConfigurationsRequest, catalogue: Catalogue, model: Model | None) -> list[Choice]:
    own = request.hyperparameters if request.HasField("hyperparameters") else None
    presets = {preset_id(preset.id): preset for preset in catalogue.presets}
    preset_numbers = list(request.preset_ids) or ([pb.PRESET_ID_CUSTOM] if own else list(presets))
    choices = []
    for index, number in enumerate(preset_numbers):
        if number == pb.PRESET_ID_CUSTOM and own is None:
            raise ValidationFailed([("hyperparameters", "value is required for the preset custom")])
        if number != pb.PRESET_ID_CUSTOM and number not in presets:
            raise ValidationFailed([(f"preset_ids[{index}]", "is not in the catalogue")])
        values = own if number == pb.PRESET_ID_CUSTOM else presets[number].hyperparameters
        assert values is not None
        spec = (
            TrainingSpec(model, options(request.training), values.batch_size, values.epochs, values.rank)
            if model
            else None
        )
        word = pb.PresetId.Name(number).removeprefix(PREFIX).lower()
        choices.append(Choice(word, values.batch_size, values.epochs, spec))
    return choices

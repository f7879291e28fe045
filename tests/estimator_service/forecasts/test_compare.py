"""Comparisons, through the real door."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue.model import read_catalogue
from estimator_service.errors import TooManyPoints
from estimator_service.forecasts import comparison_wire
from estimator_service.forecasts.comparison import cents
from estimator_service.reference import to_cents
from estimator_service.settings import EstimatorSettings
from tests.conftest import NewDataset, Stack, metadata
from tests.estimator_service.requests import ANN, BALANCED, BOB, LLAMA, refusal

CATALOGUE = Path(EstimatorSettings.model_fields["catalogue_file"].default)
PRESETS = ["PRESET_ID_FAST", "PRESET_ID_BALANCED", "PRESET_ID_QUALITY", "PRESET_ID_CUSTOM"]


def new_request(dataset_id: str, **fields: Any) -> pb.CompareConfigurationsRequest:
    """An 8B model on everything there is, in every preset."""
    return pb.CompareConfigurationsRequest(
        **{
            "dataset_id": dataset_id,
            "base_model": LLAMA,
            "gpu_counts": range(1, 9),
            "preset_ids": PRESETS,
            "hyperparameters": {**BALANCED, "batch_size": 16},
            **fields,
        }
    )


@pytest.mark.parametrize("base_model", [LLAMA, None])
async def test_every_point_is_a_single_estimate_to_the_digit(
    stack: Stack, new_dataset: NewDataset, base_model: str | None
) -> None:
    """Each point has exactly the figures that EstimateCost gives for it, with and without a base model."""
    dataset = await new_dataset(ANN)
    result = await stack.estimator.CompareConfigurations(
        new_request(dataset, base_model=base_model, gpu_counts=[1, 3, 8]), metadata=metadata(ANN)
    )
    shown = await stack.estimator.GetCatalogue(pb.GetCatalogueRequest(), metadata=metadata(ANN))
    presets = {preset.id: preset.hyperparameters for preset in shown.presets}
    presets[pb.PRESET_ID_CUSTOM] = pb.Hyperparameters(**{**BALANCED, "batch_size": 16})
    assert len(result.points) == (11 if base_model else 4) * 3 * 4
    for point in result.points:
        single = pb.EstimateCostRequest(
            dataset_id=dataset,
            gpu_config=point.gpu_config,
            hyperparameters=presets[point.preset_id],
            base_model=base_model,
        )
        one = await stack.estimator.EstimateCost(single, metadata=metadata(ANN))
        assert (point.estimated_cost, point.estimated_duration_hours, point.hourly_rate) == (
            one.estimated_cost, one.estimated_duration_hours, one.hourly_rate
        )  # fmt: skip
        if base_model:
            cost, hours = one.forecast.cost, one.forecast.hours
            assert (point.cost_p10, point.cost_p90, point.hours_p10, point.hours_p90) == (
                cost.p10, cost.p90, hours.p10, hours.p90
            )  # fmt: skip
            assert (point.verdict, point.memory_gib, point.is_quote) == (
                one.memory.verdict, one.memory.total_gib, one.forecast.is_quote
            )  # fmt: skip
        else:
            assert not point.HasField("cost_p10")
            assert not point.HasField("verdict")


async def test_the_pareto_front_and_the_goals_hold(stack: Stack, new_dataset: NewDataset) -> None:
    """No fitting point beats one of the front; a goal's point meets it, and no cheaper (faster) point does."""
    request = new_request(await new_dataset(ANN), base_model="llama-3.1-70b", deadline_hours=8, budget_usd=40)
    result = await stack.estimator.CompareConfigurations(request, metadata=metadata(ANN))
    points = list(result.points)
    fitting = [point for point in points if point.verdict != pb.MEMORY_VERDICT_DOES_NOT_FIT]
    assert 0 < len(fitting) < len(points)
    for point in points:
        beaten = any(
            other.estimated_cost <= point.estimated_cost
            and other.estimated_duration_hours <= point.estimated_duration_hours
            and (other.estimated_cost, other.estimated_duration_hours)
            != (point.estimated_cost, point.estimated_duration_hours)
            for other in fitting
        )
        assert point.is_pareto == (point in fitting and not beaten)
    cheap, fast = points[result.cheapest_under_deadline], points[result.fastest_under_budget]
    assert cheap.hours_p90 <= 8
    assert cheap.estimated_cost == min(point.estimated_cost for point in fitting if point.hours_p90 <= 8)
    assert fast.cost_p90 <= 40
    best = min(point.estimated_duration_hours for point in fitting if point.cost_p90 <= 40)
    assert fast.estimated_duration_hours == best
    quoted = [point for point in fitting if point.is_quote]
    assert points[result.cheapest] in quoted
    assert points[result.cheapest].estimated_cost == min(point.estimated_cost for point in quoted)
    assert points[result.fastest] in quoted
    assert points[result.fastest].estimated_duration_hours == min(point.estimated_duration_hours for point in quoted)


async def test_a_goal_that_nothing_meets_has_no_answer(stack: Stack, new_dataset: NewDataset) -> None:
    """A deadline of a minute and a budget of a cent are met by no point: the answer says none, not the nearest."""
    request = new_request(await new_dataset(ANN), deadline_hours=0.01, budget_usd=0.01)
    result = await stack.estimator.CompareConfigurations(request, metadata=metadata(ANN))
    assert not result.HasField("cheapest_under_deadline")
    assert not result.HasField("fastest_under_budget")
    request = new_request(
        await new_dataset(ANN), base_model="llama-3.1-405b", gpu_types=["V100-32GB"], gpu_counts=[1], preset_ids=[1]
    )
    result = await stack.estimator.CompareConfigurations(request, metadata=metadata(ANN))
    assert not result.HasField("cheapest")
    assert not result.HasField("fastest")


async def test_defaults_are_everything_usable(stack: Stack, new_dataset: NewDataset) -> None:
    """Nothing but a dataset compares the four reference types in 1, 2, 4 and 8 over the three presets."""
    request = pb.CompareConfigurationsRequest(dataset_id=await new_dataset(ANN))
    result = await stack.estimator.CompareConfigurations(request, metadata=metadata(ANN))
    assert len(result.points) == 4 * 4 * 3
    assert any(point.is_pareto for point in result.points)


@pytest.mark.parametrize(
    ("fields", "reason", "path"),
    [
        ({"gpu_types": ["H100", "h100"]}, "UNKNOWN_GPU_TYPE", "gpu_types[1]"),
        ({"gpu_types": ["x" * 1000]}, "UNKNOWN_GPU_TYPE", "gpu_types[0]"),
        ({"gpu_types": ["H100", "H100"]}, "VALIDATION_FAILED", "gpu_types"),
        ({"gpu_counts": [9]}, "VALIDATION_FAILED", "gpu_counts[0]"),
        ({"preset_ids": ["PRESET_ID_CUSTOM"], "hyperparameters": None}, "VALIDATION_FAILED", "hyperparameters"),
        ({"hyperparameters": {"batch_size": 4}}, "VALIDATION_FAILED", "hyperparameters.epochs"),
        ({"base_model": "gpt-5"}, "UNKNOWN_BASE_MODEL", "base_model"),
        ({"base_model": None, "training": {"packing": True}}, "VALIDATION_FAILED", "base_model"),
        *[
            ({field: value}, "VALIDATION_FAILED", field)
            for field in ("deadline_hours", "budget_usd")
            for value in (float("nan"), float("inf"), -0.0, 1e308)
        ],
    ],
)
async def test_bad_comparisons_name_their_field(stack: Stack, fields: dict[str, Any], reason: str, path: str) -> None:
    """E01 and E04: what is unknown or outside its limits is INVALID_ARGUMENT and names its field."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.estimator.CompareConfigurations(new_request(str(uuid.uuid4()), **fields), metadata=metadata(ANN))
    code, why, error = refusal(refused.value)
    assert (code, why) == ("INVALID_ARGUMENT", reason)
    assert path in error


async def test_others_datasets_are_absent(stack: Stack, new_dataset: NewDataset) -> None:
    """E09: a comparison over another user's dataset gets the answer of one that never was."""
    dataset = await new_dataset(ANN)
    await stack.estimator.CompareConfigurations(new_request(dataset), metadata=metadata(ANN))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.estimator.CompareConfigurations(new_request(dataset), metadata=metadata(BOB))
    assert refusal(refused.value)[:2] == ("NOT_FOUND", "DATASET_NOT_FOUND")


@given(st.lists(st.one_of(st.floats(0, 1e9), st.floats(0, 1e15), st.integers(0, 10**6).map(lambda n: n / 1000))))
def test_cents_of_a_table_are_those_of_each(amounts: list[float]) -> None:
    """Rounding many amounts at once gives each the digits that it gets alone, halves included."""
    assert cents(np.array(amounts, dtype=float)).tolist() == [to_cents(amount) for amount in amounts]


async def test_equal_input_gets_equal_bits(stack: Stack, new_dataset: NewDataset) -> None:
    """E06: the same comparison twice gives the same bytes."""
    request = new_request(await new_dataset(ANN))
    first, second = [
        await stack.estimator.CompareConfigurations(request, metadata=metadata(ANN)) for _ in range(2)
    ]  # fmt: skip
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_full_estimate_is_configured_alike() -> None:
    """The two requests that name one configuration agree on every field of it, number by number."""
    plain, quoted = pb.EstimateCostRequest.DESCRIPTOR, pb.CreateQuoteRequest.DESCRIPTOR
    assert {field.name: field.number for field in quoted.fields}.items() <= {
        field.name: field.number for field in plain.fields
    }.items()


@pytest.mark.parametrize(("types", "fits"), [(16, True), (17, False)])
def test_at_most_512_points_are_compared(tmp_path: Path, types: int, fits: bool) -> None:
    """E07: 512 points are taken, more are refused before anything is read or computed, and the refusal counts them."""
    text = CATALOGUE.read_text()
    start = text.index("[[gpu_types]]")
    entry = text[start : text.index("[[gpu_types]]", start + 1)]
    more = "".join(entry.replace('"A100-80GB"', f'"X{number}"\nmemory_gb = 80') for number in range(types - 4))
    file = tmp_path / "catalogue.toml"
    file.write_text(text[:start] + more + text[start:])
    catalogue = read_catalogue(file)
    request = new_request(str(uuid.uuid4()), base_model=None)
    if fits:
        grid = comparison_wire.grid(request, catalogue)
        assert len(grid.types) * len(grid.counts) * len(grid.choices) == 512
        return
    with pytest.raises(TooManyPoints) as refused:
        comparison_wire.grid(request, catalogue)
    assert "are 544 points" in refused.value.violations[0][1]

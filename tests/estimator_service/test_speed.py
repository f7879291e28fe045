"""What forecasts and comparisons cost, in processor time, which other work on the machine does not change."""

from __future__ import annotations

import gc
import itertools
import time
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import orjson
import pytest
from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue import base_models, gpus
from estimator_service.catalogue.model import Catalogue
from estimator_service.datasets.model import Dataset
from estimator_service.forecasts import comparison_wire
from estimator_service.forecasts.comparison import compare
from estimator_service.learning.corrections import FinishedJob, correct_for
from estimator_service.physics.forecast import Point, features
from estimator_service.physics.workload import Workload
from estimator_service.settings import EstimatorSettings
from tests.conftest import NewDataset, Stack, TestDatabase, metadata, open_stack
from tests.estimator_service.requests import ANN, BALANCED, LLAMA, configuration

pytestmark = pytest.mark.slow
COUNTED = orjson.dumps([[128, 1000], [256, 2500], [512, 1200], [2048, 300]]).decode()


@pytest.fixture(autouse=True)
def frozen_heap() -> Iterator[None]:
    """Keeps what earlier tests left on the heap out of collections, as a server does with what it has loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def cpu_seconds(call: Callable[[], Awaitable[object]], *, calls: int, rounds: int = 5) -> float:
    """Processor time of one call: the best of some rounds."""
    values = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            await call()
        values.append((time.process_time() - started) / calls)
    return min(values)


async def turn_by_turn(*calls: Callable[[], Awaitable[object]]) -> list[float]:
    """Processor time of some calls, the best of many rounds in turn: whatever else the machine does meets all of them."""
    rounds = [[await cpu_seconds(call, calls=20, rounds=1) for call in calls] for _ in range(25)]
    result = [min(each) for each in zip(*rounds, strict=True)]
    print(*(f"{1e6 * each:.0f} µs" for each in result))
    return result


async def test_a_forecast_costs_at_most_half_as_much_again(stack: Stack, new_dataset: NewDataset) -> None:
    """EstimateCost with a base model takes at most 1.5 times the processor time of the reference estimate."""
    dataset = await new_dataset(ANN, longest_tokens=2048, token_histogram=COUNTED)
    credentials = metadata(ANN)
    plain = pb.EstimateCostRequest(**configuration(dataset))
    forecast = pb.EstimateCostRequest(**configuration(dataset, base_model=LLAMA))
    before, after = await turn_by_turn(
        lambda: stack.estimator.EstimateCost(plain, metadata=credentials),
        lambda: stack.estimator.EstimateCost(forecast, metadata=credentials),
    )
    assert after < 1.5 * before


async def test_a_forecast_of_a_new_configuration_costs_less_than_two_reference_estimates(
    new_dataset: NewDataset, database: TestDatabase, tmp_path: Path
) -> None:
    """Over gRPC a forecast of a configuration that was not requested before takes less than twice the reference's time.

    It answers with a plan, a split of the time and what they are based on; 1.4 to 1.65 were measured.
    """
    async with open_stack("grpc", database.url, tmp_path) as stack:
        dataset = await new_dataset(ANN, longest_tokens=2048, token_histogram=COUNTED)
        credentials, ranks = metadata(ANN), itertools.count()

        async def ask(**fields: str) -> None:
            number = next(ranks)
            odd = {**BALANCED, "rank": 4 + number % 125, "epochs": 1 + number // 125 % 20}
            request = pb.EstimateCostRequest(**configuration(dataset, hyperparameters=odd, **fields))
            await stack.estimator.EstimateCost(request, metadata=credentials)

        before, after = await turn_by_turn(ask, lambda: ask(base_model=LLAMA))
        assert after < 2 * before


async def test_the_largest_comparison_takes_ten_milliseconds(stack: Stack, new_dataset: NewDataset) -> None:
    """E07: every GPU type in every count and preset is compared in under 10 ms of processor time, all of it."""
    dataset = await new_dataset(ANN, longest_tokens=2048, token_histogram=COUNTED)
    request = pb.CompareConfigurationsRequest(
        dataset_id=dataset, base_model=LLAMA, gpu_counts=range(1, 9), preset_ids=[1, 2, 3, 4],
        hyperparameters=BALANCED, deadline_hours=8, budget_usd=100,
    )  # fmt: skip
    credentials = metadata(ANN)
    answer = await stack.estimator.CompareConfigurations(request, metadata=credentials)
    assert len(answer.points) == 11 * 8 * 4
    assert (
        await cpu_seconds(
            lambda: stack.estimator.CompareConfigurations(request, metadata=credentials), calls=2, rounds=20
        )
        < 0.010
    )


@pytest.mark.parametrize("jobs", [0, 50])
async def test_as_many_points_as_a_comparison_may_have_take_ten_milliseconds(jobs: int) -> None:
    """E07: 512 points of 16 GPU types take less than 10 ms from message to message, and with what four types taught."""
    path = cast(Path, EstimatorSettings.model_fields["catalogue_file"].default)
    data = tomllib.loads(path.read_text())
    entries = data["model_gpu_types"]
    known_names = {entry["type"] for entry in (*data["gpu_types"], *entries)}
    entries += [{**entries[0], "type": gpu} for gpu in gpus.all_gpus() if gpu not in known_names][
        : 16 - len(known_names)
    ]
    catalogue = Catalogue.model_validate(data)
    request = pb.CompareConfigurationsRequest(
        dataset_id=ANN, base_model=LLAMA, gpu_counts=range(1, 9), preset_ids=[1, 2, 3, 4], hyperparameters=BALANCED
    )
    bins = tuple((most, samples) for most, samples in orjson.loads(COUNTED))
    dataset = Dataset("counted", 5000, 2_000_000, None, 2048, bins)
    work = Workload(base_models.all_models()[LLAMA], stack="plain")
    runs = [features(Point(replace(work, batch=1 + at), gpus.all_gpus()["H100"], 2)) for at in range(jobs)]
    kinds = [("llama", entry["type"], "plain", False) for entry in data["gpu_types"]] if jobs else []
    corrections = {
        kind: correct_for([FinishedJob(4000, 3600, 600, 1.0, run, 20, 22) for run in runs]) for kind in kinds
    }

    async def call() -> None:
        grid = comparison_wire.grid(request, catalogue)
        comparison = compare(grid, dataset, corrections, catalogue)
        answer = comparison_wire.response(request, grid, comparison, dataset, catalogue.version)
        assert len(answer.points) == 512

    taken = await cpu_seconds(call, calls=2, rounds=40)
    print(f"{1000 * taken:.1f} ms")
    assert taken < 0.010

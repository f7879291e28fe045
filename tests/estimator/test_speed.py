"""What forecasts and comparisons cost, in processor time, which other work on the machine does not change."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import orjson
from pipeline.estimator.v1 import estimator_pb2 as pb

from tests.conftest import NewDataset, Stack, metadata
from tests.estimator.asked import ANN, BALANCED, LLAMA, configuration

COUNTED = orjson.dumps([[128, 1000], [256, 2500], [512, 1200], [2048, 300]]).decode()


async def cpu_seconds(call: Callable[[], Awaitable[object]], *, calls: int, rounds: int = 5) -> float:
    """Processor time of one call: the best of some rounds."""
    found = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            await call()
        found.append((time.process_time() - started) / calls)
    return min(found)


async def test_a_forecast_costs_at_most_half_as_much_again(stack: Stack, new_dataset: NewDataset) -> None:
    """EstimateCost with a base model takes at most 1.5 times the processor time of the reference estimate."""
    dataset = await new_dataset(ANN, longest_tokens=2048, token_histogram=COUNTED)
    held = metadata(ANN)
    plain = pb.EstimateCostRequest(**configuration(dataset))
    forecast = pb.EstimateCostRequest(**configuration(dataset, base_model=LLAMA))
    await stack.estimator.EstimateCost(forecast, metadata=held)
    before = await cpu_seconds(lambda: stack.estimator.EstimateCost(plain, metadata=held), calls=100)
    after = await cpu_seconds(lambda: stack.estimator.EstimateCost(forecast, metadata=held), calls=100)
    assert after < 1.5 * before


async def test_the_largest_comparison_takes_ten_milliseconds(stack: Stack, new_dataset: NewDataset) -> None:
    """E07: every GPU type in every count and preset is compared in under 10 ms of processor time, all of it."""
    dataset = await new_dataset(ANN, longest_tokens=2048, token_histogram=COUNTED)
    request = pb.CompareConfigurationsRequest(
        dataset_id=dataset, base_model=LLAMA, gpu_counts=range(1, 9), preset_ids=[1, 2, 3, 4],
        hyperparameters=BALANCED, deadline_hours=8, budget_usd=100,
    )  # fmt: skip
    held = metadata(ANN)
    answer = await stack.estimator.CompareConfigurations(request, metadata=held)
    assert len(answer.points) == 11 * 8 * 4
    assert await cpu_seconds(lambda: stack.estimator.CompareConfigurations(request, metadata=held), calls=5) < 0.010

"""Estimates that name a base model, through the real door."""

from __future__ import annotations

from typing import Any

import grpc
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline.estimator.v1 import estimator_pb2 as pb

from estimator_service.catalogue import base_models, gpus
from estimator_service.catalogue.model import JobDefaults
from estimator_service.datasets.model import Dataset, cut
from estimator_service.forecasts.job_forecast import JobForecast, job_forecast
from estimator_service.forecasts.plan import Options, TrainingSpec, plan
from estimator_service.physics.forecast import Point
from tests.conftest import NewDataset, Stack, metadata
from tests.estimator_service.requests import ANN, BOB, LLAMA, configuration, refusal

GPUS, MODELS = gpus.all_gpus(), base_models.all_models()
DEFAULTS = JobDefaults(
    startup_seconds=600,
    startup_p10_seconds=240,
    startup_p90_seconds=1500,
    load_gb_per_second=1.0,
    save_seconds=60,
    save_gb_per_second=0.5,
    storage_usd=0.5,
    default_pairs=1000,
    default_tokens_per_pair=200,
)
COUNTED = {
    "longest_tokens": 2048,
    "token_histogram": orjson.dumps([[128, 1000], [256, 2500], [512, 1200], [2048, 300]]).decode(),
}


def new_request(dataset_id: str, **fields: Any) -> pb.EstimateCostRequest:
    """The Balanced preset on two A100-80GB, for an 8B model."""
    return pb.EstimateCostRequest(**configuration(dataset_id, **{"base_model": LLAMA, **fields}))


def forecast_of(model: str, gpu: str, count: int, dataset: Dataset, price: float = 3.5, **fields: Any) -> JobForecast:
    """One job, straight from the domain."""
    options = Options(**{name: value for name, value in fields.items() if name not in ("batch", "epochs")})
    spec = TrainingSpec(MODELS[model], options, fields.get("batch", 4), fields.get("epochs", 3), 16)
    planned = plan(spec, GPUS[gpu], dataset, DEFAULTS)
    return job_forecast(planned, Point(planned.workload, GPUS[gpu], count), price, DEFAULTS)


async def test_a_base_model_gets_a_range_its_reasons_and_its_memory(stack: Stack, new_dataset: NewDataset) -> None:
    """The answer has P10 to P90 of time and cost around the plain figures, drivers in order, parts that add up, no repair."""
    dataset = await new_dataset(ANN, **COUNTED)
    answer = await stack.estimator.EstimateCost(new_request(dataset), metadata=metadata(ANN))
    seen, memory = answer.forecast, answer.memory
    assert seen.cost.p10 < answer.estimated_cost == seen.cost.p50 < seen.cost.p90
    assert seen.hours.p10 < answer.estimated_duration_hours == seen.hours.p50 < seen.hours.p90
    shares = [driver.share for driver in seen.drivers]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=0.001)
    split = seen.split
    assert split.startup + split.training + split.validation + split.save == pytest.approx(seen.hours.p50, abs=0.02)
    assert (seen.confidence, seen.is_quote, list(answer.repairs)) == (pb.CONFIDENCE_HIGH, True, [])
    parts = [
        memory.weights_gib, memory.adapters_gib, memory.gradients_gib, memory.optimizer_gib,
        memory.activations_gib, memory.logits_gib, memory.overhead_gib,
    ]  # fmt: skip
    assert sum(parts) == pytest.approx(memory.total_gib, abs=0.05)
    assert (memory.verdict, memory.longest_tokens) == (pb.MEMORY_VERDICT_FITS, 2048)
    named = {each.field: each.value for each in seen.assumptions}
    assert (named["training.method"], named["training.sequence_length"]) == ("lora", "2048")
    assert (answer.price.usd_per_hour, answer.price.date) == (3.5, "2026-11-01")


async def test_tokens_are_those_of_the_base_model(stack: Stack, new_dataset: NewDataset) -> None:
    """Chinese text is fewer tokens for Qwen: less time and memory, and an assumption says so; Mistral-7B's are exact."""
    han = orjson.dumps({"han": [200_000, 160_000], "latin": [1_000, 900]}).decode()
    sampled, unsampled = await new_dataset(ANN, **COUNTED, script_tokens=han), await new_dataset(ANN, **COUNTED)

    async def forecast(dataset: str, model: str | None) -> pb.EstimateCostResponse:
        return await stack.estimator.EstimateCost(new_request(dataset, base_model=model), metadata=metadata(ANN))

    fewer, counted = await forecast(sampled, "qwen2.5-7b"), await forecast(unsampled, "qwen2.5-7b")
    ratio = (160_000 * 0.72 + 900 * 1.02) / 201_000
    assert fewer.memory.longest_tokens == pytest.approx(2048 * ratio, abs=1)
    assert fewer.forecast.training_seconds.p50 < 0.7 * counted.forecast.training_seconds.p50
    (tokens,) = [each for each in fewer.forecast.assumptions if each.field == "dataset.total_tokens"]
    assert tokens.value == f"{round(1_250_000 * ratio):,}"
    assert "times 0.58 for qwen2.5-7b's (han, latin; ± 14%" in tokens.reason
    widths = [each.forecast.training_seconds.p90 / each.forecast.training_seconds.p50 for each in (fewer, counted)]
    assert 1.2 < widths[0] < widths[1]
    exact = await forecast(sampled, "mistral-7b")
    assert not any(each.field == "dataset.total_tokens" for each in exact.forecast.assumptions)
    assert exact.forecast == (await forecast(unsampled, "mistral-7b")).forecast
    assert (await forecast(sampled, None)).estimated_cost == (await forecast(unsampled, None)).estimated_cost


async def test_a_validation_dataset_takes_its_tokens_time(stack: Stack, new_dataset: NewDataset) -> None:
    """Its samples are validated with and none is held back: the steps stay, and the time goes with the number of its tokens."""
    dataset = await new_dataset(ANN, **COUNTED)

    async def answer(**training: Any) -> pb.EstimateCostResponse:
        return await stack.estimator.EstimateCost(new_request(dataset, training=training), metadata=metadata(ANN))

    plain = await answer()
    small, large = [
        await answer(
            validation_dataset_id=await new_dataset(ANN, total_tokens=tokens, total_training_pairs=tokens // 250)
        )
        for tokens in (1_250_000, 12_500_000)
    ]
    hours = [each.forecast.split.validation for each in (plain, small, large)]
    assert hours[0] == 0 < hours[1]
    assert hours[2] == pytest.approx(10 * hours[1], rel=0.1)
    assert small.training_details.total_steps == plain.training_details.total_steps
    assert plain.estimated_cost < small.estimated_cost < large.estimated_cost
    assert large.plan.training.validation_dataset_id


async def test_validation_has_one_source_of_the_callers_own(stack: Stack, new_dataset: NewDataset) -> None:
    """Two sources, the training dataset itself, another user's, one that is not ready, and early stopping without any."""
    dataset, other = await new_dataset(ANN), await new_dataset(ANN)
    field = "training.validation_dataset_id"

    async def refused(**training: Any) -> tuple[str, str, dict[str, str]]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stack.estimator.EstimateCost(new_request(dataset, training=training), metadata=metadata(ANN))
        return refusal(caught.value)

    both = await refused(validation_dataset_id=other, validation_fraction=0.1)
    same = await refused(validation_dataset_id=dataset.upper())
    neither = await refused(early_stopping_patience=1)
    assert [list(fields) for _, _, fields in (both, same, neither)] == [
        [field], [field], ["training.early_stopping_patience"]
    ]  # fmt: skip
    strange = await refused(validation_dataset_id=await new_dataset(BOB))
    unready = await refused(validation_dataset_id=await new_dataset(ANN, status="error", training_ready=False))
    assert (strange[1], unready[1]) == ("DATASET_NOT_FOUND", "DATASET_NOT_READY")
    assert field in strange[2][""]


async def test_what_is_given_is_not_assumed(stack: Stack, new_dataset: NewDataset) -> None:
    """Every training option that the request sets is used, and none of them is listed as an assumption."""
    training = {
        "method": "TRAINING_METHOD_QLORA", "sequence_length": 512, "gradient_accumulation": 4,
        "precision": "PRECISION_BF16", "activation_checkpointing": False, "packing": True,
        "target_modules": ["all-linear"], "stack": "SOFTWARE_STACK_TUNED",
    }  # fmt: skip
    dataset = await new_dataset(ANN, **COUNTED)
    answer = await stack.estimator.EstimateCost(new_request(dataset, training=training), metadata=metadata(ANN))
    assert not [each.field for each in answer.forecast.assumptions if each.field.startswith("training.")]
    assert (answer.forecast.truncated_share, answer.memory.longest_tokens) == (0.06, 512)
    assert (answer.forecast.padding_share, answer.forecast.stack) == (0, pb.SOFTWARE_STACK_TUNED)
    # 1,250,000 tokens cut at 512, in sequences of 512: 4 at once, 4 times, on 2 GPUs.
    assert answer.training_details.steps_per_epoch == pytest.approx(1_250_000 / (512 * 32), rel=0.3)
    assert any(driver.name == "dequantisation" for driver in answer.forecast.drivers)


async def test_without_a_base_model_it_is_the_reference_estimate(stack: Stack, new_dataset: NewDataset) -> None:
    """Every digit of the reference estimate stays, and nothing is forecast."""
    request = new_request(await new_dataset(ANN, **COUNTED), base_model=None)
    answer = await stack.estimator.EstimateCost(request, metadata=metadata(ANN))
    assert (answer.estimated_cost, answer.estimated_duration_hours) == (6.03, 0.79)
    assert not answer.HasField("forecast")
    assert not answer.HasField("memory")


async def test_what_does_not_fit_comes_with_repairs_that_do(stack: Stack, new_dataset: NewDataset) -> None:
    """A 70B LoRA on one A100-80GB does not fit; each repair, merged into the request, gives the job it promised."""
    request = new_request(
        await new_dataset(ANN, **COUNTED), base_model="llama-3.3-70b", gpu_config={"type": "A100-80GB", "count": 1}
    )
    answer = await stack.estimator.EstimateCost(request, metadata=metadata(ANN))
    assert answer.memory.verdict == pb.MEMORY_VERDICT_DOES_NOT_FIT
    assert answer.memory.headroom_gib < 0
    assert 1 <= len(answer.repairs) <= 5
    for repair in answer.repairs:
        repaired = pb.EstimateCostRequest()
        repaired.CopyFrom(request)
        for part in ("gpu_config", "hyperparameters", "training"):
            if repair.patch.HasField(part):
                getattr(repaired, part).MergeFrom(getattr(repair.patch, part))
        then = await stack.estimator.EstimateCost(repaired, metadata=metadata(ANN))
        assert then.memory == repair.memory
        assert then.memory.verdict == pb.MEMORY_VERDICT_FITS
        assert (then.estimated_cost, then.estimated_duration_hours) == (
            repair.estimated_cost, repair.estimated_duration_hours
        )  # fmt: skip
        assert repair.cost_change == pytest.approx(then.estimated_cost - answer.estimated_cost, abs=0.001)


async def test_outside_the_evidence_it_is_not_a_quote(stack: Stack, new_dataset: NewDataset) -> None:
    """Two doubts make it no quote, with the hourly rate in its place; so does a dataset that nobody counted."""
    dataset = await new_dataset(ANN, **COUNTED)
    far = new_request(dataset, base_model="gemma-2-9b", gpu_config={"type": "RTX-4090", "count": 1})
    answer = await stack.estimator.EstimateCost(far, metadata=metadata(ANN))
    assert (answer.forecast.is_quote, answer.forecast.confidence) == (False, pb.CONFIDENCE_LOW)
    assert "RTX-4090" in answer.forecast.confidence_reason
    assert answer.forecast.note.startswith("Not a quote")
    assert "$1.12/h" in answer.forecast.note
    uncounted = new_request(await new_dataset(ANN, total_tokens=None))
    answer = await stack.estimator.EstimateCost(uncounted, metadata=metadata(ANN))
    assert (answer.forecast.is_quote, answer.forecast.HasField("truncated_share")) == (False, False)


async def test_a_providers_price_is_taken_by_name(stack: Stack, new_dataset: NewDataset) -> None:
    """A named provider's price replaces the catalogue's own, with its day and source."""
    dataset = await new_dataset(ANN, **COUNTED)
    answer = await stack.estimator.EstimateCost(new_request(dataset, provider="HF Jobs"), metadata=metadata(ANN))
    assert (answer.hourly_rate, answer.price.provider, answer.price.date) == (5.0, "HF Jobs", "2026-08-21")


async def test_the_answer_says_where_its_figures_come_from(stack: Stack, new_dataset: NewDataset) -> None:
    """Steps, sharding, start-up and basis are said in words and figures, and throughput by training time makes the tokens."""
    dataset = await new_dataset(ANN, total_training_pairs=5000, total_tokens=2_000_000, **COUNTED)
    answer = await stack.estimator.EstimateCost(
        new_request(dataset, training={"gradient_accumulation": 2}), metadata=metadata(ANN)
    )
    details, seen = answer.training_details, answer.forecast
    assert (seen.effective_batch, details.steps_per_epoch) == (16, 313)
    assert seen.steps_note.startswith("4 samples a GPU × 2 added up × 2 GPUs = 16 a step; 5,000 samples are 313 steps")
    trained = details.estimated_throughput_tokens_per_sec * seen.split.training * 3600
    assert trained == pytest.approx(3 * 2_000_000, rel=0.05)
    named = {each.field: each.value for each in seen.assumptions}
    assert (named["parallelism"], answer.memory.sharded_over) == ("data parallel on 2 GPUs", 1)
    assert seen.startup_seconds.p10 < seen.startup_seconds.p50 < seen.startup_seconds.p90
    assert seen.range_sources >= 5
    large = new_request(dataset, base_model="llama-3.3-70b", gpu_config={"type": "A100-80GB", "count": 8})
    sharded = await stack.estimator.EstimateCost(large, metadata=metadata(ANN))
    assert sharded.memory.sharded_over == 8
    assert "weights sharded over 8 GPUs" in {each.value for each in sharded.forecast.assumptions}
    rough = await stack.estimator.EstimateCost(new_request(dataset, base_model=None), metadata=metadata(ANN))
    assert rough.basis.startswith("Rough")
    assert f"${rough.estimated_cost:.2f}" in answer.basis


async def test_a_job_that_is_mostly_start_up_has_its_range(stack: Stack, new_dataset: NewDataset) -> None:
    """Where start-up takes most of the time, the range is at least that of the start-up and the confidence is not high."""
    dataset = await new_dataset(ANN, total_training_pairs=40, total_tokens=8000, longest_tokens=256)
    seen = (await stack.estimator.EstimateCost(new_request(dataset), metadata=metadata(ANN))).forecast
    assert seen.confidence == pb.CONFIDENCE_MEDIUM
    assert "start-up" in seen.confidence_reason
    assert seen.seconds.p90 - seen.seconds.p50 >= 890
    assert seen.seconds.p50 - seen.seconds.p10 >= 350


@pytest.mark.parametrize(
    ("rate", "fields", "warned"),
    [
        (2e-4, {}, False),
        (8e-4, {}, True),
        (4e-4, {}, False),
        (4e-4, {"base_model": "llama-3.3-70b"}, True),
        (2e-4, {"training": {"method": "TRAINING_METHOD_FULL"}}, True),
        (2e-5, {"training": {"method": "TRAINING_METHOD_FULL"}}, False),
    ],
)
async def test_a_learning_rate_above_published_recipes_is_warned_of(
    stack: Stack, new_dataset: NewDataset, rate: float, fields: dict[str, Any], warned: bool
) -> None:
    """The warning names the field and its source; other answers for the same configuration carry none."""
    dataset = await new_dataset(ANN, **COUNTED)
    how = {"batch_size": 4, "epochs": 3, "rank": 16}
    request = new_request(dataset, hyperparameters={**how, "learning_rate": rate}, **fields)
    answer = await stack.estimator.EstimateCost(request, metadata=metadata(ANN))
    assert [each.field for each in answer.warnings] == ["hyperparameters.learning_rate"] * warned
    assert all("arXiv" in each.source for each in answer.warnings)
    calm = new_request(dataset, hyperparameters={**how, "learning_rate": 1e-5}, **fields)
    assert not (await stack.estimator.EstimateCost(calm, metadata=metadata(ANN))).warnings


@pytest.mark.parametrize(
    ("model", "length", "longest", "warned"),
    [
        ("phi-3-mini", 8192, 512, True),
        ("phi-3-mini", 4096, 9000, False),
        ("phi-3-mini", None, 9000, True),
        ("llama-3.1-8b", 8192, 9000, False),
        ("minicpm-2b", 8192, 9000, False),
    ],
)
async def test_sequences_longer_than_the_models_context_are_warned_of(
    stack: Stack, new_dataset: NewDataset, model: str, length: int | None, longest: int, warned: bool
) -> None:
    """The warning says both lengths and where the model's was read; a model whose context is not known gets none."""
    dataset = await new_dataset(ANN, **{**COUNTED, "longest_tokens": longest})
    training = {"sequence_length": length} if length else {}
    request = new_request(dataset, base_model=model, training=training)
    answer = await stack.estimator.EstimateCost(request, metadata=metadata(ANN))
    assert [each.field for each in answer.warnings] == ["training.sequence_length"] * warned
    assert all(
        f"{length or longest:,} tokens" in each.message and "4,096" in each.message and "Phi-3" in each.source
        for each in answer.warnings
    )


async def test_what_no_single_change_makes_fit_gets_two_or_is_told_that_nothing_fits(
    stack: Stack, new_dataset: NewDataset
) -> None:
    """A 235B model on one L4 gets repairs of two changes that hold when merged; a 405B at 131,072 tokens is told none fits."""
    dataset = await new_dataset(ANN, longest_tokens=2048)
    request = new_request(dataset, base_model="qwen3-235b-a22b", gpu_config={"type": "L4", "count": 1})
    answer = await stack.estimator.EstimateCost(request, metadata=metadata(ANN))
    assert answer.memory.verdict == pb.MEMORY_VERDICT_DOES_NOT_FIT
    assert answer.repairs
    repaired = pb.EstimateCostRequest()
    for repair in answer.repairs:
        assert ";" in repair.title
        repaired.CopyFrom(request)
        for part in ("gpu_config", "hyperparameters", "training"):
            if repair.patch.HasField(part):
                getattr(repaired, part).MergeFrom(getattr(repair.patch, part))
        then = await stack.estimator.EstimateCost(repaired, metadata=metadata(ANN))
        assert then.memory.verdict == pb.MEMORY_VERDICT_FITS
    hopeless = new_request(
        dataset,
        base_model="nemotron-4-340b",
        gpu_config={"type": "L4", "count": 1},
        training={"method": "TRAINING_METHOD_FULL", "sequence_length": 131072, "packing": True},
        hyperparameters={"batch_size": 64, "epochs": 1, "learning_rate": 1e-5, "rank": 16},
    )
    answer = await stack.estimator.EstimateCost(hopeless, metadata=metadata(ANN))
    assert (list(answer.repairs), answer.repairs_note[:12]) == ([], "It does not ")


@pytest.mark.parametrize(
    ("model", "modules", "refused"),
    [
        ("phi-3-mini-3.8b", ["qkv_proj", "o_proj"], None),
        ("phi-3-mini-3.8b", ["o_proj", "q_proj"], "training.target_modules[1]"),
        ("chatglm3-6b", ["query_key_value"], None),
        ("chatglm3-6b", ["q_proj"], "training.target_modules[0]"),
        ("qwen-7b", ["c_attn", "w1"], None),
        ("llama-3.1-8b", ["qkv_proj"], "training.target_modules[0]"),
        ("phi-3-mini-3.8b", ["all-linear"], None),
    ],
)
async def test_target_modules_are_those_of_the_model(
    stack: Stack, new_dataset: NewDataset, model: str, modules: list[str], refused: str | None
) -> None:
    """Case 32: a module that the model lacks is refused, in estimates and comparisons, with the names that it has."""
    dataset = await new_dataset(ANN, **COUNTED)
    request = new_request(dataset, base_model=model, training={"target_modules": modules})
    grid = pb.CompareConfigurationsRequest(dataset_id=dataset, base_model=model, training=request.training)
    calls = (
        stack.estimator.EstimateCost(request, metadata=metadata(ANN)),
        stack.estimator.CompareConfigurations(grid, metadata=metadata(ANN)),
    )
    for call in calls:
        if refused is None:
            await call
            continue
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        code, reason, details = refusal(error.value)
        assert (code, reason, list(details)) == ("INVALID_ARGUMENT", "VALIDATION_FAILED", [refused])
        assert ("qkv_proj" in details[refused]) or ("query_key_value" in details[refused])


@pytest.mark.parametrize(
    ("fields", "reason", "path"),
    [
        ({"base_model": "gpt-5"}, "UNKNOWN_BASE_MODEL", "base_model"),
        ({"base_model": "x" * 201}, "VALIDATION_FAILED", "base_model"),
        ({"base_model": ""}, "VALIDATION_FAILED", "base_model"),
        ({"provider": "Nobody"}, "UNKNOWN_PROVIDER", "provider"),
        ({"base_model": None, "provider": "HF Jobs"}, "VALIDATION_FAILED", "base_model"),
        ({"base_model": None, "training": {"packing": True}}, "VALIDATION_FAILED", "base_model"),
        ({"training": {"sequence_length": 127}}, "VALIDATION_FAILED", "training.sequence_length"),
        ({"training": {"gradient_accumulation": 1025}}, "VALIDATION_FAILED", "training.gradient_accumulation"),
        ({"training": {"target_modules": ["lm_head"]}}, "VALIDATION_FAILED", "training.target_modules[0]"),
        ({"training": {"method": 9}}, "VALIDATION_FAILED", "training.method"),
        ({"gpu_config": {"type": "b200", "count": 1}}, "UNKNOWN_GPU_TYPE", "gpu_config.type"),
        ({"gpu_config": {"type": "B200", "count": 1}, "base_model": None}, "UNKNOWN_GPU_TYPE", "gpu_config.type"),
        ({"quote_id": "x"}, "VALIDATION_FAILED", "quote_id"),
    ],
)
async def test_bad_options_name_their_field(stack: Stack, fields: dict[str, Any], reason: str, path: str) -> None:
    """E04: unknown names and values outside the limits are INVALID_ARGUMENT with their field, before anything is read."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.estimator.EstimateCost(new_request(ANN, **fields), metadata=metadata(ANN))
    code, why, error = refusal(refused.value)
    assert (code, why, list(error)) == ("INVALID_ARGUMENT", reason, [path])


@pytest.mark.parametrize("pairs", [None, 0, 1, 2**50, 2**62])
async def test_any_dataset_gets_a_defined_answer(stack: Stack, new_dataset: NewDataset, pairs: int | None) -> None:
    """E02 and E03: no, one or very many pairs make a finite forecast, or OUT_OF_RANGE where steps cannot be counted."""
    request = new_request(await new_dataset(ANN, total_training_pairs=pairs, total_tokens=pairs))
    if pairs == 2**62:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stack.estimator.EstimateCost(request, metadata=metadata(ANN))
        assert refusal(refused.value)[:2] == ("OUT_OF_RANGE", "DATASET_TOO_LARGE")
        return
    answer = await stack.estimator.EstimateCost(request, metadata=metadata(ANN))
    assert 0 < answer.forecast.cost.p10 <= answer.forecast.cost.p90 < float("inf")


async def test_the_catalogue_shows_models_and_every_gpu(stack: Stack) -> None:
    """At least 40 base models and 11 GPU types, each price with its day and source; the reference four stay four."""
    shown = await stack.estimator.GetCatalogue(pb.GetCatalogueRequest(), metadata=metadata(ANN))
    assert [gpu.type for gpu in shown.gpu_types] == ["A100-80GB", "A100-40GB", "H100", "V100-32GB"]
    assert {"L4", "A10G", "L40S", "H200", "B200", "MI300X", "RTX-4090"} == {gpu.type for gpu in shown.model_gpu_types}
    assert len(shown.base_models) >= 40
    for gpu in [*shown.gpu_types, *shown.model_gpu_types]:
        assert min(gpu.memory_gb, gpu.bandwidth_gb_s, gpu.tflops_16bit) > 0
        for price in [gpu, *gpu.offers]:
            day, source = (gpu.price_date, gpu.price_source) if price is gpu else (price.date, price.source)
            assert (len(day), bool(source)) == (10, True)


datasets = st.builds(
    lambda pairs, mean, spread: Dataset(
        "d", pairs, int(pairs * mean), None, int(mean * 4), ((int(mean / 2), pairs), (int(mean * 4), spread)), "r"
    ),
    st.integers(1, 10**6),
    st.floats(16, 4000),
    st.integers(0, 1000),
)


@given(
    dataset=datasets,
    gpu=st.sampled_from(["A100-80GB", "H100", "L4", "MI300X", "V100-32GB"]),
    method=st.sampled_from(["lora", "qlora", "full"]),
    packing=st.booleans(),
    count=st.integers(2, 8),
    batch=st.sampled_from([1, 2, 8, 64]),
    price=st.floats(0.1, 100),
)
def test_a_job_obeys_physics(
    dataset: Dataset, gpu: str, method: str, packing: bool, count: int, batch: int, price: float
) -> None:
    """More GPUs never beat perfect scaling, more epochs, tokens or parameters never take less, cost is linear in price."""

    def hours(model: str = "llama-3.1-8b", count: int = 1, dataset: Dataset = dataset, epochs: int = 2) -> float:
        options = {"method": method, "packing": packing, "batch": batch, "epochs": epochs, "sequence_length": 4096}
        return forecast_of(model, gpu, count, dataset, **options).totals.hours

    once = hours()
    assert hours(count=count) * count >= once * (1 - 1e-12)
    assert hours(epochs=3) >= once
    assert dataset.tokens is not None
    more = Dataset("d", dataset.pairs, dataset.tokens * 2, None, dataset.longest, dataset.bins, "r")
    assert hours(dataset=more) >= once * (1 - 1e-12)
    assert hours(model="llama-2-13b") >= hours(model="llama-2-7b")
    assert hours(model="llama-3.1-70b") >= once
    job, dearer = (forecast_of("llama-3.1-8b", gpu, count, dataset, each) for each in (price, price * 2))
    assert dearer.totals.compute == 2 * job.totals.compute


@given(dataset=datasets, length=st.integers(128, 8192), batch=st.integers(2, 64))
def test_cutting_and_padding_are_bounded(dataset: Dataset, length: int, batch: int) -> None:
    """A cut never adds tokens, and padding is at least none and at most the longest sample for each."""
    kept = cut(dataset, length, default_pairs=1000, default_tokens_per_pair=200)
    assert dataset.tokens is not None
    assert 0 < kept.tokens <= dataset.tokens * (1 + 1e-9)
    longest = max(middle for middle, _ in kept.bins)
    assert 1 <= kept.padding(batch) <= max(1.0, longest / kept.mean) * (1 + 1e-9)

"""Quotes, through the real door: made, held, and kept by the jobs that used them."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import grpc
import orjson
import pytest
from pipeline.estimator.v1 import estimator_pb2 as pb
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import NewDataset, Stack, metadata
from tests.estimator_service.requests import ANN, BOB, LLAMA, configuration, refusal


async def quoted(stack: Stack, dataset: str, user: str = ANN, **fields: Any) -> pb.Quote:
    """A quote of an 8B model on two A100-80GB."""
    request = pb.CreateQuoteRequest(**configuration(dataset, **{"base_model": LLAMA, **fields}))
    return (await stack.estimator.CreateQuote(request, metadata=metadata(user))).quote


def job(dataset: str, quote_id: str | None = None, **fields: Any) -> jobs_pb2.CreateJobRequest:
    """The job that was quoted."""
    return jobs_pb2.CreateJobRequest(
        **configuration(dataset, **{"base_model": LLAMA, "quote_id": quote_id, **fields}),
        preset_id="PRESET_ID_BALANCED",
    )


async def refused_with(stack: Stack, request: jobs_pb2.CreateJobRequest) -> str:
    """Why a job is refused; empty where it is not."""
    try:
        await stack.jobs.CreateJob(request, metadata=metadata(ANN))
    except grpc.aio.AioRpcError as error:
        return refusal(error)[2][""]
    return ""


async def test_a_job_gets_the_price_it_was_quoted_and_keeps_it(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """A job made with a quote has its price and its forecast for ever, even when the quote itself is gone."""
    dataset = await new_dataset(ANN)
    quote = await quoted(stack, dataset)
    assert (len(quote.configuration_digest), len(quote.dataset_revision), quote.cost_p90 > quote.cost_p50) == (
        64,
        12,
        True,
    )
    assert 86_395 < quote.expires_at.seconds - quote.created_at.seconds <= 86_400
    got = await stack.estimator.GetQuote(pb.GetQuoteRequest(id=quote.id), metadata=metadata(ANN))
    assert got.quote == quote
    made = (await stack.jobs.CreateJob(job(dataset, quote.id), metadata=metadata(ANN))).job
    assert (made.estimated_total_cost, made.quote, made.base_model) == (quote.cost_p50, quote, LLAMA)
    assert made.forecast.cost.p90 == quote.cost_p90
    await admin.execute("delete from lora_quotes")
    await admin.execute("update lora_datasets set total_tokens = total_tokens * 2")
    kept = (await stack.jobs.GetJob(jobs_pb2.GetJobRequest(id=made.id), metadata=metadata(ANN))).job
    assert (kept.quote, kept.forecast, kept.memory) == (quote, made.forecast, made.memory)
    assert (await stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata(ANN))).jobs[0] == kept


async def test_a_quoted_price_holds_where_the_forecast_moved(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """What the model learns after a quote was made does not change what was promised."""
    dataset = await new_dataset(ANN)
    quote = await quoted(stack, dataset)
    answer = pb.EstimateCostResponse.FromString(await admin.fetchval("select answer from lora_quotes"))
    answer.estimated_cost = 1.23  # as if it had been forecast otherwise then
    await admin.execute("update lora_quotes set answer = $1, cost_p50 = 1.23", answer.SerializeToString())
    made = (await stack.jobs.CreateJob(job(dataset, quote.id), metadata=metadata(ANN))).job
    assert (made.estimated_total_cost, made.quote.cost_p50) == (1.23, 1.23)


async def test_a_reference_estimate_can_be_quoted_too(stack: Stack, new_dataset: NewDataset) -> None:
    """A quote without a base model promises the reference estimate, and has no P90."""
    dataset = await new_dataset(ANN)
    quote = await quoted(stack, dataset, base_model=None)
    assert (quote.cost_p50, quote.HasField("cost_p90")) == (6.03, False)
    made = (await stack.jobs.CreateJob(job(dataset, quote.id, base_model=None), metadata=metadata(ANN))).job
    assert (made.estimated_total_cost, made.quote.id, made.HasField("forecast")) == (6.03, quote.id, False)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"gpu_config": {"type": "A100-80GB", "count": 4}}, "gpu_config.count 2 → 4; total "),
        ({"gpu_config": {"type": "H100", "count": 2}}, "gpu_config.type A100-80GB → H100; total "),
        ({"training": {"method": "TRAINING_METHOD_QLORA"}}, "training.method lora → qlora"),
        ({"provider": "HF Jobs"}, "provider none → HF Jobs; A100-80GB $3.50 → $2.50/h; total "),
        ({"base_model": None}, "base_model llama-3.1-8b → none"),
    ],
)
async def test_another_configuration_is_told_apart(
    stack: Stack, new_dataset: NewDataset, changed: dict[str, Any], told: str
) -> None:
    """A quote does not hold for anything else, and the refusal names each difference and what it costs."""
    dataset = await new_dataset(ANN)
    quote = await quoted(stack, dataset)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.jobs.CreateJob(job(dataset, quote.id, **changed), metadata=metadata(ANN))
    code, reason, details = refusal(refused.value)
    assert (code, reason) == ("FAILED_PRECONDITION", "QUOTE_MISMATCH")
    assert told in details[""]


async def test_what_is_filled_in_counts_as_given(stack: Stack, new_dataset: NewDataset) -> None:
    """A job that spells out the defaults of a quote that left them open is the same configuration."""
    dataset = await new_dataset(ANN)
    quote = await quoted(stack, dataset)
    training = {"method": "TRAINING_METHOD_LORA", "sequence_length": 2048, "stack": "SOFTWARE_STACK_PLAIN"}
    request = job(dataset, quote.id, base_model="meta-llama/Llama-3.1-8B-Instruct", training=training)
    made = (await stack.jobs.CreateJob(request, metadata=metadata(ANN))).job
    assert made.estimated_total_cost == quote.cost_p50


async def test_a_new_gpu_price_is_told(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """A price that changed since is FAILED_PRECONDITION, with both prices and both totals."""
    dataset = await new_dataset(ANN)
    quote = await quoted(stack, dataset, base_model=None)
    await admin.execute(
        "update lora_quotes set terms = jsonb_set(terms, '{price,usd_per_hour}', '3.2'), cost_p50 = 5.55"
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.jobs.CreateJob(job(dataset, quote.id, base_model=None), metadata=metadata(ANN))
    assert refusal(refused.value)[2] == {"": "A100-80GB $3.20 → $3.50/h; total $5.55 → $6.03"}


@pytest.mark.parametrize(
    ("change", "told"),
    [("total_tokens = 2500000", "dataset tokens 1250000 → 2500000"), ("file_size = 5", "dataset content changed")],
)
async def test_a_changed_dataset_is_told(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, change: str, told: str
) -> None:
    """E08: a dataset whose content changed since breaks the quote; its name may change."""
    dataset = await new_dataset(ANN)
    quote = await quoted(stack, dataset)
    await admin.execute("update lora_datasets set name = 'Other'")
    await stack.jobs.CreateJob(job(dataset, quote.id), metadata=metadata(ANN))
    await admin.execute(f"update lora_datasets set {change}")
    async with asyncio.timeout(2):
        while told not in await refused_with(stack, job(dataset, quote.id)):
            await asyncio.sleep(0.05)


async def test_an_expired_quote_does_not_hold(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """A quote whose time is over is shown, and refused."""
    dataset = await new_dataset(ANN)
    quote = await quoted(stack, dataset)
    await admin.execute("update lora_quotes set created_at = now() - interval '2 days', expires_at = now()")
    shown = await stack.estimator.GetQuote(pb.GetQuoteRequest(id=quote.id), metadata=metadata(ANN))
    assert shown.quote.cost_p50 == quote.cost_p50
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.jobs.CreateJob(job(dataset, quote.id), metadata=metadata(ANN))
    assert refusal(refused.value)[:2] == ("FAILED_PRECONDITION", "QUOTE_EXPIRED")


async def test_anothers_quote_is_as_absent_as_none(stack: Stack, new_dataset: NewDataset) -> None:
    """Z01: reading or using somebody else's quote, and one that never was, get the same answer."""
    quote = await quoted(stack, await new_dataset(ANN))
    theirs = await new_dataset(BOB)
    values = []
    for quote_id in (quote.id, str(uuid.uuid4())):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stack.estimator.GetQuote(pb.GetQuoteRequest(id=quote_id), metadata=metadata(BOB))
        values.append((*refusal(refused.value), refused.value.details()))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stack.jobs.CreateJob(job(theirs, quote_id), metadata=metadata(BOB))
        values.append((*refusal(refused.value), refused.value.details()))
    assert len({str(each) for each in values}) == 1
    assert values[0][:2] == ("NOT_FOUND", "QUOTE_NOT_FOUND")


async def test_what_nobody_can_promise_is_not_quoted(stack: Stack, new_dataset: NewDataset) -> None:
    """A configuration outside the evidence gets no quote, and hears why and what the GPUs cost an hour."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await quoted(
            stack, await new_dataset(ANN), base_model="gemma-2-9b", gpu_config={"type": "RTX-4090", "count": 1}
        )
    code, reason, details = refusal(refused.value)
    assert (code, reason) == ("FAILED_PRECONDITION", "NOT_QUOTABLE")
    assert "The GPUs cost $" in details[""]
    assert "/h." in details[""]


async def test_quotes_are_bounded_and_swept(stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset) -> None:
    """A person holds at most 200 unexpired quotes; what is over for a week is gone after the next one."""
    dataset = await new_dataset(ANN)
    quote = await quoted(stack, dataset)
    columns = "user_id, dataset_id, terms, configuration_digest, dataset_revision, catalogue_version, cost_p50, request, answer"
    await admin.execute(
        f"insert into lora_quotes ({columns}, created_at, expires_at) "
        f"select {columns}, created_at, expires_at from lora_quotes, generate_series(1, 199)"
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await quoted(stack, dataset)
    assert refusal(refused.value)[:2] == ("RESOURCE_EXHAUSTED", "TOO_MANY_QUOTES")
    await admin.execute(
        "update lora_quotes set created_at = now() - interval '9 days', expires_at = now() - interval '8 days'"
    )
    await quoted(stack, dataset)
    assert await admin.fetchval("select count(*) from lora_quotes where id = $1", uuid.UUID(quote.id)) == 0


async def test_a_job_that_does_not_fit_is_refused_unless_its_owner_insists(
    stack: Stack, new_dataset: NewDataset
) -> None:
    """A 70B LoRA on one A100-80GB is refused with a repair; with `allow_oom_risk` it is queued and says so."""
    dataset = await new_dataset(ANN, longest_tokens=512, token_histogram=orjson.dumps([[512, 5000]]).decode())
    fields = {"base_model": "llama-3.1-70b", "gpu_config": {"type": "A100-80GB", "count": 1}}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.jobs.CreateJob(job(dataset, **fields), metadata=metadata(ANN))
    code, reason, details = refusal(refused.value)
    assert (code, reason) == ("FAILED_PRECONDITION", "DOES_NOT_FIT")
    assert "QLoRA" in details[""]
    assert "allow_oom_risk" in details[""]
    made = (await stack.jobs.CreateJob(job(dataset, **fields, allow_oom_risk=True), metadata=metadata(ANN))).job
    assert (made.allow_oom_risk, made.memory.verdict) == (True, pb.MEMORY_VERDICT_DOES_NOT_FIT)


async def test_the_same_key_with_other_options_is_told_apart(stack: Stack, new_dataset: NewDataset) -> None:
    """I02: an idempotency key covers the base model and the training options too."""
    dataset, key = await new_dataset(ANN), str(uuid.uuid4())
    first = job(dataset, request_id=key, training={"method": "TRAINING_METHOD_QLORA"})
    made = (await stack.jobs.CreateJob(first, metadata=metadata(ANN))).job
    assert (await stack.jobs.CreateJob(first, metadata=metadata(ANN))).job.id == made.id
    assert made.training.method == pb.TRAINING_METHOD_QLORA
    other = job(dataset, request_id=key)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stack.jobs.CreateJob(other, metadata=metadata(ANN))
    assert refusal(refused.value)[1] == "IDEMPOTENCY_KEY_REUSED"

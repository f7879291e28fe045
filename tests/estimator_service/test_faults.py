"""Group 17 of the faults, through the real door: what an estimate does with odd input, odd data and a database that is away."""

from __future__ import annotations

import asyncio
import math
import shutil
import signal
import time
import uuid
from pathlib import Path
from typing import Any, cast

import asyncpg
import grpc
import pytest
from google.protobuf.message import Message
from pipeline.estimator.v1 import estimator_pb2
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub

from estimator_service.settings import EstimatorSettings
from tests.conftest import NewDataset, Stack, TestDatabase, metadata
from tests.door import refused
from tests.estimator_service.test_estimate import new_request
from tests.processes import environment, run, running

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
CATALOGUE = cast(Path, EstimatorSettings.model_fields["catalogue_file"].default)
GOOD = {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16}
ODD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-0.0": -0.0, "5e-324": 5e-324, "1e308": 1e308}


def numbers(message: Message) -> list[float]:
    """Every number in an answer, however deep."""
    values: list[float] = []
    for _, value in message.ListFields():
        for each in value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]:
            if isinstance(each, Message):
                values += numbers(each)
            elif isinstance(each, (int, float)):
                values.append(each)
    return values


async def test_odd_numbers_are_refused_by_name_or_harmless(stack: Stack, new_dataset: NewDataset) -> None:
    """E01: what is outside a field's limits is refused and named; what is inside gives finite figures."""
    inside = {("dropout", "-0.0"), ("dropout", "5e-324"), ("alpha", "5e-324"), ("alpha", "1e308")}
    dataset = await new_dataset(ANN)
    for field in ("learning_rate", "dropout", "alpha"):
        for name, value in ODD.items():
            question = new_request(dataset, hyperparameters={**GOOD, field: value})
            call = stack.estimator.EstimateCost(question, metadata=metadata(ANN))
            if (field, name) in inside:
                assert all(map(math.isfinite, numbers(await call))), (field, name)
                continue
            error = await refused(call)
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT, (field, name)
            assert list(error.violations) == [f"hyperparameters.{field}"], (field, name)


STATISTICS: list[tuple[str, int | None, int | None, int | None]] = [
    ("E02 2^62 tokens", 1000, 2**62, 250),
    ("E02 2^62 tokens of one pair", 1, 2**62, 1),
    ("E02 most pairs", 2**63 - 1, 2**63 - 1, None),
    ("E02 2^62 pairs", 2**62, None, None),
    ("E03 nothing counted", None, None, 250),
    ("E03 none", 0, 0, 250),
    ("E03 no tokens", 5000, 0, 1250),
    ("E03 no pairs", 0, 1_000_000, 250),
    ("E03 one pair", 1, 3, 1),
    ("E03 fewer tokens than pairs", 5000, 1, 1250),
]


async def test_odd_statistics_have_a_defined_price(stack: Stack, new_dataset: NewDataset) -> None:
    """E02 and E03: the defaults stand in for what nobody counted, and every figure is finite, or it is OUT_OF_RANGE."""
    for row, pairs, tokens, steps in STATISTICS:
        dataset = await new_dataset(ANN, total_training_pairs=pairs, total_tokens=tokens)
        call = stack.estimator.EstimateCost(new_request(dataset), metadata=metadata(ANN))
        if steps is None:
            error = await refused(call)
            assert (error.code, error.reason) == (grpc.StatusCode.OUT_OF_RANGE, "DATASET_TOO_LARGE"), row
            continue
        answer = await call
        assert answer.training_details.steps_per_epoch == steps, row
        assert all(map(math.isfinite, numbers(answer))), row
        per_pair = (tokens or 200 * (pairs or 1000)) / (pairs or 1000)
        seconds = 3 * steps * (per_pair * 4) / 3600 + 1800
        assert answer.estimated_duration_hours == pytest.approx(seconds / 3600, abs=0.006, rel=1e-12), row


async def test_an_unknown_gpu_is_told_which_there_are(stack: Stack, new_dataset: NewDataset) -> None:
    """E04: the field is named, with every type of the catalogue; a long name is not sent back."""
    dataset = await new_dataset(ANN)
    for name in ("a100-80gb", "B200", "x" * 1024, "H100\u202e"):
        question = new_request(dataset, gpu_config={"type": name, "count": 1})
        error = await refused(stack.estimator.EstimateCost(question, metadata=metadata(ANN)))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_GPU_TYPE"), name
        assert list(error.violations) == ["gpu_config.type"]
        for gpu in ("A100-80GB", "A100-40GB", "H100", "V100-32GB"):
            assert gpu in error.violations["gpu_config.type"]
        assert len(error.raw) < 1_000


async def test_a_dataset_is_priced_for_its_owner_alone(stack: Stack, new_dataset: NewDataset) -> None:
    """E09: right after its owner priced it, another gets what they would for none; and its owner's price stays theirs."""
    question = new_request(await new_dataset(ANN))
    mine = await stack.estimator.EstimateCost(question, metadata=metadata(ANN))
    for _ in range(3):
        error = await refused(stack.estimator.EstimateCost(question, metadata=metadata(BOB)))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")
        assert await stack.estimator.EstimateCost(question, metadata=metadata(ANN)) == mine


@pytest.mark.slow
async def test_two_processes_and_two_locales_agree_to_the_bit(database: TestDatabase, new_dataset: NewDataset) -> None:
    """E06: the same questions to two processes, of another locale and hash seed each, have the same bytes as answers."""
    datasets = [
        await new_dataset(ANN, total_training_pairs=pairs, total_tokens=tokens)
        for pairs, tokens in [(5000, 1_250_000), (7, 3), (None, None), (999_983, 123_456_789)]
    ]
    variables = [
        environment(database.url, LC_ALL="C", LANG="C", PYTHONHASHSEED="1"),
        environment(database.url, LC_ALL="C.UTF-8", LANG="de_DE.UTF-8", LC_NUMERIC="de_DE.UTF-8", PYTHONHASHSEED="2"),
    ]
    answers: list[list[bytes]] = []
    for chosen in variables:
        async with (
            running("estimator_service", chosen) as server,
            grpc.aio.insecure_channel(await server.address()) as channel,
        ):
            stub = EstimatorServiceStub(channel)
            await server.logged("database", lambda line: bool(line["healthy"]))
            result = [
                await stub.EstimateCost(
                    new_request(dataset, gpu_config={"type": gpu, "count": count}), metadata=metadata(ANN)
                )
                for dataset in datasets
                for gpu in ("A100-80GB", "V100-32GB")
                for count in (1, 3, 8)
            ]
            answers.append([each.SerializeToString(deterministic=True) for each in result])
    assert answers[0] == answers[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("price_usd_per_hour = 3.50", "price_usd_per_hour = 0"),
        ("[defaults]", "[defaults"),
        ('type = "H100"', 'type = "A100-80GB"'),
        ("epochs = 3,", "epochs = 99999999999,"),
        ("count = 2", "count = 99999999999"),
    ],
)
async def test_a_bad_catalogue_ends_a_start_with_one_line(
    database: TestDatabase, tmp_path: Path, was: str, becomes: str
) -> None:
    """E05: a server whose catalogue is no good exits with code 2 and one line that names the file."""
    file = tmp_path / "catalogue.toml"
    text = CATALOGUE.read_text()
    assert was in text
    file.write_text(text.replace(was, becomes, 1))
    code, said = await run("estimator_service", environment(database.url, PIPELINE_CATALOGUE_FILE=str(file)))
    lines = [line for line in said.splitlines() if '"level":"info"' not in line]
    assert (code, len(lines)) == (2, 1), said
    assert str(file) in lines[0] or "catalogue" in lines[0]


@pytest.mark.slow
async def test_a_reload_keeps_what_is_good(database: TestDatabase, tmp_path: Path) -> None:
    """N12 and E05: SIGHUP takes a good file and leaves a bad one, in a running server that answers all the while."""
    file = tmp_path / "catalogue.toml"
    shutil.copy(CATALOGUE, file)
    async with (
        running("estimator_service", environment(database.url, PIPELINE_CATALOGUE_FILE=str(file))) as server,
        grpc.aio.insecure_channel(await server.address()) as channel,
    ):
        await server.logged("database", lambda line: bool(line["healthy"]))
        stub = EstimatorServiceStub(channel)

        async def price() -> float:
            answer = await stub.GetCatalogue(estimator_pb2.GetCatalogueRequest(), metadata=metadata(ANN))
            return answer.gpu_types[0].price_usd_per_hour

        assert await price() == 3.5
        for bad in ("price_usd_per_hour = -1", "price_usd_per_hour = 1e999", "price_usd_per_hour = ["):
            file.write_text(CATALOGUE.read_text().replace("price_usd_per_hour = 3.50", bad, 1))
            kept = len([line for line in server.lines if line["event"] == "catalogue_kept"])
            server.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(10):
                while len([line for line in server.lines if line["event"] == "catalogue_kept"]) == kept:
                    await asyncio.sleep(0.02)
            assert await price() == 3.5
        file.unlink()
        server.process.send_signal(signal.SIGHUP)
        await server.logged("catalogue_kept", lambda line: "No such file" in line["error"])
        file.write_text(CATALOGUE.read_text().replace("price_usd_per_hour = 3.50", "price_usd_per_hour = 3.75", 1))
        server.process.send_signal(signal.SIGHUP)
        await server.logged("catalogue_reloaded")
        assert await price() == 3.75
        assert server.process.returncode is None


async def test_a_deleted_dataset_has_no_price_within_a_second(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """E08: whatever happens to the row, an estimate asked a second later knows of it."""
    changes = {
        "deleted_at = now()": "DATASET_NOT_FOUND",
        "deleted_at = null, status = 'error'": "DATASET_NOT_READY",
        "status = 'ready', training_ready = false": "DATASET_NOT_READY",
    }
    question = new_request(await new_dataset(ANN))
    for change, reason in changes.items():
        await admin.execute("update lora_datasets set deleted_at = null, status = 'ready', training_ready = true")
        await answered(stack, question)
        await admin.execute(f"update lora_datasets set {change}")
        changed = time.monotonic()
        await asyncio.sleep(max(0, changed + 1 - time.monotonic()))
        assert (await refused(stack.estimator.EstimateCost(question, metadata=metadata(ANN)))).reason == reason


async def answered(stack: Stack, question: Any) -> None:
    """Waits until the dataset has a price again."""
    async with asyncio.timeout(10):
        while True:
            try:
                await stack.estimator.EstimateCost(question, metadata=metadata(ANN))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                return


async def test_an_id_in_capitals_is_the_same_dataset(stack: Stack, new_dataset: NewDataset) -> None:
    """Q18: a UUID in upper case is taken for what it is; one in braces, without hyphens or with a space is refused."""
    dataset = await new_dataset(ANN)
    mine = await stack.estimator.EstimateCost(new_request(dataset), metadata=metadata(ANN))
    assert await stack.estimator.EstimateCost(new_request(dataset.upper()), metadata=metadata(ANN)) == mine
    for odd in (f"{{{dataset}}}", dataset.replace("-", ""), f" {dataset}", "", str(uuid.uuid4()) + "0", "\0"):
        error = await refused(stack.estimator.EstimateCost(new_request(odd), metadata=metadata(ANN)))
        assert (error.code, list(error.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["dataset_id"]), odd

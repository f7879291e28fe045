"""Importing training data, through the real door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import grpc
import orjson
import pytest
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import Stack, metadata

ANN = "aaaaaaaa-0000-4000-8000-000000000001"
LINES = {
    "messages": {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]},
    "conversations": {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day"}]},
    "instruction": {"instruction": "Hello", "input": "", "output": "Good day"},
    "prompt_completion": {"prompt": "Hello", "completion": "Good day"},
    "turns": {
        "conversation_id": "1",
        "turns": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}],
    },
}


def sent(data: bytes, *, size: int = 7, name: str | None = "Greetings") -> Iterator[datasets_pb2.ImportDatasetRequest]:
    """A file in small pieces, so that lines are cut anywhere."""
    yield datasets_pb2.ImportDatasetRequest(name=name, file_name="greetings.jsonl")
    for start in range(0, len(data), size):
        yield datasets_pb2.ImportDatasetRequest(chunk=data[start : start + size])


async def import_bytes(stack: Stack, data: bytes, **options: object) -> datasets_pb2.Dataset:
    """Imports as Ann."""

    async def requests():
        for request in sent(data, **options):
            yield request

    return (await stack.datasets.ImportDataset(requests(), metadata=metadata(ANN))).dataset


@pytest.mark.parametrize("name", LINES)
async def test_every_format_is_found_and_counted(stack: Stack, tmp_path: Path, name: str) -> None:
    """Each format that people have is detected, its pairs and Mistral tokens are counted, and the file is kept."""
    data = (orjson.dumps(LINES[name]) + b"\r\n") * 3
    dataset = await import_bytes(stack, data)
    assert (dataset.format, dataset.status, dataset.training_ready) == (name, datasets_pb2.DATASET_STATUS_READY, True)
    # Mistral-7B v0.1: "▁Hello" is one token, "▁Good▁day" two.
    assert (dataset.total_training_pairs, dataset.total_tokens, dataset.file_size) == (3, 9, len(data))
    assert (tmp_path / "storage" / dataset.storage_path).read_bytes() == data


async def test_bad_lines_are_named_and_nothing_is_kept(stack: Stack, admin: asyncpg.Connection, tmp_path: Path) -> None:
    """A file with bad lines tells the first 50 and their number, and neither it nor half of it is kept."""
    good = orjson.dumps(LINES["messages"]) + b"\n"
    bad = [b"{", b"[]", b"\xff", b'{"a":1}', b'{"messages":[]}', b'{"prompt":"a","completion":"b"}']
    data = good + b"\n".join(bad) + b"\n" + b"x\n" * 60
    dataset = await import_bytes(stack, data, size=1000)
    assert (dataset.status, dataset.training_ready) == (datasets_pb2.DATASET_STATUS_ERROR, False)
    assert (len(dataset.validation_errors), dataset.validation_error_count) == (50, 66)
    assert [error.line for error in dataset.validation_errors[:3]] == [2, 3, 4]
    assert "list of turns" in dataset.validation_errors[4].reason
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        request = jobs_pb2.CreateJobRequest(
            dataset_id=dataset.id,
            preset_id="PRESET_ID_FAST",
            gpu_config={"type": "H100", "count": 1},
            hyperparameters={"batch_size": 8, "epochs": 1, "learning_rate": 1e-4, "rank": 8},
        )
        await stack.jobs.CreateJob(request, metadata=metadata(ANN))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_an_empty_file_is_an_error(stack: Stack) -> None:
    """A file without lines is a dataset of status error, and says so about the file as a whole."""
    dataset = await import_bytes(stack, b"")
    assert [(error.line, error.reason[:17]) for error in dataset.validation_errors] == [(0, "the file is empty")]


async def test_a_name_is_required(stack: Stack, admin: asyncpg.Connection) -> None:
    """An import without a name is refused and leaves nothing."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await import_bytes(stack, b"", name=None)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await admin.fetchval("select count(*) from lora_datasets") == 0


async def test_lists_search_by_name(stack: Stack) -> None:
    """Datasets are found by a part of their name in any case, and a wildcard is only a character."""
    await import_bytes(stack, orjson.dumps(LINES["messages"]))
    for search, total in {"greet": 1, "GREETINGS": 1, "%": 0, "": 1}.items():
        request = datasets_pb2.ListDatasetsRequest(search=search)
        found = await stack.datasets.ListDatasets(request, metadata=metadata(ANN))
        assert found.pagination.total == total, search

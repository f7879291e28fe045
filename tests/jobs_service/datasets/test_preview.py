"""Rows of a dataset, read without reading all of its file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import grpc
import orjson
import pytest
from pipeline.datasets.v1 import datasets_pb2

from jobs_service.datasets import preview
from tests.conftest import Stack, metadata
from tests.door import refused
from tests.jobs_service.datasets.test_import import ANN, import_bytes

pytestmark = pytest.mark.parametrize("stack", ["local"], indirect=True)


async def page(stack: Stack, id_: str, user: str = ANN, **request: Any) -> datasets_pb2.PreviewDatasetResponse:
    """A page of rows."""
    message = datasets_pb2.PreviewDatasetRequest(id=id_, **request)
    return await stack.datasets.PreviewDataset(message, metadata=metadata(user))


async def test_any_row_and_line_is_found(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages have no gaps, and any row or line of a large file is found without reading all of it."""
    seed = Random().randrange(1 << 32)
    print("seed", seed)
    random = Random(seed)
    words = "word " * 400
    # A blank line here and there, so that a row is not a line.
    rows, line, lines = [], 0, []
    for number in range(1, 3_001):
        blank = random.randrange(3)
        line += blank + 1
        rows.append((number, line))
        text = orjson.dumps({"prompt": f"Row {number}", "completion": words[: random.choice((10, 100, 1_900))]})
        lines.append(b"\n" * blank + text)
    dataset = await import_bytes(stack, b"\n".join(lines), size=1 << 20)
    read: list[int] = []
    monkeypatch.setattr(preview, "BLOCK_BYTES", 16 * 1024)
    whole = preview.Storage.read

    def counted(storage: Any, path: str, start: int, end: int) -> bytes:
        read.append(end - start)
        return whole(storage, path, start, end)

    monkeypatch.setattr(preview.Storage, "read", counted)
    first = await page(stack, dataset.id, limit=50)
    assert [(row.row, row.line) for row in first.rows] == rows[:50]
    assert first.total_rows == 3_000
    for number in (1, 2, 1_500, 2_999, 3_000, *(random.randint(1, 3_000) for _ in range(20))):
        read.clear()
        found = await page(stack, dataset.id, row=number, limit=3)
        assert [(row.row, row.line) for row in found.rows] == rows[number - 1 : number + 2]
        assert sum(read) < 400_000 < dataset.stored_size
        line = rows[number - 1][1]
        assert (await page(stack, dataset.id, line=line, limit=1)).rows[0].prompt == f"Row {number}"
    # A line between two rows leads to the next row.
    gap = next((row for before, row in pairwise(rows) if row[1] - before[1] > 1), None)
    assert gap is not None
    assert (await page(stack, dataset.id, line=gap[1] - 1, limit=1)).rows[0].row == gap[0]
    assert not (await page(stack, dataset.id, row=3_001)).rows
    assert not (await page(stack, dataset.id, line=10**9)).rows


async def test_rows_are_shown_as_stored(stack: Stack) -> None:
    """A row has its messages, marks, calls, reasoning, tools, tokens and pairs; long texts are marked as cut."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    line = {
        "messages": [
            {"role": "user", "content": "x" * 5_000},
            {"role": "assistant", "content": "", "tool_calls": [call], "weight": 0, "reasoning": "Hm."},
            {"role": "tool", "content": "1", "name": "f"},
            {"role": "assistant", "content": "One."},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    dataset = await import_bytes(stack, orjson.dumps(line), size=1 << 20)
    (row,) = (await page(stack, dataset.id)).rows
    assert [(each.role, each.trained) for each in row.messages] == [
        ("user", False),
        ("assistant", False),
        ("tool", False),
        ("assistant", True),
    ]
    assert (len(row.messages[0].content), row.truncated) == (4_000, True)
    assert (row.messages[1].reasoning, row.messages[1].tool_calls[0].name) == ("Hm.", "f")
    assert (row.messages[2].name, row.pairs, row.tokens) == ("f", 1, dataset.total_tokens)
    assert row.tools == '[{"type":"function","function":{"name":"f"}}]'


async def test_a_bad_file_shows_its_first_rows_and_bad_rows(stack: Stack) -> None:
    """The preview of a bad file has its first good and bad rows, in order."""
    good = orjson.dumps({"prompt": "a", "completion": "b"})
    data = b"\n".join([good] * 150 + [b'{"prompt": "a"}', b"{"] + [good] * 150)
    dataset = await import_bytes(stack, data, size=1 << 20)
    preview = await page(stack, dataset.id, limit=50)
    assert (preview.total_rows, preview.rows[0].completion) == (102, "b")
    bad = (await page(stack, dataset.id, line=151)).rows
    assert [(row.row, row.line, row.source) for row in bad] == [(101, 151, '{"prompt":"a"}'), (102, 152, "{")]
    assert all(row.error for row in bad)


async def test_rows_are_their_owners(stack: Stack, tmp_path: Path) -> None:
    """Another user's dataset is NOT_FOUND; a missing file is an error."""
    dataset = await import_bytes(stack, orjson.dumps({"text": "a"}), size=1 << 20)
    assert (
        await refused(page(stack, dataset.id, "bbbbbbbb-0000-4000-8000-000000000002"))
    ).reason == "DATASET_NOT_FOUND"
    (tmp_path / "storage" / dataset.storage_path).unlink()
    error = await refused(page(stack, dataset.id))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")

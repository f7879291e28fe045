"""Datasets of every format as the trainer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs_service.datasets.formats.sample import texts
from jobs_service.datasets.imports.tokens import count_tokens
from tests.conftest import Stack
from tests.trainer.rows import import_rows
from trainer.train.data import read_rows

pytestmark = pytest.mark.train


def stored_rows(folder: Path) -> list[dict[str, Any]]:
    """The samples of the one dataset in a storage."""
    (file,) = (path for path in (folder / "storage" / "datasets").rglob("*") if path.is_file())
    return list(read_rows(file))


FORMATS: dict[str, list[Any]] = {
    "conversations": [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": f"Hello {n}"}]} for n in range(9)
    ],
    "instruction": [{"instruction": f"Add {n}", "input": "1", "output": f"{n + 1}"} for n in range(9)],
    "prompt_completion": [{"prompt": f"{n} + 1 =", "completion": f" {n + 1}"} for n in range(9)],
    "text": [{"text": f"Once upon a time there were {n} cats."} for n in range(9)],
    "tools": [
        {
            "messages": [
                {"role": "user", "content": f"Who is {n}?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "find", "arguments": '{"key": "7"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "a", "content": "Ann"},
                {"role": "assistant", "content": "Ann."},
            ]
        }
        for n in range(9)
    ],
    "train flags": [
        {
            "messages": [
                {"role": "user", "content": "1?"},
                {"role": "assistant", "content": "wrong", "weight": 0},
                {"role": "user", "content": "no"},
                {"role": "assistant", "content": f"right {n}", "weight": 1},
            ]
        }
        for n in range(9)
    ],
}


@pytest.mark.parametrize("name", FORMATS)
async def test_every_format_trains_as_it_was_estimated(stack: Stack, models: Path, tmp_path: Path, name: str) -> None:
    """The trained samples and tokens are those that were counted, and the steps those that were estimated."""
    from transformers import AutoTokenizer

    from trainer.train import data

    rows = FORMATS[name]
    dataset = await import_rows(stack, rows)
    stored = stored_rows(tmp_path)
    assert len(stored) == len(rows)
    assert sum(count_tokens(list(texts(row))) for row in stored) == dataset.total_tokens
    data.check_counts(stored, dataset.total_training_pairs, dataset.total_tokens)
    tokenizer = AutoTokenizer.from_pretrained(models / "demo-tiny")
    prepared = data.prepare(stored, tokenizer, sequence_length=None, validation_fraction=0, seed=1)
    assert len(prepared.train) == len(rows)
    trained = [
        tokenizer.decode([token for token, label in zip(each.input_ids, each.labels, strict=True) if label >= 0])
        for each in prepared.train
    ]
    if name == "train flags":
        assert all("right" in text and "wrong" not in text for text in trained)
    elif name in ("conversations", "tools"):
        assert not any("Who is" in text or "Hi" in text for text in trained)
    elif name == "prompt_completion":
        assert all("+" not in text for text in trained)

"""Counts tokens as Mistral-7B does, the base model that these jobs train."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from sentencepiece import SentencePieceProcessor

# Mistral-7B v0.1's own model. Later ones only add control tokens, which no dataset contains as text.
MODEL = "tokenizer.model.v1"


@cache
def _processor() -> SentencePieceProcessor:
    path = Path(str(files("mistral_common").joinpath("data", MODEL)))
    return SentencePieceProcessor(model_file=str(path))


def count_tokens(texts: Sequence[str]) -> int:
    """Tokens of all texts together, without the markers that a chat template puts around them."""
    return sum(map(len, _processor().encode(list(texts), out_type=int, num_threads=1)))

"""Counts tokens with the tokenizer of Mistral-7B, the default base model, and with Tekken, a multilingual one.

Counts for other models' tokenizers are estimated from Tekken's: see ScriptTokens.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path

import orjson
from sentencepiece import SentencePieceProcessor
from tiktoken import Encoding

# The model of Mistral-7B v0.1. Later ones only add control tokens, which no dataset contains as text.
MODEL = "tokenizer.model.v1"
# Vocabulary of Mistral Nemo.
TEKKEN = "tekken_240718.json"
VOCABULARY, WORD = b'  "vocab": [\n', re.compile(rb'"token_bytes": "([^"]*)"')
# The tokenizer needs about fifty times the size of a text in memory, so a long text is counted in pieces of this many
# characters. No token spans a single space, so pieces cut there have the tokens of the whole. A text without such a space is
# cut anywhere, which adds a token or two a piece.
PIECE = 65_536
CUT = re.compile(r"(?<=[^ ]) (?=[^ ])")


@cache
def _processor() -> SentencePieceProcessor:
    path = Path(str(files("mistral_common").joinpath("data", MODEL)))
    return SentencePieceProcessor(model_file=str(path))


def count_tokens(texts: Sequence[str]) -> int:
    """Returns the tokens of all texts together, without those that a chat template adds."""
    if max(map(len, texts), default=0) <= PIECE:
        return sum(map(len, _processor().encode(list(texts), out_type=int, num_threads=1)))
    return sum(len(_processor().encode(piece, out_type=int)) for text in texts for piece in _pieces(text))


@cache
def _tekken() -> Encoding:
    """Reads the vocabulary line by line: parsed as one document, it takes 100 MB."""
    with files("mistral_common").joinpath("data", TEKKEN).open("rb") as file:
        head = b"".join(iter(file.readline, VOCABULARY))
        config = orjson.loads(head.rstrip().removesuffix(b",") + b"}")["config"]
        size = config["default_vocab_size"] - config["default_num_special_tokens"]
        words = (match[1] for line in file if (match := WORD.search(line)))
        ranks = {b64decode(word): rank for rank, word in enumerate(islice(words, size))}
    return Encoding(TEKKEN, pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={})


def count_tekken_tokens(texts: Sequence[str]) -> int:
    """Returns Tekken's tokens of all texts together."""
    return sum(len(_tekken().encode_ordinary(text)) for text in texts)


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PIECE:
        # A single space in the last eighth of the piece. A piece of blanks only, or of one word, has none.
        cut = next(CUT.finditer(text, start + PIECE * 7 // 8, start + PIECE), None)
        end = cut.start() if cut else start + PIECE
        yield text[start:end]
        start = cut.end() if cut else end
    yield text[start:]

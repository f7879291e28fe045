"""The scripts in which the samples of a dataset are written, and the tokens of each script with two tokenizers. Pure.

Tokenizers differ by script more than by anything else: Qwen makes 0.7 times as many tokens of Chinese text as Mistral Nemo, and
twice as many of Greek. The Estimator has a factor for each model and script.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

LATIN, HAN, KANA, OTHER = "latin", "han", "kana", "other"
SCRIPTS = {
    "cyrillic": re.compile("[\u0400-\u052f]"),
    "greek": re.compile("[\u0370-\u03ff]"),
    "arabic": re.compile("[\u0600-\u06ff\u0750-\u077f]"),
    "devanagari": re.compile("[\u0900-\u097f]"),
    "bengali": re.compile("[\u0980-\u09ff]"),
    "tamil": re.compile("[\u0b80-\u0bff]"),
    HAN: re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"),
    KANA: re.compile("[\u3040-\u30ff]"),
    "hangul": re.compile("[\u1100-\u11ff\uac00-\ud7af]"),
    LATIN: re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
}
LETTER = re.compile(r"[^\W\d_]")
# Bytes of a letter in UTF-8, by which letters are weighted: one of these scripts carries more text than a Latin letter.
LETTER_BYTES = {LATIN: 1, "cyrillic": 2, "greek": 2, "arabic": 2}
OTHER_BYTES = 3
# Han characters count as Japanese if at least this share of Han and kana is kana.
MIN_KANA = 0.1
# The first samples are all counted, then every 32nd one. Characters of each text that are counted.
ALL_OF_FIRST, ONE_IN, SAMPLED_CHARACTERS = 256, 32, 8_192

Count = Callable[[Sequence[str]], int]


class ScriptTokens:
    """Counts tokens of a dataset by script, with two tokenizers, from a part of its samples."""

    def __init__(self, count: Count, count_again: Count) -> None:
        self._count, self._count_again = count, count_again
        self._tokens: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def add(self, number: int, texts: Sequence[str], tokens: int) -> None:
        """Counts sample `number`, from 1, if it is in the part. `tokens`: its tokens with the first tokenizer."""
        if number > ALL_OF_FIRST and number % ONE_IN:
            return
        weight = ONE_IN if number > ALL_OF_FIRST else 1
        starts = [text[:SAMPLED_CHARACTERS] for text in texts]
        if max(map(len, texts), default=0) > SAMPLED_CHARACTERS:
            tokens = self._count(starts)
        both = self._tokens[script_of(starts)]
        both[0] += weight * tokens
        both[1] += weight * self._count_again(starts)

    def result(self) -> dict[str, list[int]]:
        """Returns the tokens with both tokenizers by script."""
        return dict(self._tokens)


def script_of(texts: Sequence[str]) -> str:
    """Returns the script of most of the texts' letters, weighted by LETTER_BYTES."""
    text = "".join(texts)
    if text.isascii():
        return LATIN
    letters = {name: len(pattern.findall(text)) for name, pattern in SCRIPTS.items()}
    letters[OTHER] = len(LETTER.findall(text)) - sum(letters.values())
    if letters[KANA] >= MIN_KANA * (letters[KANA] + letters[HAN]):
        letters[KANA] += letters.pop(HAN)
    return max(letters, key=lambda name: letters[name] * LETTER_BYTES.get(name, OTHER_BYTES))

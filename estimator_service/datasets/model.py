"""The statistics of a dataset that an estimate uses, and its samples' lengths once they are cut. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

ScriptTokens = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Statistics of a dataset that is ready for training; None or empty where they were not counted.

    Tokens are those of Mistral-7B's tokenizer. `bins`: (tokens of the longest sample in the bin, samples), shortest first.
    `longest` is in tokens. `revision` changes with the content. `validation_tokens` are those of a validation dataset.
    `script_tokens` are from a part of the samples: (script, tokens, Tekken's tokens).
    """

    name: str
    pairs: int | None
    tokens: int | None
    validation_pairs: int | None = None
    longest: int | None = None
    bins: tuple[tuple[int, int], ...] = ()
    revision: str = ""
    validation_tokens: int | None = None
    script_tokens: ScriptTokens = ()

    def in_tokens(self, ratio: float) -> Dataset:
        """Returns the dataset in the tokens of a tokenizer that makes `ratio` times as many."""
        return replace(
            self,
            tokens=None if self.tokens is None else max(1, round(self.tokens * ratio)),
            longest=None if self.longest is None else math.ceil(self.longest * ratio),
            bins=tuple((math.ceil(edge * ratio), samples) for edge, samples in self.bins),
            validation_tokens=None if self.validation_tokens is None else round(self.validation_tokens * ratio),
        )

    def with_validation(self, other: Dataset) -> Dataset:
        """Returns the dataset with another one as its validation dataset."""
        return replace(
            self,
            validation_pairs=other.pairs,
            validation_tokens=other.tokens,
            revision=f"{self.revision} {other.revision}",
        )


@dataclass(frozen=True, slots=True)
class Lengths:
    """A dataset's samples after they are cut at a length."""

    samples: int
    tokens: float  # of all samples, after the cut
    truncated_share: float | None  # of the samples; None: lengths were not counted
    bins: tuple[tuple[float, int], ...]

    @property
    def mean(self) -> float:
        """Tokens of a sample."""
        return self.tokens / self.samples

    def padding(self, batch: int) -> float:
        """Tokens with padding divided by tokens, where a batch is padded to its longest sample; 1 if lengths were not counted.

        The expected longest of `batch` random samples: each bin's edge times the probability that the longest is in the bin.
        """
        if batch == 1 or not self.bins:
            return 1.0
        below, probability, expected = 0, 0.0, 0.0
        for edge, samples in self.bins:
            below += samples
            at_most = (below / self.samples) ** batch
            expected, probability = expected + edge * (at_most - probability), at_most
        return max(1.0, expected / self.mean)


@lru_cache(maxsize=1024)
def cut(dataset: Dataset, length: int, *, default_pairs: int, default_tokens_per_pair: int) -> Lengths:
    """Returns the dataset's samples cut at `length` tokens. Without bins every sample has the mean length."""
    pairs = dataset.pairs or default_pairs
    tokens = float(dataset.tokens or default_tokens_per_pair * pairs)
    samples = sum(count for _, count in dataset.bins) or pairs
    if not dataset.bins:
        return Lengths(samples, min(tokens, float(samples) * length), None, ())
    middles = _middles(dataset.bins)
    counted = sum(middle * count for middle, count in middles)
    scaled = [(middle * tokens / counted, count) for middle, count in middles]
    bins = tuple((min(middle, float(length)), count) for middle, count in scaled)
    over = sum(count for edge, count in dataset.bins if edge > length)
    return Lengths(samples, sum(middle * count for middle, count in bins), over / samples, bins)


def _middles(bins: tuple[tuple[int, int], ...]) -> list[tuple[float, int]]:
    """Returns (mean length, samples) of each bin: half way to the bin below if that is adjacent, else close to its edge."""
    middles, before = [], 0
    for edge, count in bins:
        middles.append(((edge + max(before, edge * 0.84)) / 2.0, count))
        before = edge
    return middles

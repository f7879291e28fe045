"""Lengths of samples: quantiles and a histogram, in bounded memory. Pure."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise

# Lengths are counted one by one up to here; a longer sample counts as this long.
MAX_LENGTH = 65_536
# Upper edges of bins, which grow by the fourth root of 2.
EDGES = sorted({round(2 ** (step / 4)) for step in range(4 * 16 + 1)})


class Lengths:
    """Lengths of samples, in tokens."""

    def __init__(self) -> None:
        self.samples = 0
        self.total = 0
        self.longest = 0
        # Samples by length.
        self._counts: dict[int, int] = {}

    def add(self, tokens: int) -> None:
        """Counts one sample."""
        self.samples += 1
        self.total += tokens
        self.longest = max(self.longest, tokens)
        length = min(tokens, MAX_LENGTH)
        self._counts[length] = self._counts.get(length, 0) + 1

    def quantile(self, share: float) -> int:
        """Returns the length that a share of the samples does not exceed; 0 without samples."""
        lengths = sorted(self._counts)
        if not lengths:
            return 0
        return lengths[bisect_left(list(accumulate(self._counts[each] for each in lengths)), share * self.samples)]

    def histogram(self) -> list[tuple[int, int]]:
        """Returns upper edge and number of samples of each bin that has samples. The last edge is the longest sample."""
        bins: list[tuple[int, int]] = []
        for low, high in pairwise([-1, *EDGES]):
            samples = sum(count for length, count in self._counts.items() if low < length <= high)
            if samples:
                bins.append((high, samples))
        return [*bins[:-1], (self.longest, bins[-1][1])] if bins else []

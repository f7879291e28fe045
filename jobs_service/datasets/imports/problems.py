"""Errors or warnings of the rows of a file: each reason once, with its lines. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Indices in a path such as `messages[3].content`. Reasons that differ only in these are the same.
INDEX = re.compile(r"\[\d+\]")
MAX_REASONS = 50
MAX_LINES = 10


@dataclass(slots=True)
class Problem:
    """A reason, its first line, and how often it occurs.

    Line 0 is the file as a whole; column 0 the line as a whole. `text`: the text around the first occurrence.
    """

    line: int
    reason: str
    kind: str = ""
    column: int = 0
    text: str = ""
    count: int = 0
    lines: list[int] = field(default_factory=list)


class Problems:
    """Problems by reason, for the first MAX_REASONS reasons, and the total of all."""

    def __init__(self) -> None:
        self.total = 0
        self._by_reason: dict[tuple[str, str], Problem] = {}

    def add(self, line: int, reason: str, *, kind: str = "", column: int = 0, text: str = "") -> None:
        """Counts one occurrence."""
        self.total += 1
        # PostgreSQL stores no NUL.
        reason, text = reason.replace("\0", ""), text.replace("\0", "")
        key = (kind, INDEX.sub("[]", reason))
        problem = self._by_reason.get(key)
        if problem is None:
            if len(self._by_reason) == MAX_REASONS:
                return
            problem = self._by_reason[key] = Problem(line, reason, kind, column, text)
        problem.count += 1
        if len(problem.lines) < MAX_LINES and (not problem.lines or problem.lines[-1] != line):
            problem.lines.append(line)

    def all(self) -> list[Problem]:
        """Returns the problems, in the order of their first lines."""
        return list(self._by_reason.values())

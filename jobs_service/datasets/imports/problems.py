"""What is wrong with the rows of a file, or not used of them: each reason once, with its rows. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Numbers in a path such as `messages[3].content`: the same reason in another place.
INDEX = re.compile(r"\[\d+\]")
MAX_REASONS = 50
MAX_LINES = 10


@dataclass(slots=True)
class Problem:
    """A reason, the first line with it, and how many there are.

    Line 0 is the file as a whole; column 0 the line as a whole. `text`: the text around the first.
    """

    line: int
    reason: str
    kind: str = ""
    column: int = 0
    text: str = ""
    count: int = 0
    lines: list[int] = field(default_factory=list)


class Problems:
    """Problems of one sort by reason, the first 50 reasons in full, and how many there are in all."""

    def __init__(self) -> None:
        self.total = 0
        self._by_reason: dict[tuple[str, str], Problem] = {}

    def add(self, line: int, reason: str, *, kind: str = "", column: int = 0, text: str = "") -> None:
        """Counts one."""
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
        """The reasons, in the order of their first lines."""
        return list(self._by_reason.values())

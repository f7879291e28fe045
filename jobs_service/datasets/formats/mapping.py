"""The mapping of columns and roles that is chosen at upload. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs_service.datasets.formats.roles import SPELLINGS

COLUMN_ROLES = frozenset({*SPELLINGS, "prompt", "completion", "text", "messages", "tools", "ignore"}) - {"tool"}
MAPPING_ROLES = COLUMN_ROLES | {"tool"}


class ColumnMapping:
    """Entries `name → role`. A name is a column of the file, or a role's spelling in its messages."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        self.roles = {name: role for name, role in entries.items() if role in SPELLINGS}
        self.ignored = frozenset(name for name, role in entries.items() if role == "ignore")
        self._columns = {name: role for name, role in entries.items() if role in COLUMN_ROLES and role != "ignore"}

    @classmethod
    def parse(cls, entries: Sequence[str]) -> ColumnMapping:
        """Parses entries of the form `name:role`. Raises ValueError if one is malformed or a name occurs twice."""
        found: dict[str, str] = {}
        for entry in entries:
            name, _, role = entry.rpartition(":")
            if not name or role not in MAPPING_ROLES:
                raise ValueError(
                    f"`{entry[:80]}` must be a column, a colon and one of {', '.join(sorted(MAPPING_ROLES))}"
                )
            if name in found:
                raise ValueError(f"`{name[:80]}` is mapped twice")
            found[name] = role
        return cls(found)

    def columns_of(self, row: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the roles of all mapped columns; empty for a row that has none of them."""
        return self._columns if self._columns.keys() & row.keys() else {}

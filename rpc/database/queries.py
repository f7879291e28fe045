"""Statements in `.sql` files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files


def load_queries(package: str, name: str) -> Mapping[str, str]:
    """Reads a `.sql` file of a package: statements by the name in the `-- name:` line above each."""
    parts = re.split(r"^-- name: (\w+)\n", files(package).joinpath(name).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


SQL = load_queries("rpc.database", "queries.sql")

"""Statements in `.sql` files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

LEADING_COMMENTS = re.compile(r"\A(?:--[^\n]*\n)*")


def load_queries(package: str, name: str) -> Mapping[str, str]:
    """Reads a `.sql` file of a package: statements by the name in the `-- name:` line above each.

    Each statement begins with its name, `/* name */`, for traces and for `pg_stat_activity`.
    """
    parts = re.split(r"^-- name: (\w+)\n", files(package).joinpath(name).read_text(), flags=re.MULTILINE)
    names, texts = parts[1::2], (LEADING_COMMENTS.sub("", text).strip() for text in parts[2::2])
    return {name: f"/* {name} */ {text}" for name, text in zip(names, texts, strict=True)}


SQL = load_queries("rpc.database", "queries.sql")

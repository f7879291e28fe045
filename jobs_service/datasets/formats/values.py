"""Strings and JSON inside a row, checked. Each function takes the value's path in the row for its error. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from jobs_service.datasets.formats.sample import BadRowError


def string(value: Any, path: str, *, may_be_empty: bool = False) -> str:
    """A string without NUL characters. Raises BadRowError."""
    if not isinstance(value, str):
        raise BadRowError(f"`{path}` must be a string")
    if not may_be_empty and not value.strip():
        raise BadRowError(f"`{path}` is empty")
    if "\0" in value:
        raise BadRowError(f"`{path}` contains a NUL character")
    return value


def optional_string(value: Any, path: str) -> str:
    """The same where a value may be missing: then an empty string. Raises BadRowError."""
    return "" if value is None else string(value, path, may_be_empty=True)


def from_json_text(value: Any, path: str) -> Any:
    """The value that a string of JSON holds; any other value as it is. Raises BadRowError."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        if value.lstrip()[:2] in ("[{", "['", "{'") and "'" in value:
            raise BadRowError(
                f"`{path}` is a string of Python's notation, not of JSON: write it with json.dumps"
            ) from None
        raise BadRowError(f"`{path}` is a string that holds no JSON") from None


def to_json_text(value: Any, path: str) -> str:
    """A value as a string of JSON; a string as it is. Raises BadRowError."""
    if isinstance(value, str):
        return string(value, path, may_be_empty=True)
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # Only depth distinguishes what can be read from what can be written.
        raise BadRowError(f"`{path}` is nested too deep") from None


def code_list(names: object, *, most: int = 12) -> str:
    """Names in backquotes, cut where they are many or long."""
    listed = [f"`{str(name)[:40]}`" for name in names]  # type: ignore[attr-defined]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")

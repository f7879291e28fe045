"""Checks strings and JSON inside a row. `path`: the value's path in the row, for errors. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from jobs_service.datasets.formats.sample import BadRowError


def string(value: Any, path: str, *, may_be_empty: bool = False) -> str:
    """Returns a string without NUL characters. Raises BadRowError."""
    if not isinstance(value, str):
        raise BadRowError(f"`{path}` must be a string")
    if not may_be_empty and not value.strip():
        raise BadRowError(f"`{path}` is empty")
    if "\0" in value:
        raise BadRowError(f"`{path}` contains a NUL character")
    return value


def optional_string(value: Any, path: str) -> str:
    """Returns the same; an empty string for None. Raises BadRowError."""
    return "" if value is None else string(value, path, may_be_empty=True)


def from_json_text(value: Any, path: str) -> Any:
    """Returns the value of a JSON text; any other value as it is. Raises BadRowError."""
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
    """Returns a value as JSON text; a string as it is. Raises BadRowError."""
    if isinstance(value, str):
        return string(value, path, may_be_empty=True)
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # orjson reads deeper nesting than it writes; nothing else that it reads cannot be written.
        raise BadRowError(f"`{path}` is nested too deep") from None


def code_list(names: object, *, most: int = 12) -> str:
    """Returns names in backquotes: the first ones if there are many, long ones cut."""
    listed = [f"`{str(name)[:40]}`" for name in names]  # type: ignore[attr-defined]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")

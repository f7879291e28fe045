"""Checks custom resources against the schemas of their own projects, as an API server does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).with_name("crds")


@lru_cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_strict(json.loads((FOLDER / f"{kind.lower()}.json").read_text())))


def problems(resource: Mapping[str, Any]) -> list[str]:
    """Returns what an API server would refuse in a resource, including unknown fields (`--validate=strict`)."""
    errors = _validator(resource["kind"]).iter_errors({**resource, "metadata": {}})
    return [f"{error.json_path}: {error.message}" for error in errors]


def _strict(schema: Any) -> Any:
    """Returns the schema without additional properties."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items()}
    has_fields = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if has_fields and not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
        strict["additionalProperties"] = False
    return strict

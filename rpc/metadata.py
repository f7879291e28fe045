"""Metadata of a call: one value for each key, and the request id."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping

REQUEST_ID = "x-request-id"
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,128}")

Metadata = Mapping[str, str | bytes]


def as_mapping(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """Returns metadata by key. Values of a repeated key are joined as in HTTP, so that two tokens are not a valid one."""
    pairs = tuple(metadata or ())
    values = dict(pairs)
    if len(values) < len(pairs):
        for key in values:
            texts = [value for name, value in pairs if name == key and isinstance(value, str)]
            if len(texts) > 1:
                values[key] = ", ".join(texts)
    return values


def text(metadata: Metadata, key: str) -> str | None:
    """Returns the value of a key. None: there is no value, or it is bytes."""
    value = metadata.get(key)
    return value if isinstance(value, str) else None


def accept_request_id(request_id: str | None) -> str:
    """Returns the caller's request id if it is well-formed, else a new one."""
    if request_id and REQUEST_ID_PATTERN.fullmatch(request_id):
        return request_id
    return f"{random.getrandbits(128):032x}"

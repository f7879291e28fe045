"""Reads the fields that are in a request's path and query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.api.decode import decode_text, message_type
from gateway.errors import UriTooLong
from rpc.errors import MalformedRequest, ValidationFailed

MAX_QUERY_BYTES = 16 * 1024
MAX_PAIRS = 100
STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")

Fields = Mapping[str, FieldDescriptor]


def can_be_text(field: FieldDescriptor) -> bool:
    """Whether a path or query can carry this field."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return message_type(field).full_name == Timestamp.DESCRIPTOR.full_name
    return field.type != FieldDescriptor.TYPE_BYTES


def parse_query(query: bytes, fields: Fields) -> dict[str, Any]:
    """Returns the fields that a query string sets, by the names of `fields`. `+` is a space, as in forms.

    Raises UriTooLong, ValidationFailed and MalformedRequest.
    """
    if not query:
        return {}
    if len(query) > MAX_QUERY_BYTES:
        raise UriTooLong("query", MAX_QUERY_BYTES)
    pairs = query.split(b"&")
    if len(pairs) > MAX_PAIRS:
        raise MalformedRequest(details=f"The query may have at most {MAX_PAIRS} parameters.")
    values: dict[str, Any] = {}
    violations: list[tuple[str, str]] = []
    for pair in pairs:
        raw_name, _, raw_value = pair.partition(b"=")
        name, text = percent_decode(raw_name.replace(b"+", b" ")), percent_decode(raw_value.replace(b"+", b" "))
        field = fields.get(name)
        if field is None:
            valid = f"this path has {', '.join(fields)}" if fields else "this path has none"
            violations.append((name, f"no such query parameter; {valid}"))
        elif name in values and not field.is_repeated:
            violations.append((name, "is sent twice"))
        else:
            try:
                value = decode_text(field, text)
            except ValueError as error:
                violations.append((name, str(error)))
                continue
            if field.is_repeated:
                values.setdefault(name, []).append(value)
            else:
                values[name] = value
    if violations:
        raise ValidationFailed(violations)
    return values


def percent_decode(raw: bytes) -> str:
    """Decodes percent-encoded text, once. Raises MalformedRequest if a percent sign is stray or the result not UTF-8."""
    if STRAY_PERCENT.search(raw) or not raw.isascii():
        raise MalformedRequest(details="The path or query is not percent-encoded correctly.")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise MalformedRequest(details="The path or query is not UTF-8.") from None

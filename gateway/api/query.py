"""Path and query text → contract fields. Text that is not exactly a value of the field's type is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic_core import PydanticCustomError

from gateway.api.decode import INTEGER, NUMBER, enum_words, message_type, to_timestamp
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
                value = from_text(field, text)
            except ValueError as error:
                violations.append((name, error.message() if isinstance(error, PydanticCustomError) else str(error)))
                continue
            if field.is_repeated:
                values.setdefault(name, []).append(value)
            else:
                values[name] = value
    if violations:
        raise ValidationFailed(violations)
    return values


def percent_decode(raw: bytes) -> str:
    """Decodes once. Raises MalformedRequest if the result is not text."""
    if STRAY_PERCENT.search(raw) or not raw.isascii():
        raise MalformedRequest(details="The path or query is not percent-encoded correctly.")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise MalformedRequest(details="The path or query is not UTF-8.") from None


def from_text(field: FieldDescriptor, text: str) -> Any:
    """Returns a field's value from a path or query. Raises ValueError with what it must be."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return text
        case FieldDescriptor.CPPTYPE_BOOL:
            if text not in ("true", "false"):
                raise ValueError("must be true or false")
            return text == "true"
        case FieldDescriptor.CPPTYPE_ENUM:
            words = enum_words(field.enum_type)
            if text not in words:
                raise ValueError(f"must be one of {', '.join(words)}")
            return words[text]
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            if NUMBER.fullmatch(text) is None:
                raise ValueError("must be a number")
            return float(text)
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return to_timestamp(text)
    bits = 32 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    unsigned = field.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    low, high = (0, 2**bits) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    if INTEGER.fullmatch(text) is None or not low <= int(text) < high:
        raise ValueError(f"must be a whole number of {bits} bits")
    return int(text)

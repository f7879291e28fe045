"""Path and query text → contract fields. Strict: what is not exactly a value of the field's type is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic_core import PydanticCustomError

from gateway.api.decode import message_of, to_timestamp, words
from gateway.errors import UriTooLong
from rpc.errors import MalformedRequest, ValidationFailed

MAX_PATH_BYTES = 4 * 1024
MAX_QUERY_BYTES = 16 * 1024
MAX_PAIRS = 100
STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII)
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)

Fields = Mapping[str, FieldDescriptor]


def can_be_text(field: FieldDescriptor) -> bool:
    """Whether a path or query can carry this field."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return message_of(field).full_name == Timestamp.DESCRIPTOR.full_name
    return field.type != FieldDescriptor.TYPE_BYTES


def parse_query(query: bytes, fields: Fields) -> dict[str, Any]:
    """The fields that a query string sets. `+` is a space, as in forms. Raises ValidationFailed and MalformedRequest."""
    if len(query) > MAX_QUERY_BYTES:
        raise UriTooLong("query", MAX_QUERY_BYTES)
    if not query:
        return {}
    pairs = query.split(b"&")
    if len(pairs) > MAX_PAIRS:
        raise MalformedRequest("Malformed request", details=f"The query may have {MAX_PAIRS} pairs at most.")
    given: dict[str, Any] = {}
    wrong: list[tuple[str, str]] = []
    for pair in pairs:
        raw_name, _, raw_value = pair.partition(b"=")
        name, text = decode(raw_name.replace(b"+", b" ")), decode(raw_value.replace(b"+", b" "))
        field = fields.get(name)
        if field is None:
            known = f"there are {', '.join(fields)}" if fields else "there are none"
            wrong.append((name, f"no such query parameter; {known}"))
        elif field.is_repeated:
            given.setdefault(name, []).append(_checked(field, name, text, wrong))
        elif name in given:
            wrong.append((name, "is given twice"))
        else:
            given[name] = _checked(field, name, text, wrong)
    if wrong:
        raise ValidationFailed(wrong)
    return given


def decode(raw: bytes) -> str:
    """Percent-decodes once. Raises MalformedRequest where that gives no text."""
    if STRAY_PERCENT.search(raw) or not raw.isascii():
        raise MalformedRequest("Malformed request", details="The path or query is not percent-encoded as it must be.")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise MalformedRequest("Malformed request", details="The path or query is not UTF-8.") from None


def _checked(field: FieldDescriptor, name: str, text: str, wrong: list[tuple[str, str]]) -> Any:
    try:
        return from_text(field, text)
    except ValueError as error:
        wrong.append((name, error.message() if isinstance(error, PydanticCustomError) else str(error)))
        return None


def from_text(field: FieldDescriptor, text: str) -> Any:
    """The value of a field that stands in a path or query. Raises ValueError that says what it must be."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return text
        case FieldDescriptor.CPPTYPE_BOOL:
            if text not in ("true", "false"):
                raise ValueError("must be true or false")
            return text == "true"
        case FieldDescriptor.CPPTYPE_ENUM:
            known = words(field.enum_type)
            if text not in known:
                raise ValueError(f"must be one of {', '.join(known)}")
            return known[text]
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

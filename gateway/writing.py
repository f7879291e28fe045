"""Contract messages → JSON values.

A page of jobs has a thousand fields. Going through a list of fields costs more than the fields themselves, so each message
gets a function of its own, written out from its descriptor as one would write it by hand:

    def write(m):
        has = m.HasField
        return {"id": m.id, "final_cost": m.final_cost if has("final_cost") else None, …}
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.messages import is_map, json_name, message_of, words

Write = Callable[[Any], Any]

# Without a time zone: times are written in UTC, with `Z` after them.
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001


@cache
def writer(message: Descriptor) -> Write:
    """Makes a message's JSON object: every field is in it; one that is unset and may be is null."""
    names: dict[str, Any] = {}
    fields = ", ".join(f"{json_name(field)!r}: {_shown(field, names)}" for field in message.fields)
    return _compiled(f"{{{fields}}}", names)


def field_writer(message: Descriptor, name: str) -> Write:
    """The same for one field of a message, as a `response_body` names it."""
    names: dict[str, Any] = {}
    return _compiled(_value(message.fields_by_name[name], names), names)


def _compiled(expression: str, names: dict[str, Any]) -> Write:
    source = f"def write(m):\n    has = m.HasField\n    return {expression}"
    exec(source, names)  # noqa: S102 - what is in it are names of our contracts
    write: Write = names["write"]
    return write


def _shown(field: FieldDescriptor, names: dict[str, Any]) -> str:
    value = _value(field, names)
    return f"{value} if has({field.name!r}) else None" if field.has_presence else value


def _value(field: FieldDescriptor, names: dict[str, Any]) -> str:
    """The expression of a field that is set; what it calls is put into `names`."""
    here = f"m.{field.name}"
    of = message_of(field).fields_by_name["value"] if is_map(field) else field
    convert = _converter(of)
    call = f"write_{field.name}"
    if convert is not None:
        names[call] = convert
    one = "each" if convert is None else f"{call}(each)"
    if is_map(field):
        return f"{{str(key): {one} for key, each in {here}.items()}}"
    if field.is_repeated:
        return f"[{one} for each in {here}]"
    return here if convert is None else f"{call}({here})"


def _converter(field: FieldDescriptor) -> Write | None:
    """What makes one value of a field JSON; None where it is already."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return {number: word for word, number in words(field.enum_type).items()}.get
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        match message_of(field).full_name:
            case Timestamp.DESCRIPTOR.full_name:
                return _from_timestamp
            case Struct.DESCRIPTOR.full_name:
                return _from_struct
        return writer(message_of(field))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda data: base64.b64encode(data).decode()
    return None


def _from_timestamp(stamp: Timestamp) -> str:
    nanos = stamp.nanos
    if nanos % 1_000 == 0 and nanos % 1_000_000:
        # Microseconds, as PostgreSQL's times have: the same text in a quarter of the time.
        return f"{_second(stamp.seconds)}.{nanos // 1_000:06}Z"
    return stamp.ToJsonString()


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    """A second as text: the times of a message are often of the same one."""
    return (EPOCH + timedelta(0, seconds)).isoformat()


def _from_struct(struct: Struct) -> dict[str, Any]:
    fields = struct.fields
    return {key: _from_value(fields[key]) for key in fields}


def _from_value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _from_struct(value.struct_value)
        case "list_value":
            return [_from_value(each) for each in value.list_value.values]
    return None

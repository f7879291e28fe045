"""Contract messages → JSON values.

A page of jobs has a thousand fields. Going through a list of fields costs more than the fields themselves, so each message
gets a function of its own, written out from its descriptor as one would write it by hand. In one process a servicer may answer
with a message's fields, and the function has a half for either. They must be what the message's class would take: what is none
of its fields is left out here, where the class would refuse it.

    def write(m):
        if type(m) is dict:
            m = m if len(m) == 54 else unset | m
            return {"id": m["id"] or "", "final_cost": None if m["final_cost"] is None else float(m["final_cost"]), …}
        has = m.HasField
        return {"id": m.id, "final_cost": m.final_cost if has("final_cost") else None, …}
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.api.decode import is_map, json_name, message_of, words

Write = Callable[[Any], Any]

# Without a time zone: times are written in UTC, with `Z` after them.
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001


@cache
def writer(message: Descriptor) -> Write:
    """Makes a message's JSON object: every field is in it; one that is unset and may be is null."""
    return _compiled(message, {json_name(field): field for field in message.fields})


def field_writer(message: Descriptor, name: str) -> Write:
    """The same for one field of a message, as a `response_body` names it."""
    return _compiled(message, message.fields_by_name[name])


def _compiled(message: Descriptor, shown: FieldDescriptor | Mapping[str, FieldDescriptor]) -> Write:
    names: dict[str, Any] = {"unset": dict.fromkeys(field.name for field in message.fields)}

    def expression(*, as_fields: bool) -> str:
        if isinstance(shown, FieldDescriptor):
            return _shown(shown, names, as_fields=as_fields)
        return f"{{{', '.join(f'{name!r}: {_shown(field, names, as_fields=as_fields)}' for name, field in shown.items())}}}"

    source = (
        "def write(m):\n"
        "    if type(m) is dict:\n"
        f"        m = m if len(m) == {len(message.fields)} else unset | m\n"
        f"        return {expression(as_fields=True)}\n"
        "    has = m.HasField\n"
        f"    return {expression(as_fields=False)}"
    )
    exec(source, names)  # noqa: S102 - what is in it are names of our contracts
    write: Write = names["write"]
    return write


def _shown(field: FieldDescriptor, names: dict[str, Any], *, as_fields: bool) -> str:
    """The expression of a field, of a message or, `as_fields`, of a dictionary; what it calls is put into `names`."""
    here = f"m[{field.name!r}]" if as_fields else f"m.{field.name}"
    if as_fields and not field.has_presence:
        # To a message's class, None is unset as well.
        none: Any = {} if is_map(field) else () if field.is_repeated else field.default_value
        here = f"({here} or {none!r})"
    convert = _converter(message_of(field).fields_by_name["value"] if is_map(field) else field, as_fields=as_fields)
    call = f"write_{field.name}"
    if convert is not None:
        names[call] = convert
    one = "each" if convert is None else f"{call}(each)"
    if is_map(field):
        return f"{{str(key): {one} for key, each in {here}.items()}}"
    if field.is_repeated:
        return f"[{one} for each in {here}]"
    value = here if convert is None else f"{call}({here})"
    if not field.has_presence or value == f"m[{field.name!r}]":
        return value
    return f"{value} if {f'{here} is not None' if as_fields else f'has({field.name!r})'} else None"


def _converter(field: FieldDescriptor, *, as_fields: bool) -> Write | None:
    """What makes one value of a field JSON; None where it is already."""
    if field.enum_type is not None:
        known: dict[Any, str] = {number: word for word, number in words(field.enum_type).items()}
        return (known | {value.name: known.get(value.number) for value in field.enum_type.values}).get
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        match message_of(field).full_name:
            case Timestamp.DESCRIPTOR.full_name:
                return _from_timestamp
            case Struct.DESCRIPTOR.full_name:
                return _from_struct
        return writer(message_of(field))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda data: base64.b64encode(data).decode()
    # What a message's class would make a double may be a whole number still.
    return float if as_fields and field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else None


def _from_timestamp(stamp: Timestamp | dict[str, int]) -> str:
    seconds, nanos = (stamp["seconds"], stamp["nanos"]) if isinstance(stamp, dict) else (stamp.seconds, stamp.nanos)
    if nanos % 1_000 == 0 and nanos % 1_000_000:
        # Microseconds, as PostgreSQL's times have: the same text in a quarter of the time.
        return f"{_second(seconds)}.{nanos // 1_000:06}Z"
    return Timestamp(seconds=seconds, nanos=nanos).ToJsonString()


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    """A second as text: the times of a message are often of the same one."""
    return (EPOCH + timedelta(0, seconds)).isoformat()


def _from_struct(struct: Struct | dict[str, Any]) -> dict[str, Any]:
    if not struct:
        return {}
    if isinstance(struct, dict):
        # As a message has them, every number is a double.
        told, struct = struct, Struct()
        struct.update(told)
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

"""JSON → contract messages, worked out once for each message from its descriptor; `writing.py` is the way back.

Reading takes names and types strictly and leaves limits to the services, which check them for every caller alike.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, with_config
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

# JSON names are those of the contract. The exceptions, all of them:
JSON_NAMES: Mapping[str, str] = {"pipeline.common.v1.Pagination.total_pages": "totalPages"}

MAX_STRUCT_DEPTH = 32
STRICT = with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})")


def message_of(field: FieldDescriptor) -> Descriptor:
    """The message that a field of a message's type holds."""
    assert field.message_type is not None
    return field.message_type


def json_name(field: FieldDescriptor) -> str:
    """What a field is called in JSON."""
    return JSON_NAMES.get(field.full_name, field.name)


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request is none without this field."""
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def is_output_only(field: FieldDescriptor) -> bool:
    """Whether only we can say what this field holds."""
    return field_behavior_pb2.OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


@cache
def words(enum: EnumDescriptor) -> Mapping[str, int]:
    """An enum's words in JSON: its names in lower case without their common prefix. The unset value has none."""
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


@cache
def reader(message: Descriptor) -> TypeAdapter[dict[str, Any]]:
    """Checks a decoded JSON object and makes it keyword arguments of the message's class."""
    return TypeAdapter(_object(message))


@cache
def _object(message: Descriptor) -> Any:
    # A TypedDict and not a model: its value is the very dictionary that the message's class takes.
    fields = {json_name(field): _readable(field) | None for field in message.fields}
    shape: Any = STRICT(TypedDict(message.name, fields, total=False))  # type: ignore[operator] # mypy wants it written out
    groups = [[json_name(field) for field in each.fields] for each in message.oneofs if len(each.fields) > 1]
    if not groups:
        return shape

    def one_of_each(value: dict[str, Any]) -> dict[str, Any]:
        for names in groups:
            if sum(value.get(name) is not None for name in names) > 1:
                raise PydanticCustomError("oneof", "Only one of {names} may be set", {"names": ", ".join(names)})
        return value

    return Annotated[shape, AfterValidator(one_of_each)]


def _readable(field: FieldDescriptor) -> Any:
    if is_map(field):
        return dict[str, _single(message_of(field).fields_by_name["value"])]  # type: ignore[misc] # a type made at run time
    return list[_single(field)] if field.is_repeated else _single(field)  # type: ignore[misc] # a type made at run time


def _single(field: FieldDescriptor) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_INT32:
            return Annotated[int, Field(ge=-(2**31), lt=2**31)]
        case FieldDescriptor.CPPTYPE_INT64:
            return Annotated[int, Field(ge=-(2**63), lt=2**63)]
        case FieldDescriptor.CPPTYPE_UINT32:
            return Annotated[int, Field(ge=0, lt=2**32)]
        case FieldDescriptor.CPPTYPE_UINT64:
            return Annotated[int, Field(ge=0, lt=2**64)]
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return float
        case FieldDescriptor.CPPTYPE_BOOL:
            return bool
        case FieldDescriptor.CPPTYPE_ENUM:
            names = words(field.enum_type)
            return Annotated[Literal[tuple(names)], AfterValidator(names.__getitem__)]
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return _nested(message_of(field))
    return Annotated[str, AfterValidator(_from_base64)] if field.type == FieldDescriptor.TYPE_BYTES else str


def _nested(message: Descriptor) -> Any:
    match message.full_name:
        case Timestamp.DESCRIPTOR.full_name:
            return Annotated[str, AfterValidator(to_timestamp)]
        case Struct.DESCRIPTOR.full_name:
            return Annotated[dict[str, Any], AfterValidator(_to_struct)]
    return _object(message)


def _from_base64(text: str) -> bytes:
    if BASE64.fullmatch(text) is None or len(text.rstrip("=")) % 4 == 1:
        raise PydanticCustomError("base64", "Input should be base64")
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def to_timestamp(text: str) -> Timestamp:
    """Reads an RFC 3339 time. Raises PydanticCustomError."""
    stamp = Timestamp()
    try:
        if RFC3339.fullmatch(text) is None:
            raise ValueError("not RFC 3339")
        stamp.FromJsonString(text)
    except ValueError:
        raise PydanticCustomError("time", "Input should be an RFC 3339 time such as 2026-01-31T12:00:00Z") from None
    return stamp


def _to_struct(value: dict[str, Any]) -> Struct:
    if _depth(value, MAX_STRUCT_DEPTH) > MAX_STRUCT_DEPTH:
        raise PydanticCustomError("depth", "Input should be nested at most {depth} deep", {"depth": MAX_STRUCT_DEPTH})
    struct = Struct()
    struct.update(value)
    return struct


def _depth(value: Any, limit: int) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(each, limit - 1) for each in inner), default=0) if limit >= 0 else 1

"""Decodes JSON to the fields of a request message, with a pydantic type made once for each message from its descriptor.

Names and types are checked here. Limits are checked by the services, for callers over gRPC as well (`rpc/boundary.py`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

import jiter
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from rpc.errors import MalformedRequest, ValidationFailed

# JSON names are those of the contract, with these exceptions:
JSON_NAMES: Mapping[str, str] = {"pipeline.common.v1.Pagination.total_pages": "totalPages"}

# A body with more errors, or an object with more names, is refused as a whole.
MAX_ERRORS = 100
# Unknown names are quoted up to this length.
MAX_NAME_CHARACTERS = 100
MAX_STRUCT_DEPTH = 32
# Above this, a float no longer says which whole number was meant.
MAX_EXACT_FLOAT = 2**53
CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})")
INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})", re.ASCII)
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)


def message_type(field: FieldDescriptor) -> Descriptor:
    """Returns the type of a message field."""
    assert field.message_type is not None
    return field.message_type


def json_name(field: FieldDescriptor) -> str:
    """Returns the name of a field in JSON."""
    return JSON_NAMES.get(field.full_name, field.name)


def is_required(field: FieldDescriptor) -> bool:
    """Whether the contract marks a field as REQUIRED."""
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def is_output_only(field: FieldDescriptor) -> bool:
    """Whether the contract marks a field as OUTPUT_ONLY."""
    return field_behavior_pb2.OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


@cache
def enum_words(enum: EnumDescriptor) -> Mapping[str, int]:
    """Returns an enum's numbers by their words in JSON: lower case, without the common prefix; zero, for unset, has none."""
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


def decode_object(
    body: bytes, message: Descriptor, *, path: str = "", output_only: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Decodes a JSON object to the keyword arguments of a message's class. `path` is the object's own field path.

    Fields in `output_only` are ignored (AIP-203), except where that would lose a reference: see `_check_references`. Raises
    MalformedRequest and ValidationFailed.
    """
    try:
        value = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedRequest(details=f"The body is not valid JSON: {_shortened(str(error))}.") from None
    if not isinstance(value, dict):
        raise MalformedRequest(details="The body must be a JSON object.")
    if len(value) > MAX_ERRORS:
        raise MalformedRequest(details=f"The body may have at most {MAX_ERRORS} names.")
    ignored = output_only & value.keys()
    _check_references(value, ignored, message)
    for name in ignored:
        del value[name]
    try:
        return decoder(message).validate_python(value)
    except ValidationError as error:
        if error.error_count() > MAX_ERRORS:
            raise MalformedRequest(details=f"More than {MAX_ERRORS} errors.") from None
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise ValidationFailed([(_path(path, each["loc"]), _message(each)) for each in errors]) from None


@cache
def decoder(message: Descriptor) -> TypeAdapter[dict[str, Any]]:
    """Returns the type that checks a JSON object and converts it to keyword arguments of the message's class."""
    return TypeAdapter(_object_type(message))


def decode_text(field: FieldDescriptor, text: str) -> Any:
    """Decodes a value from the text of a path or query, by the type that JSON has. Raises ValueError with what is wrong."""
    value = {"true": True, "false": False}.get(text, text) if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else text
    try:
        return _value_decoder(field).validate_python(value)
    except ValidationError as error:
        raise ValueError(error.errors(include_url=False)[0]["msg"]) from None


@cache
def _value_decoder(field: FieldDescriptor) -> TypeAdapter[Any]:
    return TypeAdapter(_value_type(field), config=ConfigDict(strict=True, allow_inf_nan=False))


def _check_references(value: Mapping[str, Any], ignored: frozenset[str], message: Descriptor) -> None:
    """Raises ValidationFailed if `X` was sent, which only the server sets, and the `X_id` by which a client sets it was not."""
    lost = [
        (name, f"set by the server: send its id as `{name}_id`")
        for name in sorted(ignored)
        if value[name] is not None and f"{name}_id" in message.fields_by_name and value.get(f"{name}_id") is None
    ]
    if lost:
        raise ValidationFailed(lost)


@cache
def _object_type(message: Descriptor) -> Any:
    # A TypedDict and not a model: the class of a message takes a dictionary.
    fields = {json_name(field): _field_type(field) | None for field in message.fields}
    object_type: Any = with_config(CONFIG)(TypedDict(message.name, fields, total=False))  # type: ignore[operator] # made at run time
    groups = [[json_name(field) for field in oneof.fields] for oneof in message.oneofs if len(oneof.fields) > 1]
    if not groups:
        return object_type

    def check_oneofs(value: dict[str, Any]) -> dict[str, Any]:
        for names in groups:
            if sum(value.get(name) is not None for name in names) > 1:
                raise PydanticCustomError("oneof", "Only one of {names} may be set", {"names": ", ".join(names)})
        return value

    return Annotated[object_type, AfterValidator(check_oneofs)]


def _field_type(field: FieldDescriptor) -> Any:
    if is_map(field):
        return dict[str, _value_type(message_type(field).fields_by_name["value"])]  # type: ignore[misc] # made at run time
    return list[_value_type(field)] if field.is_repeated else _value_type(field)  # type: ignore[misc] # made at run time


def _value_type(field: FieldDescriptor) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_INT32:
            return _integer_type(-(2**31), 2**31)
        case FieldDescriptor.CPPTYPE_INT64:
            return _integer_type(-(2**63), 2**63)
        case FieldDescriptor.CPPTYPE_UINT32:
            return _integer_type(0, 2**32)
        case FieldDescriptor.CPPTYPE_UINT64:
            return _integer_type(0, 2**64)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return Annotated[float, BeforeValidator(_to_float)]
        case FieldDescriptor.CPPTYPE_BOOL:
            return bool
        case FieldDescriptor.CPPTYPE_ENUM:
            words = enum_words(field.enum_type)
            return Annotated[Literal[tuple(words)], AfterValidator(words.__getitem__)]
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return _message_type(message_type(field))
    return Annotated[str, AfterValidator(_from_base64)] if field.type == FieldDescriptor.TYPE_BYTES else str


def _integer_type(low: int, high: int) -> Any:
    return Annotated[int, Field(ge=low, lt=high), BeforeValidator(_to_integer)]


def _message_type(message: Descriptor) -> Any:
    match message.full_name:
        case Timestamp.DESCRIPTOR.full_name:
            return Annotated[str, AfterValidator(_to_timestamp)]
        case Struct.DESCRIPTOR.full_name:
            return Annotated[dict[str, Any], AfterValidator(_to_struct)]
    return _object_type(message)


def _to_integer(value: Any) -> Any:
    """Accepts a whole number as text, and a float without a fraction, as Protobuf's JSON mapping does."""
    if type(value) is str and INTEGER.fullmatch(value):
        return int(value)
    if type(value) is float and value.is_integer() and abs(value) < MAX_EXACT_FLOAT:
        return int(value)
    return value


def _to_float(value: Any) -> Any:
    """Accepts a number as text, as Protobuf's JSON mapping does, but not NaN and infinity."""
    return float(value) if type(value) is str and NUMBER.fullmatch(value) else value


def _from_base64(text: str) -> bytes:
    if BASE64.fullmatch(text) is None or len(text.rstrip("=")) % 4 == 1:
        raise PydanticCustomError("base64", "Input should be base64")
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def _to_timestamp(text: str) -> Timestamp:
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


def _path(prefix: str, location: tuple[int | str, ...]) -> str:
    path = prefix
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{_shortened(part)}" if path else _shortened(part)
    return path


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_NAME_CHARACTERS else f"{text[:MAX_NAME_CHARACTERS]}…"


def _message(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "no such field"
        case "dict_type":
            return "Input should be an object"
    return str(error["msg"])

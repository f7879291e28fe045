"""JSON of messages, compared with protobuf's own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.__main__ import ESTIMATOR, JOBS
from gateway.api.decode import enum_words, is_map, json_name
from gateway.api.encode import encoder

MESSAGES = [
    message
    for file in {service.file.name: service.file for service in (*ESTIMATOR, *JOBS)}.values()
    for message in file.message_types_by_name.values()
]
NANOS = [0, 5_000_000, 120_000_000, 656_251_000, 1_000, 1, 999_999_999]
SECONDS = [0, 1_790_000_000, -1, -62_135_596_800, 253_402_300_799]
STRUCT = {"a": 1, "b": 0.5, "c": [None, True, {"d": "x"}, []], "e": {}}
WKT = "google.protobuf."


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_a_writer_says_what_protobuf_says(message: Descriptor) -> None:
    """Of random messages of every kind, ours is protobuf's JSON but for what the contract's JSON has otherwise."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for share in (0.0, 0.5, 0.9, 1.0):
        for _ in range(5):
            made = fill(GetMessageClass(message)(), chance, share)
            theirs = MessageToDict(made, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            assert encoder(message)(made) == dict(ours(message, theirs))


def fill(message: Any, chance: random.Random, share: float) -> Any:
    """Sets about that share of a message's fields to values by chance."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() >= share:
            continue
        here = getattr(message, field.name)
        if is_map(field):
            of = field.message_type.fields_by_name["value"]
            here.update({chance.choice("abcdef"): value(of, chance, share) for _ in range(3)})
        elif field.is_repeated:
            here.extend(value(field, chance, share) for _ in range(chance.randrange(4)))
        elif field.message_type:
            here.CopyFrom(value(field, chance, share))
        else:
            setattr(message, field.name, value(field, chance, share))
    return message


def value(field: FieldDescriptor, chance: random.Random, share: float) -> Any:
    """One value that a field may have."""
    if field.message_type:
        made: Message = GetMessageClass(field.message_type)()
        match field.message_type.full_name:
            case "google.protobuf.Timestamp":
                return Timestamp(seconds=chance.choice(SECONDS), nanos=chance.choice(NANOS))
            case "google.protobuf.Struct":
                made.update(chance.choice([STRUCT, {}]))
                return made
        return fill(made, chance, share)
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return chance.choice(["", "a", "ü\n\"'", "0"])
        case FieldDescriptor.TYPE_BYTES:
            return chance.randbytes(chance.randrange(5))
        case FieldDescriptor.TYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.TYPE_ENUM:
            return chance.choice(field.enum_type.values).number
        case FieldDescriptor.TYPE_DOUBLE:
            return chance.choice([0.0, 1.0, 0.1, -2.5e-300, chance.random()])
    return chance.choice([0, 1, 2**31 - 1])


def ours(message: Descriptor, theirs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Protobuf's JSON as the contract's: every field is there, 64-bit integers are numbers, enums are words."""
    for field in message.fields:
        result = theirs.get(field.name)
        of = field.message_type.fields_by_name["value"] if is_map(field) else field

        def one(each: Any, of: FieldDescriptor = of) -> Any:
            if of.message_type and not of.message_type.full_name.startswith(WKT):
                return dict(ours(of.message_type, each))
            if of.enum_type:
                number = of.enum_type.values_by_name[each].number
                return {known_names: word for word, known_names in enum_words(of.enum_type).items()}.get(number)
            return int(each) if isinstance(each, str) and of.cpp_type == FieldDescriptor.CPPTYPE_INT64 else each

        if result is None:
            yield json_name(field), None
        elif is_map(field):
            yield json_name(field), {key: one(each) for key, each in result.items()}
        else:
            yield json_name(field), [one(each) for each in result] if field.is_repeated else one(result)

"""The OpenAPI 3.1 document of the JSON API, made from the contracts: comments, types, limits and HTTP rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any

from buf.validate import validate_pb2
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from pipeline.errors.v1 import errors_pb2

from gateway.api.decode import enum_words, is_output_only, is_required, json_name, message_type
from gateway.api.routes import Binding
from gateway.api.stream import EVENT_STREAM
from gateway.api.uploads import UPLOAD_TYPES

Schema = dict[str, Any]

INTEGERS: Mapping[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_INT64: {"type": "integer", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "integer", "minimum": 0},
}
WELL_KNOWN: Mapping[str, Schema] = {
    Timestamp.DESCRIPTOR.full_name: {"type": "string", "format": "date-time"},
    Struct.DESCRIPTOR.full_name: {"type": "object", "additionalProperties": True},
}
LIMITS = {"gte": "minimum", "lte": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
LENGTHS = {"min_len": "minLength", "max_len": "maxLength"}
ITEMS = {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"}
ERRORS: Mapping[str, str] = {
    "400": "The request is not valid, or the resource's state does not allow it.",
    "401": "The token is missing or not valid.",
    "403": "The caller may not do this.",
    "404": "No such resource, or one of another user.",
    "406": "The Accept header excludes the media type of the response.",
    "408": "The body did not arrive in time.",
    "409": "The idempotency key was used for another request, or two calls conflicted.",
    "413": "The body is too large.",
    "414": "The path or the query is too long.",
    "415": "The media type or encoding of the body is not one that this path takes.",
    "429": "Too many calls at once, or a limit of the caller is reached.",
    "431": "The headers are too large.",
    "500": "An error of the server; quote the request id.",
    "503": "A service or the database is unavailable; see Retry-After.",
    "504": "The call did not finish before its deadline.",
}
ABOUT = """\
Success is `{"success": true, "data": …}`, an error `{"error", "details", "code", "reason", "request_id"}`; clients may
switch on `reason`. Enums are lower-case words, times RFC 3339 in UTC, money US dollars. Unknown fields are
refused. A number may also be sent as text. In a query, `+` is a space. `grpc-timeout: 500m` sets an earlier deadline;
`x-request-id` identifies a request in the logs.
"""


def document(bindings: Iterable[Binding], *, cookie: str) -> Schema:
    """Returns the OpenAPI document of RPCs; `cookie` is the name of the session cookie."""
    return _Document(list(bindings), cookie).build()


class _Document:
    def __init__(self, bindings: list[Binding], cookie: str) -> None:
        self._bindings = bindings
        self._cookie = cookie
        self._comments = dict(_comments())
        self._schemas: dict[str, Schema] = {}
        self._in_requests = {name for binding in bindings for name in _reachable(binding.method.descriptor.input_type)}

    def build(self) -> Schema:
        paths: dict[str, Schema] = {}
        for binding in self._bindings:
            paths.setdefault(binding.path, {})[binding.verb.lower()] = self._operation(binding)
        paths["/api/session"] = _session()
        failure = {"content": {"application/json": {"schema": _ref("ErrorBody")}}}
        return {
            "openapi": "3.1.0",
            "info": {"title": "Pipeline", "version": "1", "description": ABOUT},
            "servers": [{"url": "/"}],
            "security": [{"bearer": []}, {"cookie": []}],
            "paths": dict(sorted(paths.items())),
            "components": {
                "responses": {status: {"description": text, **failure} for status, text in ERRORS.items()},
                "schemas": {**dict(sorted(self._schemas.items())), "ErrorBody": _error_body()},
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                    "cookie": {"type": "apiKey", "in": "cookie", "name": self._cookie},
                },
            },
        }

    def _operation(self, binding: Binding) -> Schema:
        descriptor = binding.method.descriptor
        comment = self._comments.get(descriptor.full_name, "")
        operation: Schema = {
            "operationId": descriptor.name,
            "tags": [descriptor.containing_service.name],
            "summary": " ".join(comment.split()).partition(". ")[0].removesuffix(".").replace("`", ""),
            "description": comment,
            "parameters": self._parameters(binding),
            "responses": {str(binding.method.http_success): self._success(binding)},
        }
        if "signed_url" in descriptor.input_type.fields_by_name:
            operation["responses"]["307"] = {"description": "Location is a signed URL that gives the file."}
        if binding.body:
            operation["requestBody"] = {"required": True, "content": self._request_body(binding)}
        operation["responses"] |= {status: {"$ref": f"#/components/responses/{status}"} for status in ERRORS}
        return operation

    def _parameters(self, binding: Binding) -> list[Schema]:
        inputs = binding.method.descriptor.input_type.fields_by_name
        parameters = [self._parameter(field, name, "path") for name, field in binding.variables.items()]
        parameters += [self._parameter(field, name, "query") for name, field in binding.query.items()]
        for name, header in {"request_id": "Idempotency-Key", "last_event_id": "Last-Event-ID"}.items():
            if name in inputs and (name, binding.verb) != ("request_id", "GET"):
                parameters.append({**self._parameter(inputs[name], header, "header"), "required": False})
        return parameters

    def _parameter(self, field: FieldDescriptor, name: str, location: str) -> Schema:
        return {
            "name": name,
            "in": location,
            "required": location == "path" or is_required(field),
            "description": self._comments.get(field.full_name, ""),
            "schema": self._type(field),
        }

    def _request_body(self, binding: Binding) -> Schema:
        if binding.method.client_streaming:
            return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in UPLOAD_TYPES}
        message = binding.method.descriptor.input_type
        if binding.body == "*":
            return {"application/json": {"schema": self._rest(message, binding)}}
        return {"application/json": {"schema": self._type(message.fields_by_name[binding.body])}}

    def _rest(self, message: Descriptor, binding: Binding) -> Schema:
        """Returns the schema of a body without the fields that are in the path."""
        whole = self._message(message)
        if not binding.variables:
            return whole
        schema = self._schemas.pop(message.name)
        for name in binding.variables:
            del schema["properties"][name]
        required = [name for name in schema.pop("required", []) if name not in binding.variables]
        return schema | ({"required": required} if required else {})

    def _success(self, binding: Binding) -> Schema:
        output = binding.method.descriptor.output_type
        if output.full_name == HttpBody.DESCRIPTOR.full_name:
            return {"description": "The file.", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
        if binding.method.server_streaming:
            return {"description": "Server-sent events.", "content": {EVENT_STREAM: {"schema": self._events(output)}}}
        field = output.fields_by_name.get(binding.response_body)
        data = self._message(output) if field is None else self._type(field)
        return {"description": "Success.", "content": {"application/json": {"schema": _envelope(data)}}}

    def _events(self, message: Descriptor) -> Schema:
        """Returns the schema of one event: its name, the JSON in its data, and the id to resume after it."""
        (group,) = message.oneofs
        kinds = {field.name: self._one(field) for field in group.fields} | {"error": _ref("ErrorBody")}
        events = [
            {
                "type": "object",
                "properties": {"event": {"const": name}, "id": {"type": "string"}, "data": data},
                "required": ["event", "data"],
            }
            for name, data in kinds.items()
        ]
        return {"oneOf": events}

    def _message(self, message: Descriptor) -> Schema:
        if message.name not in self._schemas:
            schema = self._schemas[message.name] = {}
            shown = [field for field in message.fields if field.type != FieldDescriptor.TYPE_BYTES]
            properties = {json_name(field): self._property(field) for field in shown}
            always = message.full_name not in self._in_requests
            required = [json_name(field) for field in shown if always or is_required(field)]
            schema |= {
                "type": "object",
                "description": self._comments.get(message.full_name, ""),
                "properties": properties,
                "additionalProperties": False,
            }
            if required:
                schema["required"] = required
        return _ref(message.name)

    def _property(self, field: FieldDescriptor) -> Schema:
        schema = self._type(field)
        annotations: Schema = {"description": self._comments.get(field.full_name, "")}
        if is_output_only(field):
            annotations["readOnly"] = True
        oneof = field.containing_oneof
        # A message field is nullable where the contract says `optional`, as for scalars.
        if oneof is not None and not is_required(field):
            return {"anyOf": [schema, {"type": "null"}]} | annotations
        return schema | annotations

    def _type(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._one(message_type(field).fields_by_name["value"])}
        if field.is_repeated:
            rules = field.GetOptions().Extensions[validate_pb2.field].repeated
            bounds = {ITEMS[rule.name]: value for rule, value in rules.ListFields() if rule.name in ITEMS}
            return {"type": "array", "items": self._one(field), **bounds}
        return self._one(field)

    def _one(self, field: FieldDescriptor) -> Schema:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        if field.is_repeated:
            rules = rules.repeated.items
        kind = rules.WhichOneof("type")
        bounds = {rule.name: value for rule, value in getattr(rules, kind).ListFields()} if kind else {}
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                schema: Schema = {"type": "string"} | ({"format": "uuid"} if bounds.get("uuid") else {})
                return schema | {LENGTHS[name]: value for name, value in bounds.items() if name in LENGTHS}
            case FieldDescriptor.CPPTYPE_BOOL:
                return {"type": "boolean"}
            case FieldDescriptor.CPPTYPE_ENUM:
                return {"type": "string", "enum": list(enum_words(field.enum_type))}
            case FieldDescriptor.CPPTYPE_MESSAGE:
                return WELL_KNOWN.get(message_type(field).full_name) or self._message(message_type(field))
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                schema = {"type": "number"}
            case _:
                schema = dict(INTEGERS[field.cpp_type])
        return schema | {LIMITS[name]: value for name, value in bounds.items() if name in LIMITS}


def _reachable(message: Descriptor, seen: frozenset[str] = frozenset()) -> set[str]:
    """Names of a message type and of all that its fields lead to."""
    names = {message.full_name}
    for field in message.fields:
        if field.message_type is not None and field.message_type.full_name not in seen:
            names |= _reachable(field.message_type, seen | names)
    return names


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _envelope(data: Schema) -> Schema:
    properties = {"success": {"type": "boolean", "const": True}, "data": data}
    return {"type": "object", "properties": properties, "required": ["success", "data"]}


def _error_body() -> Schema:
    reasons = [name.removeprefix("ERROR_REASON_") for name, number in errors_pb2.ErrorReason.items() if number]
    fields = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}
    return {
        "type": "object",
        "description": "What went wrong, where, and what to do.",
        "properties": {
            "error": {"type": "string", "description": "One short sentence."},
            "details": {
                "anyOf": [{"type": "string"}, fields],
                "description": "A sentence; for a `Validation error`, messages by field path.",
            },
            "code": {"type": "string", "description": "Name of the gRPC status."},
            "reason": {"type": "string", "enum": reasons, "description": "For programs to switch on."},
            "request_id": {"type": "string", "description": "Identifies this request in the logs."},
            "metadata": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Values for programs, such as the `limit` that was reached.",
            },
        },
        "required": ["error", "details", "code", "reason", "request_id"],
    }


def _session() -> Schema:
    user: Schema = {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]}
    whole = {"user_id": user, "dev_issuer": {"type": "boolean"}}

    def operation(summary: str, operation_id: str, properties: Schema) -> Schema:
        data = {"type": "object", "properties": properties, "required": list(properties)}
        content = {"application/json": {"schema": _envelope(data)}}
        return {
            "operationId": operation_id,
            "tags": ["Session"],
            "summary": summary,
            "security": [],
            "responses": {"200": {"description": "Success.", "content": content}}
            | {status: {"$ref": f"#/components/responses/{status}"} for status in ("400", "403", "404")},
        }

    return {
        "get": operation("Returns who is signed in, and whether the development issuer is on", "GetSession", whole),
        "post": operation("Signs in the demo user; with the development issuer only", "SignIn", {"user_id": user}),
        "delete": operation("Signs out", "SignOut", {"user_id": user}),
    }


def _comments() -> Iterator[tuple[str, str]]:
    """Yields the full name and comment of each service, RPC, message and field of the contracts."""
    image = FileDescriptorSet.FromString(files("pipeline").joinpath("image.binpb").read_bytes())
    for file in image.file:
        if not file.package.startswith("pipeline."):
            continue
        for location in file.source_code_info.location:
            name = _name_at(file, list(location.path))
            if name and location.leading_comments:
                yield f"{file.package}.{name}", re.sub(r"^ ", "", location.leading_comments, flags=re.MULTILINE).strip()


def _name_at(file: FileDescriptorProto, path: list[int]) -> str:
    """Returns the name of the service, RPC, message or field at a source location; empty for anything else."""
    node: Any = file
    names = []
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = node.DESCRIPTOR.fields_by_number.get(number)
        if field is None or not field.is_repeated or field.message_type is None:
            return ""
        node = getattr(node, field.name)[index]
        names.append(getattr(node, "name", ""))
    return ".".join(names) if len(path) % 2 == 0 else ""

"""JSON ↔ gRPC for every method that carries a `google.api.http` rule, from the descriptors: names no RPC.

Unary calls answer `{"success": true, "data": …}`. A client stream whose rule has a bytes field as its body takes an upload.
A server stream answers with server-sent events: see `events.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jiter
import orjson
from google.api import annotations_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pydantic import ValidationError

from gateway.api.decode import is_output_only, json_name, reader
from gateway.api.encode import Write, field_writer, writer
from gateway.api.query import MAX_PATH_BYTES, can_be_text, decode, from_text, parse_query
from gateway.errors import MethodNotAllowed, RouteNotFound, UriTooLong
from gateway.exchange import JSON, ClientGone, Exchange, stop_when_client_leaves
from rpc.errors import MalformedRequest, ServiceError, ValidationFailed
from rpc.methods import Method

UPLOADS = ("application/jsonl", "application/x-ndjson", "application/octet-stream")
# Bytes of an upload that one message carries: what comes in at once is handed on at once.
MAX_CHUNK_BYTES = 512 * 1024
# A body with more faults than this is not a request with mistakes in it.
MAX_FAULTS = 100
# A name that is none of ours is told by its beginning.
MAX_NAME_CHARACTERS = 100
EVENT_STREAM = "text/event-stream"

Metadata = list[tuple[str, str]]


@dataclass(frozen=True)
class Route:
    """One HTTP method and path of an RPC. `segments`: literal ones as they are, variables as `{name}`.

    `ours`: what the answer says of the resource and only we can say, by its JSON name. Sent back to us, it means nothing
    (AIP-203), but for what it is that a request says by id.
    """

    verb: str
    template: str
    body: str
    response_body: str
    method: Method
    call: Callable[..., Any]
    segments: list[str] = field(init=False)
    variables: Mapping[str, FieldDescriptor] = field(init=False)
    query: Mapping[str, FieldDescriptor] = field(init=False)
    ours: frozenset[str] = field(init=False)
    write: Write = field(init=False)

    def __post_init__(self) -> None:
        segments = self.template.strip("/").split("/")
        fields = self.method.descriptor.input_type.fields_by_name
        variables = {name[1:-1]: fields[name[1:-1]] for name in segments if name.startswith("{")}
        query = {
            json_name(each): each
            for name, each in fields.items()
            if self.body != "*" and name not in variables and name != self.body and can_be_text(each)
        }
        output = self.method.descriptor.output_type
        write = field_writer(output, self.response_body) if self.response_body else writer(output)
        resource = output.fields_by_name[self.response_body].message_type if self.response_body else None
        ours = {json_name(each) for each in (resource.fields if resource else ()) if is_output_only(each)}
        ours -= {json_name(each) for each in fields.values()}
        found = {"segments": segments, "variables": variables, "query": query, "ours": frozenset(ours), "write": write}
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def match(self, path: list[bytes]) -> dict[str, bytes] | None:
        """The raw values of the variables where this is the path; None where it is another."""
        if len(path) != len(self.segments):
            return None
        found = {}
        for have, want in zip(path, self.segments, strict=True):
            if want.startswith("{"):
                if not have:
                    return None
                found[want[1:-1]] = have
            elif have != want.encode():
                return None
        return found


def routes(methods: Iterable[Method], channel: Any) -> list[Route]:
    """The routes of a service's RPCs, which a channel reaches. An RPC without a rule has none."""
    found = []
    for method in methods:
        rule = method.descriptor.GetOptions().Extensions[annotations_pb2.http]
        for each in (rule, *rule.additional_bindings):
            verb = each.WhichOneof("pattern")
            if verb is None:
                continue
            sends = "stream" if method.client_streaming else "unary"
            answers = "stream" if method.server_streaming else "unary"
            call = getattr(channel, f"{sends}_{answers}")(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            found.append(Route(verb.upper(), getattr(each, verb), each.body, each.response_body, method, call))
    return found


class Transcoder:
    """Finds the route of a request, makes its message, calls, and shows the answer."""

    def __init__(
        self, found: Iterable[Route], *, default_timeout_seconds: float, max_body_bytes: int, silence_seconds: float
    ) -> None:
        # A literal path is nearer than one with variables.
        self.routes = sorted(found, key=lambda route: len(route.variables))
        self._fixed = {
            (route.verb, route.template.encode()): (route, dict[str, bytes]())
            for route in self.routes
            if not route.variables
        }
        self._default_timeout = default_timeout_seconds
        self._max_body = max_body_bytes
        self._silence = silence_seconds

    def find(self, exchange: Exchange) -> tuple[Route, dict[str, bytes]]:
        """The route of a request. Raises RouteNotFound, MethodNotAllowed and UriTooLong."""
        verb = "GET" if exchange.method == "HEAD" else exchange.method
        fixed = self._fixed.get((verb, exchange.raw_path))
        if fixed is not None:
            return fixed
        path = exchange.raw_path.removeprefix(b"/").split(b"/")
        here = [(route, found) for route in self.routes if (found := route.match(path)) is not None]
        if not here:
            if len(exchange.raw_path) > MAX_PATH_BYTES:
                raise UriTooLong("path", MAX_PATH_BYTES)
            raise RouteNotFound
        # `/jobs/estimate` is not `/jobs/{id}`, whatever the method.
        nearest = [pair for pair in here if len(pair[0].variables) == len(here[0][0].variables)]
        for route, found in nearest:
            if route.verb == verb:
                return route, found
        allowed = {route.verb for route, _ in nearest}
        raise MethodNotAllowed(allowed | ({"HEAD"} if "GET" in allowed else set()) | {"OPTIONS"})

    async def answer(self, exchange: Exchange, route: Route, variables: dict[str, bytes], metadata: Metadata) -> None:
        """Calls the RPC and answers with its result. Raises what the call raises, ServiceError and ClientGone."""
        exchange.accepts(JSON)
        timeout = self.timeout(exchange, route)
        if route.method.client_streaming:
            reply = await self._upload(exchange, route, variables, metadata, timeout)
        else:
            message = await self.request(exchange, route, variables)
            async with stop_when_client_leaves(exchange):
                reply = await route.call(message, metadata=metadata, timeout=timeout)
        shown = b'{"success":true,"data":' + orjson.dumps(route.write(reply)) + b"}"
        await exchange.answer(route.method.http_success, shown)

    async def request(self, exchange: Exchange, route: Route, variables: dict[str, bytes]) -> Message:
        """The message that a request makes. Raises ServiceError and ClientGone."""
        fields = self._text_fields(exchange, route, variables)
        if route.verb != "GET":
            fields |= await self._body_fields(exchange, route, fields)
        _take_key(exchange, route, fields)
        last_event_id = exchange.headers.one(b"last-event-id")
        if last_event_id and "last_event_id" in route.method.descriptor.input_type.fields_by_name:
            # A browser connects again to the address it had, and says here how far it has come since.
            fields["last_event_id"] = last_event_id
        return route.method.request(**fields)

    def timeout(self, exchange: Exchange, route: Route) -> float:
        """How long a request may take, in seconds. Raises MalformedRequest."""
        longest = route.method.max_timeout_seconds or self._default_timeout
        asked = exchange.timeout_seconds()
        return longest if asked is None else min(asked, longest)

    def _text_fields(self, exchange: Exchange, route: Route, variables: dict[str, bytes]) -> dict[str, Any]:
        fields = parse_query(exchange.query, route.query)
        for name, raw in variables.items():
            try:
                fields[name] = from_text(route.variables[name], decode(raw))
            except ValueError as error:
                raise ValidationFailed([(name, str(error))]) from None
        return fields

    async def _body_fields(self, exchange: Exchange, route: Route, said: Mapping[str, Any]) -> dict[str, Any]:
        """What the body says, which is not otherwise than the path `said`."""
        if route.body:
            exchange.has_type(JSON)
        body = await exchange.body(limit=self._max_body, timeout_seconds=self._silence)
        if not route.body and not body:
            return {}
        message = route.method.descriptor.input_type
        if route.body and route.body != "*":
            return {route.body: _read(body, message.fields_by_name[route.body].message_type, route.body)}
        read: dict[str, Any] = _read(body, message, ours=route.ours)
        if read and not route.body:
            raise ValidationFailed([(name, "this call takes no body") for name in read])
        otherwise = [
            (name, "differs from the path") for name in route.variables if read.get(name, said[name]) != said[name]
        ]
        if otherwise:
            raise ValidationFailed(otherwise)
        return read

    async def _upload(
        self, exchange: Exchange, route: Route, variables: dict[str, bytes], metadata: Metadata, longest: float
    ) -> Message:
        exchange.has_type(*UPLOADS)
        _take_key(exchange, route, {})
        first = route.method.request(**self._text_fields(exchange, route, variables))
        # What stops an upload is raised inside the call's own reading of it, which keeps it to itself.
        stopped: list[Exception] = []
        reply: Message

        async def messages() -> AsyncIterator[Message]:
            yield first
            try:
                async for data in exchange.chunks(silence_seconds=self._silence):
                    for start in range(0, len(data), MAX_CHUNK_BYTES):
                        yield route.method.request(**{route.body: data[start : start + MAX_CHUNK_BYTES]})
            except (ServiceError, ClientGone) as error:
                stopped.append(error)
                raise
            watch.start()

        async with stop_when_client_leaves(exchange, delay_seconds=None) as watch:
            try:
                reply = await route.call(messages(), metadata=metadata, timeout=longest)
            except (Exception, asyncio.CancelledError):
                if stopped:
                    raise stopped[0] from None
                raise
        return reply


def _take_key(exchange: Exchange, route: Route, fields: dict[str, Any]) -> None:
    """Fills `request_id` from the header Idempotency-Key. Raises ValidationFailed where that cannot hold what it promises."""
    key = exchange.headers.one(b"idempotency-key")
    if not key or route.verb == "GET":
        return
    if "request_id" in route.method.descriptor.input_type.fields_by_name:
        if fields.setdefault("request_id", key) != key:
            raise ValidationFailed([("request_id", "differs from the header Idempotency-Key")])
    elif not route.method.safe_to_repeat:
        raise ValidationFailed([("Idempotency-Key", "this call takes none: sent again, it acts again")])


def _read(body: bytes, message: Any, prefix: str = "", ours: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Decodes and checks a JSON object, without what is ours. Raises MalformedRequest and ValidationFailed."""
    try:
        value = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedRequest(
            "Malformed request", details=f"The body is not JSON as it must be: {_cut(str(error))}."
        ) from None
    if not isinstance(value, dict):
        raise MalformedRequest("Malformed request", details="The body must be a JSON object.")
    if len(value) > MAX_FAULTS:
        raise MalformedRequest("Malformed request", details=f"The body may have {MAX_FAULTS} names at most.")
    here = ours & value.keys()
    # Left out in silence, it would be lost.
    lost = [
        (name, f"only we can say this: send its id as `{name}_id`")
        for name in sorted(here)
        if value[name] is not None and f"{name}_id" in message.fields_by_name and value.get(f"{name}_id") is None
    ]
    if lost:
        raise ValidationFailed(lost)
    for name in here:
        del value[name]
    try:
        return reader(message).validate_python(value)
    except ValidationError as error:
        if error.error_count() > MAX_FAULTS:
            raise MalformedRequest("Malformed request", details=f"More than {MAX_FAULTS} faults.") from None
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise ValidationFailed([(_path(prefix, fault["loc"]), _told(fault)) for fault in faults]) from None


def _path(prefix: str, location: tuple[int | str, ...]) -> str:
    path = prefix
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{_cut(part)}" if path else _cut(part)
    return path


def _cut(text: str) -> str:
    return text if len(text) <= MAX_NAME_CHARACTERS else f"{text[:MAX_NAME_CHARACTERS]}…"


def _told(fault: Mapping[str, Any]) -> str:
    match fault["type"]:
        case "extra_forbidden":
            return "no such field"
        case "dict_type":
            return "Input should be an object"
    return str(fault["msg"])

"""The HTTP routes of every RPC that has a `google.api.http` rule in its contract. Each calls its RPC over gRPC.

A unary RPC responds with `{"success": true, "data": …}`. A client stream whose rule names a bytes field as its body is an
upload (`uploads.py`); a server stream responds with server-sent events (`stream.py`) or a file (`downloads.py`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import orjson
from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.body import declared_length, read_body
from gateway.api.decode import decode_object, decode_text, is_output_only, json_name, message_type
from gateway.api.encode import Encode, encoder, field_encoder
from gateway.api.headers import JSON, check_accept, check_json, one_header, timeout_seconds
from gateway.api.query import can_be_text, parse_query, percent_decode
from gateway.api.stream import stream_response
from gateway.api.uploads import check_upload_type, upload
from gateway.auth import authorization, client_address
from gateway.endpoint import Endpoint, Handler
from gateway.settings import GatewaySettings
from rpc.errors import Overloaded, TooManyUploads, Unauthenticated, ValidationFailed
from rpc.identity.model import Identity
from rpc.identity.origin import CLIENT_ADDRESS, Origin, current_origin
from rpc.identity.tokens import LEEWAY_SECONDS, Verifier
from rpc.limits import FairLimit, RateLimiter
from rpc.metadata import REQUEST_ID
from rpc.methods import Method
from rpc.telemetry.traces import TRACEPARENT

# Clients that cannot set the header Last-Event-ID send this query parameter, which EventSource polyfills use.
LAST_EVENT_ID = "lastEventId"
# Event streams that may wait for their first message at once: with a thousand, gRPC's core drops calls at random.
MAX_OPENING = 100


@dataclass(frozen=True)
class Binding:
    """An RPC at the HTTP method (`verb`) and path of its `google.api.http` rule."""

    verb: str
    path: str
    body: str
    response_body: str
    method: Method
    call: Callable[..., Any]

    @property
    def input(self) -> Descriptor:
        """The type of the RPC's request message."""
        return self.method.descriptor.input_type

    @cached_property
    def variables(self) -> Mapping[str, FieldDescriptor]:
        """The fields in the path."""
        names = re.findall(r"\{(\w+)\}", self.path)
        return {name: self.input.fields_by_name[name] for name in names}

    @cached_property
    def query(self) -> Mapping[str, FieldDescriptor]:
        """The fields that the query string may set, by JSON name."""
        fields = {
            json_name(field): field
            for field in self.input.fields
            if self.body not in ("*", field.name) and field.name not in self.variables and can_be_text(field)
        }
        if self.method.server_streaming and "last_event_id" in fields:
            fields[LAST_EVENT_ID] = fields["last_event_id"]
        return fields

    @cached_property
    def output_only(self) -> frozenset[str]:
        """JSON names of the response's resource that only the server sets. A client may send them back; they are ignored."""
        if not self.response_body:
            return frozenset()
        resource = self.method.descriptor.output_type.fields_by_name[self.response_body].message_type
        names = {json_name(field) for field in (resource.fields if resource else ()) if is_output_only(field)}
        return frozenset(names - {json_name(field) for field in self.input.fields})

    @cached_property
    def encode(self) -> Encode:
        """Makes the JSON value of a response."""
        output = self.method.descriptor.output_type
        return field_encoder(output, self.response_body) if self.response_body else encoder(output)


def bindings(methods: Iterable[Method], channel: Any) -> list[Binding]:
    """Returns the HTTP bindings of RPCs that are called over a channel. An RPC without a rule has none."""
    result = []
    for method in methods:
        rule = method.descriptor.GetOptions().Extensions[annotations_pb2.http]
        for each in (rule, *rule.additional_bindings):
            verb = each.WhichOneof("pattern")
            if verb is None:
                continue
            request_kind = "stream" if method.client_streaming else "unary"
            response_kind = "stream" if method.server_streaming else "unary"
            call = getattr(channel, f"{request_kind}_{response_kind}")(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            result.append(Binding(verb.upper(), getattr(each, verb), each.body, each.response_body, method, call))
    return result


class Api:
    """The routes of the bound RPCs. `close` ends their event streams, which a server that stops would wait for."""

    def __init__(self, settings: GatewaySettings, bindings: Iterable[Binding], verifier: Verifier) -> None:
        self._settings = settings
        self._verifier = verifier
        self._failed_sign_ins = RateLimiter(settings.failed_sign_ins_per_second, "failed sign-ins")
        self._default_timeout = settings.default_timeout_ms / 1000
        self._silence_seconds = settings.body_timeout_ms / 1000
        self._closing = asyncio.Event()
        self._opening = asyncio.Semaphore(MAX_OPENING)
        # The Jobs service has the same limit; here uploads are refused before a call is opened for each.
        self._uploads = FairLimit(settings.max_uploads, per_user=settings.max_uploads_per_user)
        self._buffered_bytes = FairLimit(settings.max_buffered_bytes)
        handlers: dict[str, dict[str, Handler]] = {}
        # Starlette takes the first route that matches: `/jobs/estimate` must come before `/jobs/{id}`.
        for binding in sorted(bindings, key=lambda binding: len(binding.variables)):
            handlers.setdefault(binding.path, {})[binding.verb] = partial(self._respond, binding)
        self.routes = [Route(path, Endpoint(**by_verb)) for path, by_verb in handlers.items()]

    def close(self) -> None:
        """Ends the event streams."""
        self._closing.set()

    async def _respond(self, binding: Binding, request: Request) -> Response:
        """Authenticates a request, calls the RPC and returns the response."""
        timeout = self._timeout(request, binding)
        request_id, address = request.scope["state"]["request_id"], client_address(request, self._settings)
        current_origin.set(Origin(request_id, client_address=address))
        credentials = authorization(request, self._settings)
        identity, token = self._verifier.cached_identity(credentials) or await self._identify(
            request, credentials, timeout
        )
        request.scope["state"]["user"] = identity.user_id
        self._verifier.consume_rate(identity)
        metadata = [("authorization", f"Bearer {token}"), (REQUEST_ID, request_id), (CLIENT_ADDRESS, address)]
        if traceparent := request.scope["state"]["traceparent"]:
            metadata.append((TRACEPARENT, traceparent))
        if binding.method.server_streaming:
            message = partial(self._request_message, request, binding)
            expires_at = identity.expires_at + LEEWAY_SECONDS
            return await stream_response(
                request,
                binding.method,
                binding.call,
                message,
                metadata,
                opening=self._opening,
                closing=self._closing,
                expires_at=expires_at,
            )
        check_accept(request, JSON)
        if binding.method.client_streaming:
            response = await self._upload(request, binding, partial(binding.call, metadata=metadata, timeout=timeout))
        else:
            response = await binding.call(
                await self._request_message(request, binding), metadata=metadata, timeout=timeout
            )
        body = b'{"success":true,"data":' + orjson.dumps(binding.encode(response)) + b"}"
        return Response(body, binding.method.http_success, {"cache-control": "no-store"}, JSON)

    async def _upload(self, request: Request, binding: Binding, call: Callable[..., Any]) -> Message:
        """Calls a client-streaming RPC with the body. Raises TooManyUploads, and what the call raises."""
        check_idempotency_key(request, binding, {})
        first = binding.method.request(**self._text_fields(request, binding))
        check_upload_type(request)
        user, limit = request.scope["state"]["user"], self._settings.max_uploads_per_user
        with self._uploads.slot(user, TooManyUploads(limit=limit)):
            return await upload(request, first, binding.body, call, silence_seconds=self._silence_seconds)

    def _timeout(self, request: Request, binding: Binding) -> float:
        """Returns the deadline of a request, seconds. Raises MalformedRequest."""
        longest = binding.method.max_timeout_seconds or self._default_timeout
        requested = timeout_seconds(request)
        return longest if requested is None else min(requested, longest)

    async def _identify(self, request: Request, credentials: str | None, seconds: float) -> tuple[Identity, str]:
        try:
            # To verify a token may take a query of the database or of the issuer.
            async with asyncio.timeout(seconds):
                return await self._verifier.identify(credentials)
        except Unauthenticated:
            # Only failures are counted: valid callers at the same address are not refused.
            self._failed_sign_ins.take(client_address(request, self._settings))
            raise

    async def _request_message(self, request: Request, binding: Binding) -> Message:
        """Returns the RPC's request, made of path, query, body and headers. Raises ServiceError and ClientDisconnect."""
        fields = self._text_fields(request, binding)
        if binding.verb != "GET":
            fields |= await self._body_fields(request, binding, fields)
            check_idempotency_key(request, binding, fields)
        elif LAST_EVENT_ID in binding.query:
            in_query = fields.pop(LAST_EVENT_ID, None) or fields.get("last_event_id")
            # A browser that reconnects keeps the query of its first request and sends the newer id in the header.
            fields["last_event_id"] = one_header(request, b"last-event-id") or in_query
        return binding.method.request(**fields)

    def _text_fields(self, request: Request, binding: Binding) -> dict[str, Any]:
        """Returns the fields in path and query. Raises UriTooLong, ValidationFailed and MalformedRequest."""
        fields = parse_query(request.scope["query_string"], binding.query)
        # The router matches the path as it was sent, so an encoded slash is part of a value.
        for name, raw in request.path_params.items():
            try:
                fields[name] = decode_text(binding.variables[name], percent_decode(raw.encode()))
            except ValueError as error:
                raise ValidationFailed([(name, str(error))]) from None
        return fields

    async def _body_fields(self, request: Request, binding: Binding, text_fields: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields in a JSON body. Raises ValidationFailed if one differs from the path."""
        if binding.body:
            check_json(request)
        max_bytes, user = self._settings.max_body_bytes, request.scope["state"]["user"]
        length = declared_length(request, max_bytes=max_bytes)
        with self._buffered_bytes.slot(user, Overloaded, length):
            body = await read_body(request, max_bytes=max_bytes, timeout_seconds=self._silence_seconds)
        if not binding.body and not body:
            return {}
        if binding.body and binding.body != "*":
            descriptor = message_type(binding.input.fields_by_name[binding.body])
            return {binding.body: decode_object(body, descriptor, path=binding.body)}
        fields = decode_object(body, binding.input, output_only=binding.output_only)
        if fields and not binding.body:
            raise ValidationFailed([(name, "this call takes no body") for name in fields])
        different = [name for name in binding.variables if fields.get(name, text_fields[name]) != text_fields[name]]
        if different:
            raise ValidationFailed([(name, "differs from the path") for name in different])
        return fields


def check_idempotency_key(request: Request, binding: Binding, fields: dict[str, Any]) -> None:
    """Sets the field `request_id` from the header Idempotency-Key.

    Raises ValidationFailed if the request has no such field although a repeated call would have an effect twice.
    """
    key = one_header(request, b"idempotency-key")
    if not key:
        return
    if "request_id" in binding.input.fields_by_name:
        if fields.setdefault("request_id", key) != key:
            raise ValidationFailed([("request_id", "differs from the header Idempotency-Key")])
    elif not binding.method.safe_to_repeat:
        raise ValidationFailed([("Idempotency-Key", "this call takes none: repeated, it has its effect twice")])

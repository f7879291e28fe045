"""The RPCs of the contracts with their options, read from the descriptors once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pipeline.common.v1 import options_pb2

from rpc.identity.model import Role, Scope

DEFAULT_MAX_REQUEST_BYTES = 64 * 1024
# Roles and scopes by their number in the contracts.
ROLES: Mapping[int, Role] = {options_pb2.ROLE_USER: "user", options_pb2.ROLE_WORKER: "worker"}
SCOPES: Mapping[int, Scope] = {
    options_pb2.SCOPE_READ: "read",
    options_pb2.SCOPE_JOBS: "jobs",
    options_pb2.SCOPE_WORKER: "worker",
    options_pb2.SCOPE_SIGN_IN: "sign_in",
}


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. `path` is `/package.Service/Name`; `max_timeout_seconds` is None if the server's default applies."""

    path: str
    name: str
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool
    roles: frozenset[Role]
    safe_to_repeat: bool
    http_success: int
    max_timeout_seconds: float | None
    scope: Scope | None
    has_side_effects: bool
    max_request_bytes: int
    descriptor: MethodDescriptor

    def scope_for(self, role: Role) -> Scope:
        """Returns the scope that an API key of a role needs."""
        if self.scope is not None:
            return self.scope
        return "worker" if role == "worker" else "jobs" if self.has_side_effects else "read"


def methods(service: ServiceDescriptor) -> list[Method]:
    """Returns the RPCs of a service, in the order of the contract."""
    return [_method(descriptor) for descriptor in service.methods]


def _method(descriptor: MethodDescriptor) -> Method:
    options = descriptor.GetOptions()
    policy = options.Extensions[options_pb2.policy]
    return Method(
        path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        name=descriptor.name,
        request=GetMessageClass(descriptor.input_type),
        response=GetMessageClass(descriptor.output_type),
        client_streaming=descriptor.client_streaming,
        server_streaming=descriptor.server_streaming,
        roles=frozenset(ROLES[role] for role in policy.roles) or frozenset({"user"}),
        safe_to_repeat=options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN,
        http_success=policy.http_success or 200,
        max_request_bytes=policy.max_request_bytes or DEFAULT_MAX_REQUEST_BYTES,
        max_timeout_seconds=policy.max_timeout_ms / 1000 if policy.max_timeout_ms else None,
        scope=SCOPES.get(policy.scope),
        has_side_effects=options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS,
        descriptor=descriptor,
    )

"""Messages of the API key contract ↔ models."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from pipeline.api_keys.v1 import api_keys_pb2 as pb

from jobs_service.api_keys.model import SCOPES, ApiKey, NewApiKey
from jobs_service.wire import time
from rpc import methods
from rpc.errors import ValidationFailed
from rpc.identity.model import Identity, Role

_SCOPE_NUMBERS = {scope: number for number, scope in methods.SCOPES.items()}
_ROLE_NUMBERS = {role: number for number, role in methods.ROLES.items()}


def new_api_key(request: pb.CreateApiKeyRequest, role: Role) -> NewApiKey:
    """Returns the key to create, with a new secret. Raises ValidationFailed for scopes that the caller's role may not have."""
    scopes = [methods.SCOPES[number] for number in request.scopes]
    if not SCOPES[role].issuperset(scopes):
        allowed = ", ".join(sorted(SCOPES[role]))
        raise ValidationFailed([("scopes", f"a token of the role {role} creates keys with the scopes {allowed}")])
    expires_at = request.expires_at.ToDatetime(UTC) if request.HasField("expires_at") else None
    return NewApiKey.generate(request.name, sorted(scopes), expires_at)


def api_key(model: ApiKey) -> pb.ApiKey:
    """Returns the message of a key."""
    scopes: Any = [_SCOPE_NUMBERS[scope] for scope in model.scopes]
    return pb.ApiKey(
        id=str(model.id),
        name=model.name,
        prefix=model.prefix,
        scopes=scopes,
        created_at=time(model.created_at),
        expires_at=time(model.expires_at),
        last_used_at=time(model.last_used_at),
    )


def caller(identity: Identity) -> pb.Caller:
    """Returns the message of a caller."""
    role: Any = _ROLE_NUMBERS[identity.role]
    scopes: Any = [_SCOPE_NUMBERS[scope] for scope in sorted(identity.scopes or ())]
    expires = None if math.isinf(identity.expires_at) else time(datetime.fromtimestamp(identity.expires_at, UTC))
    return pb.Caller(
        user_id=identity.user_id, role=role, scopes=scopes, expires_at=expires, api_key_id=identity.api_key_id
    )

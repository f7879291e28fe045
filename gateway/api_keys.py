"""Looks up API keys for the gateway, which has no database, with the Jobs service's GetCaller."""

from __future__ import annotations

import grpc.aio
from pipeline.api_keys.v1 import api_keys_pb2
from pipeline.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceStub

from rpc.errors import TokenExpired, Unauthenticated, UserDisabled
from rpc.identity.api_keys import FindApiKey
from rpc.identity.model import Identity
from rpc.identity.origin import CLIENT_ADDRESS, current_origin
from rpc.metadata import REQUEST_ID
from rpc.methods import ROLES, SCOPES
from rpc.status import failure_of

LOOKUP_TIMEOUT_SECONDS = 3.0

_ERRORS = {error.reason: error for error in (Unauthenticated, TokenExpired, UserDisabled)}


def api_key_lookup(channel: grpc.aio.Channel) -> FindApiKey:
    """Returns the look-up of API keys over a channel to the Jobs service."""
    stub = ApiKeyServiceStub(channel)

    async def find_api_key(key: str) -> Identity | None:
        metadata = [("authorization", f"Bearer {key}")]
        origin = current_origin.get()
        if origin is not None and origin.client_address:
            metadata += [(REQUEST_ID, origin.request_id), (CLIENT_ADDRESS, origin.client_address)]
        try:
            response = await stub.GetCaller(
                api_keys_pb2.GetCallerRequest(), metadata=metadata, timeout=LOOKUP_TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            failure = failure_of(error)
            raise _ERRORS.get(failure.reason, Unauthenticated)(failure.message, details=failure.details) from None
        caller = response.caller
        scopes = frozenset(SCOPES[number] for number in caller.scopes)
        expires_at = caller.expires_at.seconds + caller.expires_at.nanos / 1e9
        return Identity(caller.user_id, ROLES[caller.role], expires_at, scopes, caller.api_key_id)

    return find_api_key

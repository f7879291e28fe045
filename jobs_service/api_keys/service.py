"""ApiKeyService: a few lines for each RPC."""

from __future__ import annotations

from uuid import UUID

from pipeline.api_keys.v1 import api_keys_pb2

from jobs_service.api_keys import wire
from jobs_service.api_keys.store import ApiKeyStore
from rpc.boundary import Call


class ApiKeyService:
    """Manages a user's API keys."""

    def __init__(self, store: ApiKeyStore) -> None:
        self._store = store

    async def CreateApiKey(
        self, request: api_keys_pb2.CreateApiKeyRequest, call: Call
    ) -> api_keys_pb2.CreateApiKeyResponse:
        new = wire.new_api_key(request, call.identity.role)
        created = await self._store.create(call.identity, new)
        return api_keys_pb2.CreateApiKeyResponse(api_key=wire.api_key(created), key=new.key)

    async def ListApiKeys(
        self, request: api_keys_pb2.ListApiKeysRequest, call: Call
    ) -> api_keys_pb2.ListApiKeysResponse:
        keys = await self._store.list_all(call.identity)
        return api_keys_pb2.ListApiKeysResponse(api_keys=map(wire.api_key, keys))

    async def RevokeApiKey(
        self, request: api_keys_pb2.RevokeApiKeyRequest, call: Call
    ) -> api_keys_pb2.RevokeApiKeyResponse:
        await self._store.revoke(call.identity, UUID(request.id))
        return api_keys_pb2.RevokeApiKeyResponse()

    async def GetCaller(self, request: api_keys_pb2.GetCallerRequest, call: Call) -> api_keys_pb2.GetCallerResponse:
        return api_keys_pb2.GetCallerResponse(caller=wire.caller(call.identity))

"""ApiKeyService: a few lines for each RPC."""

from __future__ import annotations

from uuid import UUID

from pipeline.api_keys.v1 import api_keys_pb2 as pb

from jobs_service.api_keys import wire
from jobs_service.api_keys.store import ApiKeyStore
from rpc.boundary import Call


class ApiKeyService:
    """Manages a user's API keys."""

    def __init__(self, store: ApiKeyStore) -> None:
        self._store = store

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, call: Call) -> pb.CreateApiKeyResponse:
        new = wire.new_api_key(request, call.identity.role)
        created = await self._store.create(call.identity, new)
        return pb.CreateApiKeyResponse(api_key=wire.api_key(created), key=new.key)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, call: Call) -> pb.ListApiKeysResponse:
        keys = await self._store.list_all(call.identity)
        return pb.ListApiKeysResponse(api_keys=map(wire.api_key, keys))

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, call: Call) -> pb.RevokeApiKeyResponse:
        await self._store.revoke(call.identity, UUID(request.id))
        return pb.RevokeApiKeyResponse()

    async def GetCaller(self, request: pb.GetCallerRequest, call: Call) -> pb.GetCallerResponse:
        return pb.GetCallerResponse(caller=wire.caller(call.identity))

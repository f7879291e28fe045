"""The published key set (JWKS) of an issuer, cached. The cached keys are used while the issuer does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import httpx
import jwt
import structlog

from rpc.errors import IssuerUnavailable

# Age at which keys are fetched again. A key that the issuer removed is accepted for at most this time.
TTL_SECONDS = 300.0
# Shortest time between two fetches, even if tokens name unknown key ids.
COOLDOWN_SECONDS = 30.0
# The same while no keys are cached.
EMPTY_COOLDOWN_SECONDS = 1.0
TIMEOUT_SECONDS = 3.0
MAX_BYTES = 256 * 1024

log = structlog.get_logger()


class KeySet:
    """The keys at a JWKS address."""

    algorithms = ["RS256", "ES256", "EdDSA"]  # noqa: RUF012 - an instance attribute in the protocol

    def __init__(
        self,
        url: str,
        *,
        client: httpx.AsyncClient,
        ttl_seconds: float = TTL_SECONDS,
        cooldown_seconds: float = COOLDOWN_SECONDS,
    ) -> None:
        self._url = url
        self._client = client
        self._ttl = ttl_seconds
        self._cooldown = cooldown_seconds
        self._keys: dict[str | None, jwt.PyJWK] | None = None
        self._fetched_at = self._tried_at = -float("inf")
        self._fetching = asyncio.Lock()

    async def find(self, kid: str | None) -> Sequence[Any]:
        """Returns the key of an id, if the issuer has one. Raises IssuerUnavailable if no keys are cached."""
        if not isinstance(kid, str | None):
            return []
        await self._refresh(kid)
        if self._keys is None:
            raise IssuerUnavailable
        return [self._keys[kid]] if kid in self._keys else []

    def age_seconds(self) -> float:
        """Seconds since the keys were fetched; infinite if they never were."""
        return time.monotonic() - self._fetched_at

    def _is_due(self, kid: str | None) -> bool:
        now = time.monotonic()
        stale = now - self._fetched_at > self._ttl
        unknown = self._keys is None or kid not in self._keys
        cooldown = min(self._cooldown, EMPTY_COOLDOWN_SECONDS) if self._keys is None else self._cooldown
        return (stale or unknown) and now - self._tried_at >= cooldown

    async def _refresh(self, kid: str | None) -> None:
        is_cached = self._keys is not None and kid in self._keys
        # A caller whose key is cached does not wait for a running fetch.
        if not self._is_due(kid) and (is_cached or not self._fetching.locked()):
            return
        async with self._fetching:
            if not self._is_due(kid):
                return
            self._tried_at = time.monotonic()
            try:
                self._keys = await self._fetch()
                self._fetched_at = time.monotonic()
            except Exception as error:
                # The cached keys stay in use.
                log.exception("jwks_unavailable", url=self._url, error=repr(error), cached=self._keys is not None)

    async def _fetch(self) -> dict[str | None, jwt.PyJWK]:
        body = b""
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            self._client.stream("GET", self._url, follow_redirects=False) as response,
        ):
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES} bytes")
        # Only public keys for signatures: not encryption keys, nor a shared secret that was published by mistake.
        keys = [
            key
            for key in jwt.PyJWKSet.from_json(body.decode()).keys
            if key.algorithm_name in self.algorithms and key.public_key_use in (None, "sig")
        ]
        if not keys:
            raise ValueError("no usable key")
        # If there is one key only, the key and the tokens may have no key id.
        by_id: dict[str | None, jwt.PyJWK] = {key.key_id: key for key in keys}
        if len(keys) == 1:
            by_id[None] = keys[0]
        return by_id

"""Verifies bearer tokens: a JWT or an API key becomes an `Identity`, or the call ends."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import jwt

from rpc.errors import IssuerUnavailable, RoleNotAllowed, TokenExpired, Unauthenticated, UserDisabled
from rpc.identity.api_keys import PREFIX, SHAPE, FindApiKey
from rpc.identity.claims import LEEWAY_SECONDS, ClaimRules, UserIds, check_header
from rpc.identity.model import Identity
from rpc.rate_limit import Rates

# How long a verified token is trusted without another check whether its user is disabled.
TRUST_SECONDS = 30.0
# The same for an API key, and whether it is revoked.
KEY_TRUST_SECONDS = 10.0
# Look-ups of API keys at once: made-up keys cannot take the database's connections from other calls.
MAX_KEY_LOOKUPS = 2
CACHE_SIZE = 10_000
MAX_TOKEN_BYTES = 8_192


class Keys(Protocol):
    """The keys of an issuer: a shared secret or a key set."""

    algorithms: list[str]

    async def find(self, kid: str | None) -> Any:
        """Returns the key of an id, for PyJWT; None if there is no such key. Raises IssuerUnavailable."""
        ...


class SharedSecret:
    """The one key of an HS256 issuer."""

    algorithms = ["HS256"]  # noqa: RUF012 - an instance attribute in the protocol

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def find(self, kid: str | None) -> Any:
        """Returns the secret for every id."""
        return self._secret


async def never_disabled(user_id: str) -> bool:
    """The check for processes without a database, such as the gateway: the services behind them check."""
    return False


async def no_api_keys(key: str) -> Identity | None:
    """The look-up for processes that accept no API keys."""
    return None


class Verifier:
    """Verifies API keys and the tokens of one issuer, and caches up to `CACHE_SIZE` valid ones."""

    def __init__(
        self,
        keys: Keys,
        *,
        issuer: str,
        audience: str,
        user_claim: str = "sub",
        user_ids: UserIds = "uuid",
        is_disabled: Callable[[str], Awaitable[bool]] = never_disabled,
        find_api_key: FindApiKey = no_api_keys,
        rates: Rates | None = None,
    ) -> None:
        """`rates`: the rate limit of each user; None: no limit."""
        self._keys = keys
        self._rules = ClaimRules(issuer, audience, user_claim, user_ids)
        self._is_disabled = is_disabled
        self._find_api_key = find_api_key
        self._key_lookups = asyncio.Semaphore(MAX_KEY_LOOKUPS)
        self._rates = rates
        self._verified: OrderedDict[str | None, tuple[tuple[Identity, str], float]] = OrderedDict()

    def cached_identity(self, authorization: str | None) -> tuple[Identity, str] | None:
        """Returns what `identify` returned for a value not long ago; None if it has to verify the token."""
        entry = self._verified.get(authorization)
        return entry[0] if entry is not None and entry[1] > time.time() else None

    async def identify(self, authorization: str | None) -> tuple[Identity, str]:
        """Returns the caller and the bare token of an `Authorization: Bearer …` value.

        Raises Unauthenticated, TokenExpired, UserDisabled, RoleNotAllowed or IssuerUnavailable.
        """
        cached = self.cached_identity(authorization)
        if cached is not None:
            return cached
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("Authentication required", details="Send `Authorization: Bearer <token>`.")
        is_key = token.startswith(PREFIX)
        identity = await (self._verify_key(token) if is_key else self._verify(token))
        if await self._is_disabled(identity.user_id):
            raise UserDisabled("User disabled", details="This user may no longer sign in.")
        caller = identity, token
        # The issuer's clock may differ from this one; that of API keys is the database's.
        until = (
            min(identity.expires_at, time.time() + KEY_TRUST_SECONDS)
            if is_key
            else min(identity.expires_at + LEEWAY_SECONDS, time.time() + TRUST_SECONDS)
        )
        self._verified[authorization] = caller, until
        self._verified.move_to_end(authorization)
        while len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)
        return caller

    def count(self, identity: Identity) -> None:
        """Counts a call in its caller's rate, once in a process. Raises RateLimited."""
        # Trainers share a token, and the rate of their calls follows from their jobs.
        if self._rates is not None and identity.role == "user":
            self._rates.take(identity.user_id)

    async def _verify_key(self, key: str) -> Identity:
        identity = None
        if SHAPE.fullmatch(key):
            async with self._key_lookups:
                identity = await self._find_api_key(key)
        if identity is None:
            raise Unauthenticated(
                "Invalid API key", details="There is no such key, or it was revoked; create a new one."
            )
        if identity.expires_at <= time.time():
            raise TokenExpired("API key expired", details="Create a new one.")
        return identity

    async def _verify(self, token: str) -> Identity:
        try:
            if len(token) > MAX_TOKEN_BYTES:
                raise jwt.InvalidTokenError(f"longer than {MAX_TOKEN_BYTES} bytes")
            header = jwt.get_unverified_header(token)
            check_header(header, self._keys.algorithms)
            key = await self._keys.find(header.get("kid"))
            if key is None:
                raise jwt.InvalidTokenError("unknown key")
            claims = jwt.decode(
                token,
                key,
                algorithms=self._keys.algorithms,
                issuer=self._rules.issuer,
                leeway=LEEWAY_SECONDS,
                # `identity` checks the others, as issuers write them.
                options={
                    "require": ["exp", "sub", "iss"],
                    "verify_aud": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            return self._rules.identity(claims, header)
        except jwt.ExpiredSignatureError:
            raise TokenExpired("Token expired", details="Sign in again, or ask the issuer for a new token.") from None
        except (IssuerUnavailable, RoleNotAllowed, Unauthenticated):
            raise
        except Exception as error:
            # PyJWT and cryptography raise many kinds of errors; the caller learns only that the token is not valid.
            raise Unauthenticated("Invalid token", details="The token is not valid; sign in again.") from error

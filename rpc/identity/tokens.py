"""Verifies bearer tokens (JWTs and API keys) and returns the caller's identity.

Of a JWT it reads `iss`, `aud`, `sub` (the user), `role`, `exp`, `nbf` and `iat`: see `_claims`, `_check_is_access_token` and
`_identity`.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol
from uuid import NAMESPACE_URL, uuid5
from weakref import WeakValueDictionary

import httpx
import jwt

from rpc.cache import ExpiringCache
from rpc.errors import IssuerUnavailable, RoleNotAllowed, TokenExpired, Unauthenticated, UserDisabled
from rpc.identity.api_keys import PREFIX, SHAPE, FindApiKey
from rpc.identity.jwks import TIMEOUT_SECONDS, KeySet
from rpc.identity.model import Identity, Role
from rpc.limits import RateLimiter
from rpc.process.settings import CommonSettings
from rpc.telemetry.metrics import Metrics

LEEWAY_SECONDS = 30
# How long a verified token is accepted without another check whether its user is disabled.
TRUST_SECONDS = 30.0
# The same for an API key, and whether it is revoked.
KEY_TRUST_SECONDS = 10.0
# Concurrent look-ups of API keys. Without a limit, invalid keys could use up the database's connections.
MAX_KEY_LOOKUPS = 2
CACHE_SIZE = 10_000
MAX_TOKEN_BYTES = 8_192
# The last second of the year 9999, the last that a date can have.
MAX_TIMESTAMP = 253_402_300_799
UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# Supabase's role of a signed-in user is `authenticated`; ordinary OIDC tokens have no role.
ROLES: Mapping[str, Role] = {"user": "user", "authenticated": "user", "worker": "worker"}


class Keys(Protocol):
    """The keys of an issuer: `SharedSecret` or `jwks.KeySet`."""

    algorithms: list[str]

    async def find(self, kid: str | None) -> Sequence[Any]:
        """Returns the keys of an id, for PyJWT. Raises IssuerUnavailable."""
        ...

    def age_seconds(self) -> float:
        """Seconds since the keys were fetched; infinite if they never were."""
        ...


class SharedSecret:
    """The key of an HS256 issuer, and the previous one while it is rotated."""

    algorithms = ["HS256"]  # noqa: RUF012 - an instance attribute in the protocol

    def __init__(self, secret: str, previous: str | None = None) -> None:
        self._secrets = [secret] if previous is None else [secret, previous]

    async def find(self, kid: str | None) -> Sequence[Any]:
        """Returns the secrets, for every id."""
        return self._secrets

    def age_seconds(self) -> float:
        """Returns 0: a secret is never fetched."""
        return 0.0


async def never_disabled(user_id: str) -> bool:
    """The check of processes without a database, such as the gateway: the services that they call check."""
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
        is_disabled: Callable[[str], Awaitable[bool]] = never_disabled,
        find_api_key: FindApiKey = no_api_keys,
        rates: RateLimiter | None = None,
        map_subjects: bool = False,
    ) -> None:
        """`rates`: the rate limit of each user; None: no limit. `map_subjects`: whether users have a UUID made from `sub`."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._is_disabled = is_disabled
        self._find_api_key = find_api_key
        self._key_lookups = asyncio.Semaphore(MAX_KEY_LOOKUPS)
        self._rates = rates
        self._map_subjects = map_subjects
        self._verified = ExpiringCache[str | None, tuple[Identity, str]](CACHE_SIZE, clock=time.time)
        # Concurrent calls with the same new token verify it once; otherwise each would take a database connection.
        self._verifying: WeakValueDictionary[str | None, asyncio.Lock] = WeakValueDictionary()

    def watch_caches(self, metrics: Metrics) -> None:
        """Registers metrics of the token cache and of the age of the issuer's keys."""
        metrics.watch("pipeline_token_cache_count", "Verified tokens in the cache.", lambda: len(self._verified))
        metrics.watch(
            "pipeline_jwks_age_seconds", "Age of the issuer's keys; 0 for a secret.", lambda: self._keys.age_seconds()
        )

    def cached_identity(self, authorization: str | None) -> tuple[Identity, str] | None:
        """Returns the cached result of `identify`; None if the token has to be verified."""
        return self._verified.get(authorization)

    async def identify(self, authorization: str | None) -> tuple[Identity, str]:
        """Returns the caller and the bare token of an `Authorization: Bearer …` value.

        Raises Unauthenticated, TokenExpired, UserDisabled, RoleNotAllowed or IssuerUnavailable.
        """
        cached = self.cached_identity(authorization)
        if cached is not None:
            return cached
        async with self._verifying.setdefault(authorization, asyncio.Lock()):
            return self.cached_identity(authorization) or await self._identify(authorization)

    async def _identify(self, authorization: str | None) -> tuple[Identity, str]:
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
        self._verified.put(authorization, caller, until)
        return caller

    def consume_rate(self, identity: Identity, calls: float = 1) -> None:
        """Counts a call, or its cost in `calls`, in the caller's rate, once in a process. Raises RateLimited."""
        # Trainers are not limited: they share a token, and their rate of calls follows from their jobs.
        if self._rates is not None and identity.role == "user":
            self._rates.take(identity.user_id, calls)

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
            _check_header(header, self._keys.algorithms)
            claims = self._claims(token, await self._keys.find(header.get("kid")))
            _check_is_access_token(claims, self._audience)
            return _identity(claims, map_subjects=self._map_subjects)
        except jwt.ExpiredSignatureError:
            raise TokenExpired("Token expired", details="Sign in again, or ask the issuer for a new token.") from None
        except (IssuerUnavailable, RoleNotAllowed):
            raise
        except Exception as error:
            # PyJWT and cryptography raise many kinds of errors; the caller learns only that the token is not valid.
            raise Unauthenticated("Invalid token", details="The token is not valid; sign in again.") from error

    def _claims(self, token: str, keys: Sequence[Any]) -> Mapping[str, Any]:
        for key in keys:
            with suppress(jwt.InvalidSignatureError):
                claims: Mapping[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=self._keys.algorithms,
                    issuer=self._issuer,
                    leeway=LEEWAY_SECONDS,
                    options={"require": ["exp", "sub", "iss"], "verify_aud": False},
                )
                return claims
        raise jwt.InvalidTokenError("no key of the issuer verifies it")


@asynccontextmanager
async def open_verifier(
    settings: CommonSettings,
    is_disabled: Callable[[str], Awaitable[bool]] = never_disabled,
    find_api_key: FindApiKey = no_api_keys,
) -> AsyncIterator[Verifier]:
    """Opens the verifier of the issuer in the settings."""

    def verifier(keys: Keys) -> Verifier:
        return Verifier(
            keys,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            is_disabled=is_disabled,
            find_api_key=find_api_key,
            rates=RateLimiter(settings.user_calls_per_second),
            map_subjects=settings.jwt_map_subjects,
        )

    if settings.jwt_secret is not None:
        previous = settings.jwt_previous_secret
        secret = settings.jwt_secret.get_secret_value()
        yield verifier(SharedSecret(secret, previous.get_secret_value() if previous else None))
        return
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
        yield verifier(KeySet(str(settings.jwks_url), client=client))


def _check_header(header: Mapping[str, Any], algorithms: list[str]) -> None:
    if header.get("alg") not in algorithms:
        raise jwt.InvalidAlgorithmError("not an algorithm of the issuer")
    # RFC 7515 requires refusing critical extensions that are not understood, and none is.
    if "crit" in header or "b64" in header:
        raise jwt.InvalidTokenError("critical header")
    if str(header.get("typ", "JWT")).lower().removeprefix("application/") not in ("jwt", "at+jwt"):
        raise jwt.InvalidTokenError("not an access token")


def _check_is_access_token(claims: Mapping[str, Any], audience: str) -> None:
    """Raises InvalidTokenError for tokens of another audience, and for ID tokens, which are for clients only."""
    # Cognito's access tokens name the client in place of an audience.
    client_id = claims.get("client_id") if claims.get("token_use") == "access" else None
    audiences = claims.get("aud", client_id)
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise jwt.InvalidAudienceError("for another audience")
    # Keycloak's access tokens have the nonce of their sign-in as well, up to version 23.
    has_nonce = "nonce" in claims and claims.get("typ") != "Bearer"
    if has_nonce or "at_hash" in claims or claims.get("typ") == "ID" or claims.get("token_use") == "id":
        raise jwt.InvalidTokenError("an id token")


def _identity(claims: Mapping[str, Any], *, map_subjects: bool) -> Identity:
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name, 0)
        # PyJWT takes int(value), so a string of digits would pass.
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise jwt.InvalidTokenError(f"{name} is not a number")
        if not 0 <= value <= MAX_TIMESTAMP:
            raise jwt.InvalidTokenError(f"{name} is not a time")
    subject, role = claims["sub"], claims.get("role", "user")
    if not isinstance(subject, str) or not subject:
        raise jwt.InvalidTokenError("sub is not a string")
    if map_subjects:
        # UUIDs too: a user who can choose `sub` could otherwise choose the UUID of another user.
        subject = str(uuid5(NAMESPACE_URL, f"{claims['iss']}#{subject}"))
    if UUID.fullmatch(subject) is None:
        raise jwt.InvalidTokenError("sub is not a UUID")
    if not isinstance(role, str):
        raise jwt.InvalidTokenError("role is not a string")
    if role not in ROLES:
        raise RoleNotAllowed(details="The token's role may not call this API.")
    return Identity(subject.lower(), ROLES[role], float(claims["exp"]))

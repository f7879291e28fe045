"""Who is calling: a JWT becomes an `Identity`, or the call ends here."""

from __future__ import annotations

import math
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jwt

from rpc.errors import IssuerUnavailable, RoleNotAllowed, TokenExpired, Unauthenticated, UserDisabled
from rpc.rate_limit import Rates

# `system` is for our own background tasks: no token can have it.
Role = Literal["user", "worker", "system"]

LEEWAY_SECONDS = 30
# A verified token is believed this long without another look at its user: a disabled user is out after at most this.
TRUST_SECONDS = 30.0
CACHE_SIZE = 10_000
MAX_TOKEN_BYTES = 8_192
# Years above 9999 have no date; a token that lasts until then is a mistake, not a wish.
MAX_TIMESTAMP = 253_402_300_799
UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# `authenticated` is what Supabase calls a signed-in user; ordinary OIDC tokens have no role at all.
ROLES: Mapping[str, Role] = {"user": "user", "authenticated": "user", "worker": "worker"}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `user_id` is a canonical UUID; `expires_at` is in seconds since the epoch."""

    user_id: str
    role: Role
    expires_at: float


SYSTEM = Identity("00000000-0000-0000-0000-000000000000", "system", math.inf)


class Keys(Protocol):
    """Where the keys of an issuer come from: a shared secret or a key set."""

    algorithms: list[str]

    async def find(self, kid: str | None) -> Any:
        """Returns the key of that id for PyJWT, None where there is no such key. Raises IssuerUnavailable."""
        ...


class SharedSecret:
    """The one key of an HS256 issuer."""

    algorithms = ["HS256"]  # noqa: RUF012 - an instance attribute in the protocol

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def find(self, kid: str | None) -> Any:
        """Returns the secret, whatever the id."""
        return self._secret


async def nobody(user_id: str) -> bool:
    """A revocation check for processes without a database: the services behind them look."""
    return False


class Verifier:
    """Checks tokens of one issuer and remembers those that hold, at most `CACHE_SIZE` of them."""

    def __init__(
        self,
        keys: Keys,
        *,
        issuer: str,
        audience: str,
        is_disabled: Callable[[str], Awaitable[bool]] = nobody,
        rates: Rates | None = None,
    ) -> None:
        """`rates`: how often each user may call; None: as often as they like."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._is_disabled = is_disabled
        self._rates = rates
        self._verified: OrderedDict[str | None, tuple[tuple[Identity, str], float]] = OrderedDict()

    def known(self, authorization: str | None) -> tuple[Identity, str] | None:
        """What `identify` returned of a value a moment ago; None: it has to look."""
        found = self._verified.get(authorization)
        return found[0] if found is not None and found[1] > time.time() else None

    async def identify(self, authorization: str | None) -> tuple[Identity, str]:
        """Returns the caller and the bare token of an `Authorization: Bearer …` value.

        Raises Unauthenticated, TokenExpired, UserDisabled, RoleNotAllowed or IssuerUnavailable.
        """
        known = self.known(authorization)
        if known is not None:
            return known
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("Authentication required", details="Send `Authorization: Bearer <token>`.")
        identity = await self._verify(token)
        if await self._is_disabled(identity.user_id):
            raise UserDisabled("User disabled", details="This user may not sign in any more.")
        caller = identity, token
        until = min(identity.expires_at + LEEWAY_SECONDS, time.time() + TRUST_SECONDS)
        self._verified[authorization] = caller, until
        self._verified.move_to_end(authorization)
        while len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)
        return caller

    def count(self, identity: Identity) -> None:
        """Counts a call of this caller's, once, where it comes into the process. Raises RateLimited."""
        # Trainers share a token, and what they call for is paced by their jobs.
        if self._rates is not None and identity.role == "user":
            self._rates.take(identity.user_id)

    async def _verify(self, token: str) -> Identity:
        try:
            if len(token) > MAX_TOKEN_BYTES:
                raise jwt.InvalidTokenError("longer than a token may be")
            header = jwt.get_unverified_header(token)
            _check_header(header, self._keys.algorithms)
            key = await self._keys.find(header.get("kid"))
            if key is None:
                raise jwt.InvalidTokenError("signed with a key that the issuer does not have")
            claims = jwt.decode(
                token,
                key,
                algorithms=self._keys.algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
            return _identity(claims)
        except jwt.ExpiredSignatureError:
            raise TokenExpired("Token expired", details="Sign in again, or ask the issuer for a new token.") from None
        except (IssuerUnavailable, RoleNotAllowed):
            raise
        except Exception as error:
            # PyJWT and cryptography raise many kinds; to the caller a token holds or it does not.
            raise Unauthenticated("Invalid token", details="The token does not hold; sign in again.") from error


def _check_header(header: Mapping[str, Any], algorithms: list[str]) -> None:
    if header.get("alg") not in algorithms:
        raise jwt.InvalidAlgorithmError("an algorithm that the issuer does not use")
    # We understand no critical extension, and RFC 7515 says to refuse those not understood.
    if "crit" in header or "b64" in header:
        raise jwt.InvalidTokenError("a critical header")
    if str(header.get("typ", "JWT")).lower().removeprefix("application/") not in ("jwt", "at+jwt"):
        raise jwt.InvalidTokenError("not an access token")


def _identity(claims: Mapping[str, Any]) -> Identity:
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name, 0)
        # PyJWT takes int(value): a string of digits would pass.
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise jwt.InvalidTokenError(f"{name} is not a number")
        if not 0 <= value <= MAX_TIMESTAMP:
            raise jwt.InvalidTokenError(f"{name} is not a time")
    if "nonce" in claims or "at_hash" in claims or claims.get("typ") == "ID" or claims.get("token_use") == "id":
        raise jwt.InvalidTokenError("an id token: it tells a client who signed in, it is no right to call")
    subject, role = claims["sub"], claims.get("role", "user")
    if not isinstance(subject, str) or UUID.fullmatch(subject) is None:
        raise jwt.InvalidTokenError("sub is not a UUID")
    if not isinstance(role, str):
        raise jwt.InvalidTokenError("role is not a word")
    if role not in ROLES:
        raise RoleNotAllowed("Permission denied", details="The token's role may not call this API.")
    return Identity(subject.lower(), ROLES[role], float(claims["exp"]))

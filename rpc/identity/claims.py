"""The claims of an access token, as the usual issuers write them, become an `Identity`."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jwt

from rpc.errors import RoleNotAllowed, Unauthenticated
from rpc.identity.model import Identity, Role

LEEWAY_SECONDS = 30
# The last second of the year 9999, the last that a date can have.
MAX_TIMESTAMP = 253_402_300_799
MAX_SUBJECT_CHARACTERS = 255
UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# Supabase's role of a signed-in user is `authenticated`; ordinary OIDC tokens have no role.
ROLES: Mapping[str, Role] = {"user": "user", "authenticated": "user", "worker": "worker"}

UserIds = Literal["uuid", "any"]


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What the claims of an issuer's access tokens have to be.

    `user_claim` names the claim that identifies a user; with `user_ids` "any" it need not be a UUID.
    """

    issuer: str
    audience: str
    user_claim: str = "sub"
    user_ids: UserIds = "uuid"

    def identity(self, claims: Mapping[str, Any], header: Mapping[str, Any]) -> Identity:
        """Returns the caller. Raises PyJWT's errors, RoleNotAllowed, and Unauthenticated for a user id that is no UUID."""
        self._check_times(claims)
        self._check_audience(claims)
        if _is_id_token(claims, header):
            raise jwt.InvalidTokenError("an ID token says who signed in; it is not for calling an API")
        role = claims.get("role", "user")
        if not isinstance(role, str):
            raise jwt.InvalidTokenError("role is not a string")
        if role not in ROLES:
            raise RoleNotAllowed("Permission denied", details="The token's role may not call this API.")
        return Identity(self._user_id(claims), ROLES[role], float(claims["exp"]))

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = time.time()
        for name in ("exp", "nbf", "iat"):
            value = claims.get(name)
            # Some issuers write a claim that they do not use as null.
            if value is None and name != "exp":
                continue
            # PyJWT takes int(value), so a string of digits would pass.
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise jwt.InvalidTokenError(f"{name} is not a number")
            if not 0 <= value <= MAX_TIMESTAMP:
                raise jwt.InvalidTokenError(f"{name} is not a time")
            if name != "exp" and value > now + LEEWAY_SECONDS:
                raise jwt.ImmatureSignatureError(f"{name} is in the future")

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        audience = claims.get("aud")
        if audience is None and claims.get("token_use") == "access":
            # Cognito's access tokens name the client and no audience.
            audience = claims.get("client_id")
        audiences = audience if isinstance(audience, list) else [audience]
        if self.audience not in audiences:
            raise jwt.InvalidAudienceError("another audience")

    def _user_id(self, claims: Mapping[str, Any]) -> str:
        value = claims.get(self.user_claim)
        if isinstance(value, str) and UUID.fullmatch(value):
            return value.lower()
        if self.user_ids == "any" and isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT_CHARACTERS:
            return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.issuer}#{value}"))
        raise Unauthenticated(
            "Invalid token",
            details=f"The token's `{self.user_claim}` is not a UUID; see PIPELINE_JWT_USER_CLAIM and PIPELINE_JWT_USER_IDS.",
        )


def check_header(header: Mapping[str, Any], algorithms: list[str]) -> None:
    """Raises PyJWT's errors if a token's header is not that of an access token."""
    if header.get("alg") not in algorithms:
        raise jwt.InvalidAlgorithmError("not an algorithm of the issuer")
    # RFC 7515 requires refusing critical extensions that are not understood, and none is.
    if "crit" in header or "b64" in header:
        raise jwt.InvalidTokenError("critical header")
    if _header_type(header) not in ("jwt", "at+jwt", "okta-internal-at+jwt"):
        raise jwt.InvalidTokenError("not an access token")


def _header_type(header: Mapping[str, Any]) -> str:
    return str(header.get("typ", "JWT")).lower().removeprefix("application/")


def _is_id_token(claims: Mapping[str, Any], header: Mapping[str, Any]) -> bool:
    """Whether a token is an ID token. A nonce alone does not say so: Keycloak before 24 puts it into access tokens too."""
    if "at_hash" in claims or "c_hash" in claims or claims.get("typ") == "ID" or claims.get("token_use") == "id":
        return True
    is_access_token = (
        _header_type(header) != "jwt"
        or claims.get("typ") == "Bearer"
        or claims.get("token_use") == "access"
        or "scope" in claims
        or "scp" in claims
    )
    return "nonce" in claims and not is_access_token

"""Access tokens of the issuers that people use, claim by claim as those write them; their ID tokens are refused."""

from __future__ import annotations

import time
import uuid
from typing import Any

import jwt
import pytest

from rpc.errors import ServiceError
from rpc.identity.tokens import SharedSecret, Verifier
from tests.conftest import SECRET

USER = "3f0a1c52-6d7e-4b7a-9a51-0c2f4f6f9d10"
NOW = int(time.time())
TIMES = {"iat": NOW, "exp": NOW + 3600}

KEYCLOAK = {
    **TIMES,
    "auth_time": NOW - 5,
    "jti": "b3f1",
    "iss": "https://sso.example.com/realms/main",
    "aud": ["account", "pipeline"],
    "sub": USER,
    "typ": "Bearer",
    "azp": "page",
    "session_state": "9d1c",
    "acr": "1",
    "allowed-origins": ["*"],
    "realm_access": {"roles": ["offline_access", "user"]},
    "scope": "openid email profile",
    "sid": "9d1c",
    "preferred_username": "ann",
    "email": "ann@example.com",
}
AUTH0 = {
    **TIMES,
    "iss": "https://tenant.eu.auth0.com/",
    "sub": "auth0|64f0c2b7a5d1e7f2c4b8a901",
    "aud": ["https://api.example.com", "https://tenant.eu.auth0.com/userinfo"],
    "azp": "mK3T",
    "scope": "openid profile email offline_access",
    "permissions": ["jobs:write"],
}
ENTRA = {
    **TIMES,
    "nbf": NOW,
    "iss": "https://login.microsoftonline.com/7c1d/v2.0",
    "aud": "c0ffee00-1111-4222-8333-444455556666",
    "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
    "oid": USER.upper(),
    "tid": "7c1d",
    "azp": "0f0f",
    "azpacr": "1",
    "scp": "jobs.write",
    "roles": ["Trainer.Admin"],
    "name": "Ann",
    "rh": "0.A",
    "uti": "x",
    "ver": "2.0",
}
COGNITO = {
    **TIMES,
    "sub": USER,
    "device_key": "eu-west-1_d",
    "cognito:groups": ["admin"],
    "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf",
    "client_id": "3n4b5urk1ft4fl3mg5e62d9ado",
    "origin_jti": "o",
    "event_id": "e",
    "token_use": "access",
    "scope": "aws.cognito.signin.user.admin openid",
    "auth_time": NOW,
    "jti": "j",
    "username": "ann",
}
SUPABASE = {
    **TIMES,
    "aud": "authenticated",
    "iss": "https://ref.supabase.co/auth/v1",
    "sub": USER,
    "email": "ann@example.com",
    "phone": "",
    "app_metadata": {"provider": "email", "providers": ["email"]},
    "user_metadata": {},
    "role": "authenticated",
    "aal": "aal1",
    "amr": [{"method": "password", "timestamp": NOW}],
    "session_id": "5d7c",
    "is_anonymous": False,
}
OKTA = {
    **TIMES,
    "ver": 1,
    "jti": "AT.0m",
    "iss": "https://dev-1.okta.com/oauth2/default",
    "aud": "api://default",
    "cid": "0oa1",
    "uid": "00u1abcd",
    "scp": ["openid", "profile"],
    "auth_time": NOW,
    "sub": "ann@example.com",
}

ANY: dict[str, Any] = {"user_ids": "any"}


def derived(claims: dict[str, Any]) -> str:
    """The UUID of a user whose id is none."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{claims['iss']}#{claims['sub']}"))


async def identify(claims: dict[str, Any], audience: str, header: dict[str, Any] | None = None, **options: Any) -> str:
    """The user id of a token with those claims; the reason if it is refused."""
    verifier = Verifier(SharedSecret(SECRET), issuer=claims["iss"], audience=audience, **options)
    token = jwt.encode(claims, SECRET, algorithm="HS256", headers=header)
    try:
        identity, _ = await verifier.identify(f"Bearer {token}")
    except ServiceError as error:
        return error.reason
    return identity.user_id


@pytest.mark.parametrize(
    ("claims", "audience", "header", "options", "user_id"),
    [
        pytest.param(KEYCLOAK, "pipeline", {}, {}, USER, id="Keycloak"),
        pytest.param({**KEYCLOAK, "nonce": "n"}, "account", {}, {}, USER, id="Keycloak before 24, with a nonce"),
        pytest.param({**KEYCLOAK, "nbf": None, "iat": None}, "account", {}, {}, USER, id="nbf and iat are null"),
        pytest.param({**KEYCLOAK, "nbf": 0}, "account", {}, {}, USER, id="Keycloak before 10, nbf 0"),
        pytest.param(AUTH0, AUTH0["aud"][0], {"typ": "JWT"}, ANY, derived(AUTH0), id="Auth0"),
        pytest.param(AUTH0, AUTH0["aud"][0], {"typ": "at+jwt"}, ANY, derived(AUTH0), id="Auth0, RFC 9068"),
        pytest.param(ENTRA, ENTRA["aud"], {"x5t": "t"}, {"user_claim": "oid"}, USER, id="Entra v2"),
        pytest.param({**ENTRA, "nonce": "n"}, ENTRA["aud"], {}, {"user_claim": "oid"}, USER, id="Entra with a nonce"),
        pytest.param(COGNITO, COGNITO["client_id"], {}, {}, USER, id="Cognito, which names no audience"),
        pytest.param(SUPABASE, "authenticated", {"kid": "k"}, {}, USER, id="Supabase"),
        pytest.param({**SUPABASE, "exp": NOW + 60.5}, "authenticated", {}, {}, USER, id="exp is a fraction"),
        pytest.param(OKTA, "api://default", {}, ANY, derived(OKTA), id="Okta"),
        pytest.param(
            OKTA, "api://default", {"typ": "application/okta-internal-at+jwt"}, ANY, derived(OKTA), id="Okta's own"
        ),
    ],
)
async def test_access_tokens_of_the_usual_issuers_are_accepted(
    claims: dict[str, Any], audience: str, header: dict[str, Any], options: dict[str, Any], user_id: str
) -> None:
    """Case 34: the access tokens of six issuers, as they are, identify their user."""
    assert await identify(claims, audience, header, **options) == user_id


@pytest.mark.parametrize(
    ("claims", "audience"),
    [
        pytest.param({**KEYCLOAK, "typ": "ID", "at_hash": "h", "nonce": "n"}, "pipeline", id="Keycloak"),
        pytest.param({**KEYCLOAK, "typ": "ID"}, "pipeline", id="Keycloak without a nonce"),
        pytest.param(
            {**TIMES, "iss": AUTH0["iss"], "aud": "mK3T", "sub": AUTH0["sub"], "nonce": "n", "name": "Ann"},
            "mK3T",
            id="Auth0",
        ),
        pytest.param(
            {**TIMES, "iss": ENTRA["iss"], "aud": "0f0f", "sub": "x", "oid": USER, "nonce": "n", "ver": "2.0"},
            "0f0f",
            id="Entra",
        ),
        pytest.param(
            {**TIMES, "iss": COGNITO["iss"], "aud": "3n4b", "sub": USER, "token_use": "id", "at_hash": "h"},
            "3n4b",
            id="Cognito",
        ),
        pytest.param({**OKTA, "aud": "0oa1", "scp": "openid", "at_hash": "h", "amr": ["pwd"]}, "0oa1", id="Okta"),
        pytest.param({**SUPABASE, "nonce": "n"}, "authenticated", id="a nonce, and nothing of an access token"),
    ],
)
async def test_id_tokens_are_refused(claims: dict[str, Any], audience: str) -> None:
    """A16, case 34: a token that tells a client who signed in calls no API, whatever its issuer."""
    assert await identify(claims, audience, user_ids="any") == "TOKEN_INVALID"


@pytest.mark.parametrize("client_id", [None, "another", ["3n4b5urk1ft4fl3mg5e62d9ado", 1], 5])
async def test_a_client_id_is_an_audience_only_for_access_tokens_that_have_none(client_id: Any) -> None:
    """A07: another client's token of Cognito is refused, and `client_id` stands in for no audience that is there."""
    claims = {**COGNITO, "client_id": client_id}
    if client_id == ["3n4b5urk1ft4fl3mg5e62d9ado", 1]:
        claims |= {"aud": "another", "client_id": COGNITO["client_id"]}
    assert await identify(claims, COGNITO["client_id"]) == "TOKEN_INVALID"
    without_use = {name: value for name, value in COGNITO.items() if name != "token_use"}
    assert await identify(without_use, COGNITO["client_id"]) == "TOKEN_INVALID"


@pytest.mark.parametrize("subject", ["", "a" * 256, 5, None, ["x"]])
async def test_ids_that_are_no_ids_are_refused_under_any_rule(subject: Any) -> None:
    """A09: an empty, overlong or non-text subject identifies nobody."""
    assert (
        await identify({**OKTA, "uid": subject}, "api://default", user_ids="any", user_claim="uid") == "TOKEN_INVALID"
    )


async def test_a_subject_that_is_no_uuid_is_explained() -> None:
    """A09: by default user ids are UUIDs, and the error names the settings for issuers whose ids are not."""
    verifier = Verifier(SharedSecret(SECRET), issuer=OKTA["iss"], audience="api://default")
    with pytest.raises(ServiceError) as caught:
        await verifier.identify(f"Bearer {jwt.encode(OKTA, SECRET, algorithm='HS256')}")
    assert "PIPELINE_JWT_USER_IDS" in caught.value.details

"""Group 7 of the faults: who is believed. Over real gRPC, with key sets from an issuer of the test's own."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import jwt
import pytest
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from pydantic import ValidationError

from rpc.boundary import Boundary
from rpc.errors import Unauthenticated
from rpc.identity.jwks import KeySet
from rpc.identity.tokens import SharedSecret, Verifier, open_verifier
from rpc.process.settings import CommonSettings
from tests.clients import http_client
from tests.conftest import AUDIENCE, ISSUER, SECRET
from tests.door import Refusal, refused
from tests.rpc.conftest import SERVICE, Servicer
from tests.serving import SETTINGS, serving

CATALOGUE = f"/{SERVICE.full_name}/GetCatalogue"
ANN = "aaaaaaaa-0000-4000-8000-000000000001"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
UNAUTHENTICATED, DENIED, OK = "UNAUTHENTICATED", "PERMISSION_DENIED", "OK"


def public(key: Any, kid: str | None) -> dict[str, Any]:
    """The JWK of a private key."""
    kinds = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    algorithm: Any = next((kind for base, kind in kinds.items() if isinstance(key, base)), OKPAlgorithm)
    jwk = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**jwk, "use": "sig", **({"kid": kid} if kid else {})}


def claims(**changed: Any) -> dict[str, Any]:
    """Claims that hold; a change to None leaves one out."""
    now = int(time.time())
    values = {"iss": ISSUER, "aud": AUDIENCE, "sub": ANN, "iat": now, "exp": now + 600, **changed}
    return {name: value for name, value in values.items() if value is not None}


def encoded(part: Any) -> str:
    """A part of a JWT, base64url without padding; what is not bytes becomes JSON as Python writes it, NaN and all."""
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(payload: Any, header: dict[str, Any] | None = None, secret: str = SECRET) -> str:
    """An HS256 token of any header and payload, which no library would make."""
    head = f"{encoded({'alg': 'HS256', 'typ': 'JWT', **(header or {})})}.{encoded(payload)}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head.encode(), secret.encode())
    return f"{head}.{encoded(signature)}"


def flipped(token: str) -> str:
    """The token with one bit of its signature changed."""
    head, _, signature = token.rpartition(".")
    data = bytearray(base64.urlsafe_b64decode(signature + "=="))
    data[0] ^= 1
    return f"{head}.{encoded(bytes(data))}"


def future(seconds: float) -> int:
    """A time from now, in seconds since the epoch."""
    return int(time.time() + seconds)


Door = Callable[[str | None], Any]


@pytest.fixture
async def doors() -> AsyncIterator[Callable[[Verifier], Any]]:
    """Serves behind a verifier and returns a function that knocks with an `authorization` value."""
    async with AsyncExitStack() as opened:

        async def serve(verifier: Verifier) -> Door:
            boundary = Boundary(SETTINGS.model_copy(update={"max_concurrent_calls": 2_000}), verifier)
            address = await opened.enter_async_context(serving({SERVICE: Servicer()}, boundary))
            channel = await opened.enter_async_context(grpc.aio.insecure_channel(address))
            call = channel.unary_unary(CATALOGUE)

            async def knock(authorization: str | None) -> Refusal | None:
                credentials = [] if authorization is None else [("authorization", authorization)]
                try:
                    await call(b"", metadata=credentials)
                except grpc.aio.AioRpcError as error:
                    return await refused(_raise(error))
                return None

            return knock

        yield serve


async def _raise(error: Exception) -> None:
    raise error


@pytest.fixture
async def door(doors: Any) -> Door:
    """Behind a verifier of the tests' shared secret."""
    return await doors(Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE))


def code(text: Refusal | None) -> str:
    """The status word of an answer."""
    return OK if text is None else text.code.name


@pytest.mark.parametrize(
    ("row", "authorization", "wanted"),
    [
        ("A01 none", lambda: None, UNAUTHENTICATED),
        ("A01 no token", lambda: "Bearer", UNAUTHENTICATED),
        ("A01 empty token", lambda: "Bearer ", UNAUTHENTICATED),
        ("A01 basic", lambda: "Basic x", UNAUTHENTICATED),
        ("A01 lower case", lambda: f"bearer {signed(claims())}", OK),
        ("A02 none", lambda: f"Bearer {jwt.encode(claims(), '', algorithm='none')}", UNAUTHENTICATED),
        ("A02 NoNe", lambda: f"Bearer {encoded({'alg': 'NoNe'})}.{encoded(claims())}.", UNAUTHENTICATED),
        ("A02 HS512", lambda: f"Bearer {jwt.encode(claims(), SECRET * 2, algorithm='HS512')}", UNAUTHENTICATED),
        ("A03 stripped", lambda: f"Bearer {signed(claims()).rpartition('.')[0]}.", UNAUTHENTICATED),
        ("A03 one bit", lambda: f"Bearer {flipped(signed(claims()))}", UNAUTHENTICATED),
        ("A03 other key", lambda: f"Bearer {signed(claims(), secret=SECRET[::-1])}", UNAUTHENTICATED),
        ("A13 crit", lambda: f"Bearer {signed(claims(), {'crit': ['exp']})}", UNAUTHENTICATED),
        ("A13 crit unknown", lambda: f"Bearer {signed(claims(), {'crit': ['x'], 'x': 1})}", UNAUTHENTICATED),
        ("A13 b64", lambda: f"Bearer {signed(claims(), {'b64': False, 'crit': ['b64']})}", UNAUTHENTICATED),
        ("A14 JWE", lambda: f"Bearer {encoded({'alg': 'dir', 'enc': 'A256GCM'})}..a.b.c", UNAUTHENTICATED),
        ("A14 nested", lambda: f"Bearer {signed(signed(claims()).encode(), {'cty': 'JWT'})}", UNAUTHENTICATED),
        ("A14 three dots", lambda: f"Bearer {signed(claims())}.x", UNAUTHENTICATED),
        ("A14 two parts", lambda: "Bearer a.b", UNAUTHENTICATED),
        ("A14 spaces", lambda: f"Bearer  {signed(claims())}", UNAUTHENTICATED),
        ("A14 a space in it", lambda: f"Bearer {signed(claims())} x", UNAUTHENTICATED),
        ("A14 no JSON", lambda: f"Bearer {encoded(b'x')}.{encoded(b'y')}.z", UNAUTHENTICATED),
        ("A14 a list", lambda: f"Bearer {signed([1])}", UNAUTHENTICATED),
        ("A16 typ", lambda: f"Bearer {signed(claims(), {'typ': 'ID'})}", UNAUTHENTICATED),
        ("A16 nonce", lambda: f"Bearer {signed(claims(nonce='n'))}", UNAUTHENTICATED),
        ("A16 at_hash", lambda: f"Bearer {signed(claims(at_hash='h'))}", UNAUTHENTICATED),
        ("A16 token_use", lambda: f"Bearer {signed(claims(token_use='id'))}", UNAUTHENTICATED),
        ("A16 access token", lambda: f"Bearer {signed(claims(), {'typ': 'at+jwt'})}", OK),
    ],
)
async def test_only_a_token_of_the_issuer_opens(
    door: Door, row: str, authorization: Callable[[], str | None], wanted: str
) -> None:
    """A01 to A03, A13, A14, A16: everything else is UNAUTHENTICATED, with a sentence that says what to do."""
    result = await door(authorization())
    assert code(result) == wanted, row
    assert result is None or result.metadata["details"].endswith(".")


@pytest.mark.parametrize(
    ("row", "changed", "wanted"),
    [
        ("A04 a second ago", {"exp": -1}, OK),
        ("A04 past the leeway", {"exp": -31}, UNAUTHENTICATED),
        ("A05 missing", {"exp": None}, UNAUTHENTICATED),
        ("A05 string", {"exp": "9999999999"}, UNAUTHENTICATED),
        ("A05 1e30", {"exp": 1e30}, UNAUTHENTICATED),
        ("A05 negative", {"exp": -(10**12)}, UNAUTHENTICATED),
        ("A05 NaN", {"exp": float("nan")}, UNAUTHENTICATED),
        ("A05 infinite", {"exp": float("inf")}, UNAUTHENTICATED),
        ("A05 true", {"exp": True}, UNAUTHENTICATED),
        ("A05 a list", {"exp": [9999999999]}, UNAUTHENTICATED),
        ("A06 nbf within the leeway", {"nbf": 20}, OK),
        ("A06 nbf later", {"nbf": 60}, UNAUTHENTICATED),
        ("A06 iat later", {"iat": 60}, UNAUTHENTICATED),
        ("A06 nbf string", {"nbf": "x"}, UNAUTHENTICATED),
        ("A07 missing", {"aud": None}, UNAUTHENTICATED),
        ("A07 other", {"aud": "other"}, UNAUTHENTICATED),
        ("A07 none of a list", {"aud": []}, UNAUTHENTICATED),
        ("A07 number", {"aud": 5}, UNAUTHENTICATED),
        ("A07 list with ours", {"aud": ["other", AUDIENCE]}, OK),
        ("A21 another service's", {"aud": "pipeline.jobs"}, UNAUTHENTICATED),
        ("A08 other", {"iss": "https://evil.example"}, UNAUTHENTICATED),
        ("A08 trailing slash", {"iss": f"{ISSUER}/"}, UNAUTHENTICATED),
        ("A08 list", {"iss": [ISSUER]}, UNAUTHENTICATED),
        ("A08 missing", {"iss": None}, UNAUTHENTICATED),
        ("A09 missing", {"sub": None}, UNAUTHENTICATED),
        ("A09 empty", {"sub": ""}, UNAUTHENTICATED),
        ("A09 number", {"sub": 5}, UNAUTHENTICATED),
        ("A09 not a UUID", {"sub": "ann"}, UNAUTHENTICATED),
        ("A09 UUID in braces", {"sub": f"{{{ANN}}}"}, UNAUTHENTICATED),
        ("A09 with a line break", {"sub": f"{ANN}\n"}, UNAUTHENTICATED),
        ("A09 SQL", {"sub": f"{ANN}'; drop table x; --"}, UNAUTHENTICATED),
        ("A09 long", {"sub": "a" * 4000}, UNAUTHENTICATED),
        ("A15 not in the list", {"role": "admin"}, DENIED),
        ("A15 service_role", {"role": "service_role"}, DENIED),
        ("A15 worker", {"role": "worker"}, DENIED),
        ("A15 array", {"role": ["user"]}, UNAUTHENTICATED),
        ("A15 empty", {"role": ""}, DENIED),
        ("A15 Supabase's", {"role": "authenticated"}, OK),
    ],
)
async def test_claims_must_hold(door: Door, row: str, changed: dict[str, Any], wanted: str) -> None:
    """A04 to A09, A15, A21: times within the leeway, our audience and issuer, a user that is a UUID, a role we know."""
    relative = ("exp", "nbf", "iat")
    moved = {
        name: future(value) if name in relative and type(value) is int and abs(value) < 10**6 else value
        for name, value in changed.items()
    }
    assert code(await door(f"Bearer {signed(claims(**moved))}")) == wanted, row


NOW = int(time.time())
ENTRA = "https://login.microsoftonline.com/9122040d-6c67-4c5b-b112-36a304b66dad/v2.0"
KEYCLOAK = {
    "jti": "5d2f", "iss": "https://sso.example/realms/team", "aud": "account", "sub": ANN, "azp": "pipeline",
    "iat": NOW, "exp": NOW + 86_400, "auth_time": NOW, "session_state": "a1", "acr": "1", "sid": "a1",
}  # fmt: skip
# Claims as each provider's tokens have them, whether the subject is mapped, and whether it is a right to call.
PROVIDERS: list[tuple[str, dict[str, Any], dict[str, Any], bool, str]] = [
    ("Keycloak 23, access", {}, {
        **KEYCLOAK, "typ": "Bearer", "nonce": "n1", "realm_access": {"roles": ["offline_access"]}, "scope": "openid email",
    }, False, OK),
    ("Keycloak 26, access", {}, {**KEYCLOAK, "typ": "Bearer", "aud": ["api", "account"], "jti": "onrtac:5d2f"}, False, OK),
    ("Keycloak, ID", {}, {**KEYCLOAK, "typ": "ID", "nonce": "n1", "at_hash": "h"}, False, UNAUTHENTICATED),
    ("Keycloak, ID without a nonce", {}, {**KEYCLOAK, "typ": "ID"}, False, UNAUTHENTICATED),
    ("Auth0, access", {"kid": "k"}, {
        "iss": "https://team.eu.auth0.com/", "sub": "auth0|65f0c2a4b1d2", "azp": "pipeline", "iat": NOW, "exp": NOW + 86_400,
        "aud": ["https://api.example", "https://team.eu.auth0.com/userinfo"], "scope": "openid profile", "permissions": [],
    }, True, OK),
    ("Auth0, access of RFC 9068", {"typ": "at+jwt"}, {
        "iss": "https://team.eu.auth0.com/", "sub": "google-oauth2|1034", "aud": "https://api.example", "iat": NOW,
        "exp": NOW + 86_400, "jti": "x", "client_id": "pipeline",
    }, True, OK),
    ("Auth0, ID", {}, {
        "iss": "https://team.eu.auth0.com/", "sub": "auth0|65f0c2a4b1d2", "aud": "pipeline", "iat": NOW, "exp": NOW + 86_400,
        "nonce": "n1", "sid": "s", "nickname": "ann",
    }, True, UNAUTHENTICATED),
    ("Entra, access", {"x5t": "t", "kid": "t"}, {
        "aud": "api://pipeline", "iss": ENTRA, "iat": NOW, "nbf": NOW, "exp": NOW + 86_400, "aio": "A", "azp": "c",
        "azpacr": "0", "oid": ANN, "scp": "access", "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "tid": "9122040d",
        "uti": "u", "ver": "2.0",
    }, True, OK),
    ("Entra, ID", {}, {
        "aud": "api://pipeline", "iss": ENTRA, "iat": NOW, "nbf": NOW, "exp": NOW + 86_400, "nonce": "n1", "oid": ANN,
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "ver": "2.0",
    }, True, UNAUTHENTICATED),
    ("Cognito, access", {"kid": "k"}, {
        "sub": ANN, "cognito:groups": ["users"], "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_x",
        "client_id": "pipeline", "origin_jti": "o", "token_use": "access", "scope": "openid", "auth_time": NOW, "iat": NOW,
        "exp": NOW + 86_400, "jti": "j", "username": "ann", "version": 2,
    }, False, OK),
    ("Cognito, ID", {}, {
        "sub": ANN, "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_x", "aud": "pipeline",
        "token_use": "id", "auth_time": NOW, "iat": NOW, "exp": NOW + 86_400, "cognito:username": "ann",
    }, False, UNAUTHENTICATED),
    ("Supabase, access", {}, {
        "iss": "https://abc.supabase.co/auth/v1", "sub": ANN, "aud": "authenticated", "exp": NOW + 86_400, "iat": NOW,
        "email": "a@example.com", "phone": "", "app_metadata": {"provider": "email"}, "user_metadata": {},
        "role": "authenticated", "aal": "aal1", "amr": [{"method": "password", "timestamp": NOW}], "session_id": "s",
        "is_anonymous": False,
    }, False, OK),
    ("Okta, access", {"kid": "k"}, {
        "ver": 1, "jti": "AT.x", "iss": "https://team.okta.com/oauth2/default", "aud": "api://default", "iat": NOW,
        "exp": NOW + 86_400, "cid": "0oa", "uid": "00u", "scp": ["openid"], "auth_time": NOW, "sub": "ann@example.com",
    }, True, OK),
    ("Okta, ID", {}, {
        "sub": "00u1", "ver": 1, "iss": "https://team.okta.com/oauth2/default", "aud": "api://default", "iat": NOW,
        "exp": NOW + 86_400, "jti": "ID.x", "amr": ["pwd"], "idp": "00o", "auth_time": NOW, "at_hash": "h",
    }, True, UNAUTHENTICATED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "header", "values", "mapped", "wanted"), PROVIDERS, ids=[each[0] for each in PROVIDERS]
)
async def test_access_tokens_of_providers_are_taken_as_they_are(
    doors: Any, name: str, header: dict[str, Any], values: dict[str, Any], mapped: bool, wanted: str
) -> None:
    """Case 34: access tokens open with the claims that their providers write, Keycloak's nonce among them; ID tokens do not."""
    audience = values.get("aud", values.get("client_id"))
    audience = audience[0] if isinstance(audience, list) else audience
    options = {"issuer": values["iss"], "map_subjects": mapped}
    here = await doors(Verifier(SharedSecret(SECRET), audience=audience, **options))
    assert code(await here(f"Bearer {signed(values, header)}")) == wanted
    elsewhere = await doors(Verifier(SharedSecret(SECRET), audience="other", **options))
    assert code(await elsewhere(f"Bearer {signed(values, header)}")) == UNAUTHENTICATED


async def test_subjects_are_mapped_to_users() -> None:
    """Case 34: one subject of one issuer is one user; a subject that looks like another's id is a user of its own."""
    verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE, map_subjects=True)

    async def user_of(subject: str) -> str:
        return (await verifier.identify(f"Bearer {signed(claims(sub=subject))}"))[0].user_id

    ann = await user_of("auth0|ann")
    assert (await user_of("auth0|ann"), uuid.UUID(ann).version) == (ann, 5)
    assert len({ann, await user_of("auth0|Ann"), await user_of(ann), await user_of(ANN), ANN}) == 5
    for wrong in ("", 5, None):
        with pytest.raises(Unauthenticated):
            await user_of(wrong)  # type: ignore[arg-type] # what an issuer might send


async def test_a_token_longer_than_metadata_is_refused_before_it_is_read(door: Door) -> None:
    """A14: 100 kB of token is RESOURCE_EXHAUSTED; one that just fits is UNAUTHENTICATED."""
    with pytest.raises(AssertionError, match="RESOURCE_EXHAUSTED"):
        await door(f"Bearer {'a' * 100_000}")
    assert code(await door(f"Bearer {signed(claims(x='a' * 5_000))}")) == OK


async def test_an_expired_token_says_so_even_where_it_was_good_before(doors: Any) -> None:
    """A04 and A21: a token remembered as good is not good for a moment longer than it says."""
    knock = await doors(Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE))
    token = signed(claims(exp=future(-29)))
    assert await knock(f"Bearer {token}") is None
    async with asyncio.timeout(10):
        while (result := await knock(f"Bearer {token}")) is None:
            await asyncio.sleep(0.05)
    assert result.reason == "TOKEN_EXPIRED"


async def test_a_secret_is_rotated_while_tokens_of_both_are_valid(doors: Any) -> None:
    """With the previous secret, tokens of both are accepted; without it and of any other, they are refused."""
    previous = "the-secret-before-it-which-is-32-bytes-long"
    settings = CommonSettings(jwt_secret=SECRET, jwt_previous_secret=previous, jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    async with (
        open_verifier(settings) as both,
        open_verifier(settings.model_copy(update={"jwt_previous_secret": None})) as one,
    ):
        rotating, rotated = await doors(both), await doors(one)
    old = f"Bearer {jwt.encode(claims(), previous, algorithm='HS256')}"
    assert [code(await door(f"Bearer {signed(claims())}")) for door in (rotating, rotated)] == [OK, OK]
    assert [code(await door(old)) for door in (rotating, rotated)] == [OK, UNAUTHENTICATED]
    assert code(await rotating(f"Bearer {jwt.encode(claims(), previous[::-1], algorithm='HS256')}")) == UNAUTHENTICATED
    expired = f"Bearer {jwt.encode(claims(exp=future(-100)), previous, algorithm='HS256')}"
    assert (await rotating(expired)).reason == "TOKEN_EXPIRED"


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ({"jwt_secret": SECRET, "jwt_previous_secret": "short"}, "PIPELINE_JWT_PREVIOUS_SECRET must be"),
        ({"jwks_url": "https://issuer.example", "jwt_previous_secret": SECRET}, "needs PIPELINE_JWT_SECRET"),
    ],
)
def test_a_previous_secret_is_as_long_and_beside_a_secret(secrets: dict[str, str], message: str) -> None:
    """A short previous secret, and one beside a key set, are refused at the start."""
    with pytest.raises(ValidationError, match=message):
        CommonSettings(jwt_issuer=ISSUER, **secrets)


async def test_calls_at_once_with_a_new_token_look_its_user_up_once() -> None:
    """Fifty streams of a page that was just opened take one connection of the database, not fifty."""
    looked_up: list[str] = []

    async def is_disabled(user_id: str) -> bool:
        looked_up.append(user_id)
        await asyncio.sleep(0)
        return False

    verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE, is_disabled=is_disabled)
    authorization = f"Bearer {signed(claims())}"
    callers = await asyncio.gather(*(verifier.identify(authorization) for _ in range(50)))
    assert looked_up == [ANN]
    assert {identity.user_id for identity, _ in callers} == {ANN}


async def test_a_disabled_user_is_out_within_a_minute(doors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A20: the check is made anew when the trust in a token ends, and that is after less than 60 s."""
    from rpc.identity import tokens

    assert tokens.TRUST_SECONDS <= 60
    monkeypatch.setattr(tokens, "TRUST_SECONDS", 0.2)
    disabled: set[str] = set()

    async def is_disabled(user_id: str) -> bool:
        return user_id in disabled

    knock = await doors(Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE, is_disabled=is_disabled))
    token = f"Bearer {signed(claims())}"
    assert await knock(token) is None
    disabled.add(ANN)
    async with asyncio.timeout(5):
        while (result := await knock(token)) is None:
            await asyncio.sleep(0.02)
    assert (result.code.name, result.reason) == (UNAUTHENTICATED, "USER_DISABLED")


@dataclass
class Issuer:
    """A tiny HTTP server with a key set. `behave` overrides what it answers."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    behave: Callable[[asyncio.StreamWriter], Any] | None = None
    fetched: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, good-bye."""
        await reader.readuntil(b"\r\n\r\n")
        self.fetched += 1
        try:
            if self.behave is not None:
                await self.behave(writer)
            else:
                await reply(writer, json.dumps({"keys": self.keys}).encode())
        except ConnectionError:
            pass  # the client had enough
        finally:
            writer.close()


async def reply(writer: asyncio.StreamWriter, body: bytes, status: str = "200 OK", *headers: str) -> None:
    """An HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    await writer.drain()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer with an RSA key `r`, an EC key `e` and an Ed25519 key `d`."""
    there = Issuer(keys=[public(RSA, "r"), public(EC, "e"), public(ED, "d")])
    server = await asyncio.start_server(there.answer, "127.0.0.1", 0)
    there.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    async with server:
        yield there


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """What fetches keys."""
    async with http_client(timeout=3) as opened:
        yield opened


def by(key: Any, kid: str | None, **header: Any) -> str:
    """A token of the issuer, signed with one of its keys."""
    algorithm = {"RSAPrivateKey": "RS256", "ECPrivateKey": "ES256"}.get(type(key).__name__.lstrip("_"), "EdDSA")
    named = {**header, **({"kid": kid} if kid is not None else {})}
    return "Bearer " + jwt.encode(claims(), key, algorithm=algorithm, headers=named)


def verifier(issuer: Issuer, client: httpx.AsyncClient, **options: float) -> Verifier:
    """Believes the issuer's keys."""
    return Verifier(KeySet(issuer.url, client=client, **options), issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("key", ["RS256", "ES256", "EdDSA"])
async def test_every_algorithm_of_a_key_set_is_taken(doors: Any, issuer: Issuer, client: Any, key: str) -> None:
    """A token signed with RS256, ES256 or EdDSA holds; with the key of another id it does not."""
    knock = await doors(verifier(issuer, client))
    private, kid = {"RS256": (RSA, "r"), "ES256": (EC, "e"), "EdDSA": (ED, "d")}[key]
    assert await knock(by(private, kid)) is None
    for other in {"r", "e", "d"} - {kid}:
        assert code(await knock(by(private, other))) == UNAUTHENTICATED
    assert issuer.fetched == 1


async def test_one_key_needs_no_id(doors: Any, issuer: Issuer, client: Any) -> None:
    """An issuer with a single key may leave its id out, and so may its tokens; with several, an id is needed."""
    knock = await doors(verifier(issuer, client))
    assert code(await knock(by(RSA, None))) == UNAUTHENTICATED
    issuer.keys = [public(RSA, None)]
    knock = await doors(verifier(issuer, client))
    assert await knock(by(RSA, None)) is None


async def test_a_public_key_is_no_secret(doors: Any, issuer: Issuer, client: Any) -> None:
    """A02 and A12: a key set's public keys verify, they do not sign; keys that a token brings along are not looked at."""
    knock = await doors(verifier(issuer, client))
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    evil = public(OTHER_RSA, "r")
    for row, token in {
        "A02 PEM as secret": signed(claims(), {"kid": "r"}, pem.decode()),
        "A02 JWK as secret": signed(claims(), {"kid": "r"}, json.dumps(issuer.keys[0])),
        "A02 none": jwt.encode(claims(), "", algorithm="none", headers={"kid": "r"}),
        "A12 jwk": by(OTHER_RSA, "r", jwk=evil).removeprefix("Bearer "),
        "A12 jku": by(OTHER_RSA, "r", jku="http://127.0.0.1:1/keys").removeprefix("Bearer "),
        "A12 x5u": by(OTHER_RSA, "r", x5u="http://127.0.0.1:1/cert").removeprefix("Bearer "),
        "A03 other key": by(OTHER_RSA, "r").removeprefix("Bearer "),
    }.items():
        assert code(await knock(f"Bearer {token}")) == UNAUTHENTICATED, row
    assert issuer.fetched == 1


async def test_keys_for_other_uses_are_left_alone(doors: Any, issuer: Issuer, client: Any) -> None:
    """A key for encryption does not verify, and a secret that an issuer publishes by mistake is none of its keys."""
    secret = encoded(SECRET.encode())
    issuer.keys += [{**public(OTHER_RSA, "enc"), "use": "enc"}, {"kty": "oct", "k": secret, "kid": "oct"}, "x", {}]
    knock = await doors(verifier(issuer, client))
    assert await knock(by(RSA, "r")) is None
    assert code(await knock(by(OTHER_RSA, "enc"))) == UNAUTHENTICATED
    assert code(await knock(f"Bearer {signed(claims(), {'kid': 'oct'})}")) == UNAUTHENTICATED
    forged = signed(claims(), {"kid": "oct", "alg": "RS256"})
    assert code(await knock(f"Bearer {forged}")) == UNAUTHENTICATED


async def test_unknown_keys_do_not_hammer_the_issuer(doors: Any, issuer: Issuer, client: Any) -> None:
    """A10 and A11: a thousand tokens with unknown ids, odd ones among them, cost the issuer one request."""
    from rpc.identity.jwks import COOLDOWN_SECONDS

    assert COOLDOWN_SECONDS == 30
    knock = await doors(verifier(issuer, client))
    odd = ["../../x", "' or 1=1 --", "k" * 1000, "", "é"]
    kids = [*odd, *(str(uuid.uuid4()) for _ in range(1000 - len(odd)))]
    for start in range(0, len(kids), 100):
        result = await asyncio.gather(*[knock(by(RSA, kid)) for kid in kids[start : start + 100]])
        assert {code(each) for each in result} == {UNAUTHENTICATED}
    assert code(await knock("Bearer " + signed(claims(), {"alg": "RS256", "kid": ["r"]}))) == UNAUTHENTICATED
    assert issuer.fetched == 1
    assert await knock(by(RSA, "r")) is None


async def slow(writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    await asyncio.sleep(30)


BROKEN: dict[str, Callable[[asyncio.StreamWriter], Any]] = {
    "500": lambda writer: reply(writer, b"", "500 Internal Server Error"),
    "timeout": slow,
    "garbage": lambda writer: reply(writer, b"\xff<html>"),
    "no keys": lambda writer: reply(writer, b'{"keys": []}'),
    "not a set": lambda writer: reply(writer, b"[1]"),
    "deep": lambda writer: reply(writer, b"[" * 100_000),
    "10 MB": lambda writer: reply(writer, b" " * 10_000_000),
    "redirect": lambda writer: reply(writer, b"", "302 Found", "location: http://127.0.0.1:1/keys"),
    "cut off": lambda writer: reply(writer, b'{"keys"', "200 OK", "content-length: 900"),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_keys_outlive_their_issuer(
    doors: Any, issuer: Issuer, client: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A17: with keys in hand, an issuer that fails in any way changes nothing but the log, which raises an alarm."""
    monkeypatch.setattr("rpc.identity.jwks.TIMEOUT_SECONDS", 0.3)
    knock = await doors(verifier(issuer, client, ttl_seconds=0, cooldown_seconds=0))
    assert await knock(by(RSA, "r")) is None
    issuer.behave = BROKEN[how]
    with structlog.testing.capture_logs() as lines:
        assert await knock(by(EC, "e")) is None
    alarms = [line for line in lines if line["event"] == "jwks_unavailable"]
    assert [(line["log_level"], line["cached"]) for line in alarms] == [("error", True)]
    issuer.behave = None
    monkeypatch.setattr("rpc.identity.jwks.TIMEOUT_SECONDS", 5)
    assert await knock(by(ED, "d")) is None


@pytest.mark.parametrize("how", BROKEN)
async def test_without_keys_nobody_is_wrong(
    doors: Any, issuer: Issuer, client: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A18: without any keys the caller is told UNAVAILABLE and to come back, not that their token is bad."""
    monkeypatch.setattr("rpc.identity.jwks.TIMEOUT_SECONDS", 0.3)
    issuer.behave = BROKEN[how]
    knock = await doors(verifier(issuer, client, cooldown_seconds=0))
    result = await knock(by(RSA, "r"))
    assert result is not None
    assert (result.code.name, result.reason, result.retryable) == ("UNAVAILABLE", "ISSUER_UNAVAILABLE", True)
    issuer.behave = None
    monkeypatch.setattr("rpc.identity.jwks.TIMEOUT_SECONDS", 5)
    assert await knock(by(RSA, "r")) is None


async def test_the_first_callers_share_one_fetch(doors: Any, issuer: Issuer, client: Any) -> None:
    """A18: callers who come while the first keys are on their way wait for them and are let in."""

    async def later(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        await reply(writer, json.dumps({"keys": issuer.keys}).encode())

    issuer.behave = later
    knock = await doors(verifier(issuer, client))
    tokens = [by(key, kid) for key, kid in ((RSA, "r"), (EC, "e"), (ED, "d")) for _ in range(5)]
    assert await asyncio.gather(*[knock(token) for token in tokens]) == [None] * 15
    assert issuer.fetched == 1


async def test_rotation_is_followed(doors: Any, issuer: Issuer, client: Any) -> None:
    """A19: a new key is taken when the cool-down is over, an old one is refused when the keys have had their time."""
    from rpc.identity.jwks import COOLDOWN_SECONDS, TTL_SECONDS

    assert (COOLDOWN_SECONDS, TTL_SECONDS) == (30, 300)
    knock = await doors(verifier(issuer, client, ttl_seconds=0.5, cooldown_seconds=0.2))
    assert await knock(by(RSA, "r")) is None
    issuer.keys = [public(OTHER_RSA, "new"), public(EC, "e")]
    async with asyncio.timeout(5):
        while await knock(by(OTHER_RSA, "new")) is not None:
            await asyncio.sleep(0.05)
    # Another token of the old key: the one above is trusted for its while.
    assert code(await knock(by(RSA, "r", nth=2))) == UNAUTHENTICATED

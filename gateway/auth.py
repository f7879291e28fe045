"""Who is at the door: bearer token or cookie → the token that goes on as metadata; and the development issuer."""

from __future__ import annotations

import time

import jwt

from gateway.errors import CrossSiteRequest
from gateway.exchange import Exchange
from gateway.headers import Headers
from gateway.settings import GatewaySettings
from rpc.errors import Unauthenticated
from rpc.identity.model import Role

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# The user that a first start signs in: nobody's real id.
DEMO_USER = "de300000-0000-4000-8000-000000000001"
SESSION_SECONDS = 12 * 3600


def authorization(exchange: Exchange, *, cookie: str) -> str | None:
    """The `authorization` value to call with; None where the request has no credentials.

    A cookie counts only where no bearer token came, and changes things only for our own page. Raises MalformedRequest,
    Unauthenticated and CrossSiteRequest.
    """
    given = exchange.headers.one(b"authorization")
    if given is not None:
        return given
    tokens = _cookies(exchange.headers, cookie)
    if len(tokens) > 1:
        raise Unauthenticated("Invalid session", details="More than one session cookie; sign in again.")
    if not tokens:
        return None
    if exchange.method not in SAFE_METHODS:
        refuse_cross_site(exchange)
    return f"Bearer {tokens[0]}"


def refuse_cross_site(exchange: Exchange) -> None:
    """Raises CrossSiteRequest unless the browser says that our own page asks.

    Every browser sends one of the two headers with such a request, and no page can set either.
    """
    site, origin = exchange.headers.all(b"sec-fetch-site"), exchange.headers.all(b"origin")
    asked_by_us = site == ["same-origin"] if site else origin == [exchange.own_origin]
    if not asked_by_us:
        raise CrossSiteRequest


def _cookies(headers: Headers, name: str) -> list[str]:
    pairs = [pair.strip() for value in headers.all(b"cookie") for pair in value.split(";")]
    return [pair.partition("=")[2] for pair in pairs if pair.partition("=")[0] == name]


class DevelopmentIssuer:
    """Makes tokens without asking who somebody is. For a first start, where there is no issuer yet."""

    def __init__(self, settings: GatewaySettings) -> None:
        if not settings.dev_issuer or settings.jwt_secret is None:
            raise ValueError("the development issuer runs only where PIPELINE_DEV_ISSUER asks for it")
        self._secret = settings.jwt_secret.get_secret_value()
        self._claims = {"iss": settings.jwt_issuer, "aud": settings.jwt_audience}

    def token(self, user_id: str = DEMO_USER, *, role: Role = "user", seconds: int = SESSION_SECONDS) -> str:
        """A token of a user, good for that many seconds."""
        now = int(time.time())
        claims = {**self._claims, "sub": user_id, "role": role, "iat": now, "exp": now + seconds}
        return jwt.encode(claims, self._secret, algorithm="HS256")

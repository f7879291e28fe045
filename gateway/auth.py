"""The credentials of a request, a bearer token or the session cookie, and the development issuer.

Tokens are verified in `rpc/identity/tokens.py`.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import jwt
from starlette.requests import Request

from gateway.api.headers import header_values, one_header
from gateway.errors import CrossSiteRequest, UntrustedHost
from gateway.settings import GatewaySettings
from rpc.errors import Unauthenticated
from rpc.identity.api_keys import PREFIX
from rpc.identity.model import Role

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# The user that the development issuer signs in; no real user has this id.
DEMO_USER = "de300000-0000-4000-8000-000000000001"
SESSION_SECONDS = 12 * 3600
# An address with a port, as proxies write it: `1.1.1.1:4711`, `[2001:db8::1]:44`, `[2001:db8::1]`.
ADDRESS_WITH_PORT = re.compile(r"\[([^]]*)\](?::[0-9]+)?|([^:]*):[0-9]+")


def authorization(request: Request, settings: GatewaySettings) -> str | None:
    """Returns the header `authorization` of a request, else the session cookie in its form; None without either.

    With an unsafe method the cookie is accepted from our own page only. Raises MalformedRequest, Unauthenticated and
    CrossSiteRequest.
    """
    value = one_header(request, b"authorization")
    if value is not None:
        return value
    tokens = _cookies(request, settings.session_cookie)
    if len(tokens) > 1:
        raise Unauthenticated("Invalid session", details="More than one session cookie; sign in again.")
    if not tokens:
        return None
    if request.method not in SAFE_METHODS:
        refuse_cross_site(request, settings)
    if tokens[0].startswith(PREFIX):
        # API keys are for programs; a session belongs to a person who signed in.
        raise Unauthenticated("Invalid session", details="The cookie has an API key; send it as a bearer token.")
    return f"Bearer {tokens[0]}"


def refuse_cross_site(request: Request, settings: GatewaySettings) -> None:
    """Raises CrossSiteRequest unless `Sec-Fetch-Site` or `Origin` says that our own page sent the request.

    Every browser sends one of these headers with an unsafe request, and no script can set them.
    """
    site, origin = header_values(request.scope, b"sec-fetch-site"), header_values(request.scope, b"origin")
    same_origin = site == ["same-origin"] if site else origin == [own_origin(request, settings)]
    if not same_origin:
        raise CrossSiteRequest


def refuse_rebound_host(request: Request, settings: GatewaySettings) -> None:
    """Raises UntrustedHost unless the request is to localhost or an IP address, or from the page at our public origin.

    Another site can point its own name at this machine (DNS rebinding) and is then "same-origin" for the browser.
    """
    host = "".join(header_values(request.scope, b"host"))
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return
    with suppress(ValueError):
        ip_address(name)
        return
    if settings.public_origin is None or header_values(request.scope, b"origin") != [settings.public_origin]:
        raise UntrustedHost(host)


def own_origin(request: Request, settings: GatewaySettings) -> str:
    """Returns our origin as browsers see it. Behind a proxy that ends TLS only the setting has the right scheme."""
    return settings.public_origin or f"{request.scope['scheme']}://{''.join(header_values(request.scope, b'host'))}"


def client_address(request: Request, settings: GatewaySettings) -> str:
    """Returns the address that failed sign-ins are counted by: the peer's, or what the outermost trusted proxy saw."""
    peer = request.scope["client"][0] if request.scope["client"] else ""
    forwarded = ",".join(header_values(request.scope, b"x-forwarded-for")).split(",")
    if 0 < settings.trusted_proxies <= len(forwarded):
        with suppress(ValueError):
            return rate_limit_key(forwarded[-settings.trusted_proxies].strip())
    with suppress(ValueError):
        return rate_limit_key(peer)
    return peer


@lru_cache(maxsize=4096)
def rate_limit_key(address: str) -> str:
    """Returns an address without its port; of IPv6 the /64, which belongs to one client. Raises ValueError."""
    match = ADDRESS_WITH_PORT.fullmatch(address)
    parsed = ip_address(match[1] or match[2] if match else address)
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or IPv6Network((int(parsed), 64), strict=False))


def _cookies(request: Request, name: str) -> list[str]:
    pairs = [
        pair.strip().partition("=") for value in header_values(request.scope, b"cookie") for pair in value.split(";")
    ]
    return [value for key, _, value in pairs if key == name]


class DevelopmentIssuer:
    """Signs tokens for a first start, where there is no OpenID provider yet."""

    def __init__(self, settings: GatewaySettings) -> None:
        if not settings.dev_issuer or settings.jwt_secret is None:
            raise ValueError("the development issuer runs only with PIPELINE_DEV_ISSUER=1")
        self._secret = settings.jwt_secret.get_secret_value()
        self._claims = {"iss": settings.jwt_issuer, "aud": settings.jwt_audience}

    def token(self, user_id: str = DEMO_USER, *, role: Role = "user", seconds: int = SESSION_SECONDS) -> str:
        """Returns a user's token that expires after `seconds`."""
        now = int(time.time())
        claims = {**self._claims, "sub": user_id, "role": role, "iat": now, "exp": now + seconds}
        return jwt.encode(claims, self._secret, algorithm="HS256")

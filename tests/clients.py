"""HTTP clients for tests."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

# Trusts nobody: no test speaks TLS over HTTP, and reading the machine's certificates takes as long as most tests.
NIL_USER = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(base_url: str = "", **options: Any) -> httpx.AsyncClient:
    """A client of a server without TLS; `options` are httpx's."""
    return httpx.AsyncClient(base_url=base_url, verify=NIL_USER, **options)

"""API keys as bearer tokens: their form, and their hash.

A key is 256 random bits, so a plain SHA-256 of it is safe to store: slow password hashes protect secrets that can be guessed.
Keys are looked up by their hash, so the time of a look-up reveals nothing of a key.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable

from rpc.identity.model import Identity

PREFIX = "pk_"
RANDOM_BYTES = 32
SHAPE = re.compile(r"pk_[A-Za-z0-9_-]{43}")

# Returns the identity of a key, expired ones included; None if there is no such key.
FindApiKey = Callable[[str], Awaitable[Identity | None]]


def new_key() -> str:
    """Returns a random key."""
    return PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(RANDOM_BYTES)).decode().rstrip("=")


def key_hash(key: str) -> bytes:
    """Returns the SHA-256 of a key, 32 bytes."""
    return hashlib.sha256(key.encode()).digest()

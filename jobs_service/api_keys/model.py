"""API keys of users, without their secrets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from rpc.identity.api_keys import PREFIX, key_hash, new_key
from rpc.identity.model import Role, Scope

# Characters of a key that are shown, its prefix included. The other 39 are 234 random bits.
SHOWN_CHARACTERS = len(PREFIX) + 4
SCOPES: dict[Role, frozenset[Scope]] = {"user": frozenset({"read", "jobs"}), "worker": frozenset({"worker"})}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner sees it."""

    id: UUID
    name: str
    prefix: str
    scopes: Sequence[Scope]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key to create. `expires_at` None: after the default time."""

    name: str
    scopes: Sequence[Scope]
    expires_at: datetime | None
    key: str

    @classmethod
    def generate(cls, name: str, scopes: Sequence[Scope], expires_at: datetime | None) -> NewApiKey:
        """Returns a key to create, with a new secret."""
        return cls(name, scopes, expires_at, new_key())

    @property
    def prefix(self) -> str:
        """The characters that are shown."""
        return self.key[:SHOWN_CHARACTERS]

    @property
    def hash(self) -> bytes:
        """The SHA-256 that is stored."""
        return key_hash(self.key)

    def __repr__(self) -> str:
        # Keeps the secret out of logs and tracebacks.
        return f"NewApiKey({self.prefix}…)"

"""The identity of a caller."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# `system` is for background tasks of the Jobs service, `sender` for the sender of webhooks. Tokens cannot have these two.
Role = Literal["user", "worker", "system", "sender"]
# What an API key may do. `sign_in` is the scope of RPCs that no key may call.
Scope = Literal["read", "jobs", "worker", "sign_in"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a call. `user_id` is a canonical UUID; `expires_at` is in seconds since the epoch.

    `scopes` and `api_key_id` are those of an API key. None: an access token, which has every scope of its role.
    """

    user_id: str
    role: Role
    expires_at: float
    scopes: frozenset[Scope] | None = None
    api_key_id: str | None = None

    def has_scope(self, scope: Scope) -> bool:
        """Whether the caller may call RPCs of a scope. `jobs` includes `read`."""
        return self.scopes is None or scope in self.scopes or (scope == "read" and "jobs" in self.scopes)


# The user id of identities that are no user's.
NIL_USER = "00000000-0000-0000-0000-000000000000"
SYSTEM = Identity(NIL_USER, "system", math.inf)
SENDER = Identity(NIL_USER, "sender", math.inf)

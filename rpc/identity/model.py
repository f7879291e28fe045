"""A caller."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# `system` is for background tasks of the services; no token can have it.
Role = Literal["user", "worker", "system"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `user_id` is a canonical UUID; `expires_at` is in seconds since the epoch."""

    user_id: str
    role: Role
    expires_at: float


SYSTEM = Identity("00000000-0000-0000-0000-000000000000", "system", math.inf)

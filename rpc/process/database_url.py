"""Parses a database's URL, which may have parameters of ORMs and poolers that PostgreSQL does not accept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

# Parameters of ORMs' pools and time limits. They are ignored: servers have their own settings.
ORM_PARAMETERS = frozenset(
    {"connection_limit", "pool_timeout", "connect_timeout", "socket_timeout", "statement_cache_size"}
)

BOOLEANS = {None: None, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A URL for asyncpg. `pgbouncer`: whether each transaction may run in another session; None: the URL does not say."""

    dsn: str
    pgbouncer: bool | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `pgbouncer` and `schema`, and removes parameters of ORMs.

        Raises ValueError, whose message does not contain the URL, because of its password.
        """
        if not text.startswith(("postgres://", "postgresql://")):
            raise ValueError("must start with postgresql://")
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError:
            raise ValueError("is not a URL: percent-encode its password (/ is %2F, # is %23)") from None
        parameters = parse_qsl(parts.query, keep_blank_values=True)
        values = dict(parameters)
        if values.get("pgbouncer") not in BOOLEANS:
            raise ValueError("pgbouncer must be true or false")
        if values.get("schema", "public") != "public":
            raise ValueError("schema must be public, where the tables are")
        removed = ORM_PARAMETERS | {"pgbouncer", "schema"}
        remaining = [(name, value) for name, value in parameters if name not in removed]
        dsn = text if len(remaining) == len(parameters) else urlunsplit(parts._replace(query=urlencode(remaining)))
        return cls(dsn, BOOLEANS[values.get("pgbouncer")])

    def connect_arguments(self) -> dict[str, Any]:
        """Arguments of asyncpg's `connect` and `create_pool`.

        A prepared statement belongs to its session, so with a pooler statements are prepared for each run.
        """
        return {"dsn": self.dsn, **({"statement_cache_size": 0} if self.pgbouncer else {})}

"""A database's URL as people have it: with parameters for ORMs and poolers, which PostgreSQL does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

# Parameters of ORMs' own pools and time limits. A process has PIPELINE_DATABASE_POOL_SIZE and limits of its own.
ORM_PARAMETERS = frozenset(
    {"connection_limit", "pool_timeout", "connect_timeout", "socket_timeout", "statement_cache_size"}
)

WORDS = {None: None, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A URL for asyncpg. `pgbouncer`: whether a pooler may give each transaction another session; None: it does not say."""

    dsn: str
    pgbouncer: bool | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `pgbouncer` and `schema`, and removes parameters of ORMs. Raises ValueError."""
        parts = urlsplit(text)
        parameters = parse_qsl(parts.query, keep_blank_values=True)
        values = dict(parameters)
        if values.get("pgbouncer") not in WORDS:
            raise ValueError("pgbouncer must be true or false")
        if values.get("schema", "public") != "public":
            raise ValueError("schema must be public, where the tables are")
        removed = ORM_PARAMETERS | {"pgbouncer", "schema"}
        kept = [(name, value) for name, value in parameters if name not in removed]
        dsn = text if len(kept) == len(parameters) else urlunsplit(parts._replace(query=urlencode(kept)))
        return cls(dsn, WORDS[values.get("pgbouncer")])

    def connect_arguments(self) -> dict[str, Any]:
        """Arguments of asyncpg's `connect` and `create_pool`.

        A prepared statement has a name in its session, so behind a pooler statements are prepared for one run each.
        """
        return {"dsn": self.dsn, **({"statement_cache_size": 0} if self.pgbouncer else {})}

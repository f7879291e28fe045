"""Where a call comes from, for the audit log: request id and addresses."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import NamedTuple

from rpc.identity.model import Identity

# Metadata with the client's address, set by the gateway, and with gRPC's peer, set by the server.
CLIENT_ADDRESS = "x-client-address"
PEER = "peer"
# An IP address or network. Nothing in it needs quoting in JSON or SQL.
ADDRESS_PATTERN = re.compile(r"[0-9A-Fa-f:./]{2,64}")
PEER_PATTERN = re.compile(r"ipv[46]:(?:%5B|\[)?([0-9A-Fa-f:.]+?)(?:%5D|\])?:\d+")


class Origin(NamedTuple):
    """Where a call comes from. `peer` is gRPC's name of the connection; `client_address` is what the gateway reports."""

    request_id: str
    peer: str | None = None
    client_address: str | None = None

    @property
    def address(self) -> str | None:
        """The address that connected; None within a process."""
        match = PEER_PATTERN.fullmatch(self.peer or "")
        return match[1] if match else None

    def claims(self, api_key_id: str | None) -> str:
        """Returns claims to add to a JSON object, each with a comma before it."""
        address = self.client_address
        claims = {
            "request_id": self.request_id,
            "address": self.address,
            "client_address": address if address and ADDRESS_PATTERN.fullmatch(address) else None,
            "api_key_id": api_key_id,
        }
        return "".join(f',"{name}":"{value}"' for name, value in claims.items() if value)


# The origin of the call that the current task handles.
current_origin: ContextVar[Origin | None] = ContextVar("current_origin", default=None)


def origin_claims(identity: Identity) -> str:
    """Returns the claims of the current call's origin, for a caller's transaction; empty outside of calls."""
    origin = current_origin.get()
    return origin.claims(identity.api_key_id) if origin is not None else ""

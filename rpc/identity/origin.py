"""The origin of a call, for the audit log: request id and addresses."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import NamedTuple

from rpc.identity.model import Identity

# Keys of metadata: the client's address, which the gateway sets, and gRPC's peer, which the server sets.
CLIENT_ADDRESS = "x-client-address"
PEER = "peer"
# An IP address or network. None of its characters needs quoting in JSON or SQL.
ADDRESS_PATTERN = re.compile(r"[0-9A-Fa-f:./]{2,64}")
PEER_PATTERN = re.compile(r"ipv[46]:(?:%5B|\[)?([0-9A-Fa-f:.]+?)(?:%5D|\])?:\d+")


class Origin(NamedTuple):
    """The origin of a call. `peer` is gRPC's name of the connection; `client_address` is the gateway's client."""

    request_id: str
    peer: str | None = None
    client_address: str | None = None

    @property
    def address(self) -> str | None:
        """Address of the peer; None for a call in the same process."""
        match = PEER_PATTERN.fullmatch(self.peer or "")
        return match[1] if match else None

    def claims(self, api_key_id: str | None) -> str:
        """Returns claims as text to append to the members of a JSON object, each with a comma before it."""
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
    """Returns the claims of the current call's origin, for a caller's transaction; empty outside a call."""
    origin = current_origin.get()
    return origin.claims(identity.api_key_id) if origin is not None else ""

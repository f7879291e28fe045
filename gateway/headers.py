"""Headers of a request, looked up by name, and those that every answer has."""

from __future__ import annotations

from collections.abc import Sequence

from rpc.errors import MalformedRequest

CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; object-src 'none'; form-action 'self'"
)
SECURITY_HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]


class Headers:
    """A request's headers. Bytes outside ASCII stay what they are: nothing that we use has any."""

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self.names = [name for name, _ in raw]
        self._found = dict(raw)
        self._raw = raw

    def all(self, name: bytes) -> list[str]:
        """Every value of a header."""
        if name not in self._found:
            return []
        return [value.decode("latin-1") for key, value in self._raw if key == name]

    def one(self, name: bytes) -> str | None:
        """The value of a header that comes once; None where there is none. Raises MalformedRequest."""
        value = self._found.get(name)
        if value is None:
            return None
        if self.names.count(name) > 1:
            raise MalformedRequest("Malformed request", details=f"Send one {name.decode()} header.")
        return value.decode("latin-1")

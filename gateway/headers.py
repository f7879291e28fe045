"""Headers of a request, looked up by name, and those that every answer has."""

from __future__ import annotations

from collections.abc import Sequence

from rpc.errors import MalformedRequest

CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; object-src 'none'; form-action 'self'"
)
# As they are written: every answer has them, and to check and join them each time costs more than what it is about.
SECURITY_HEADERS = (
    f"content-security-policy: {CSP}\r\n"
    "x-content-type-options: nosniff\r\n"
    "x-frame-options: DENY\r\n"
    "referrer-policy: same-origin\r\n"
    "cross-origin-opener-policy: same-origin\r\n"
    "permissions-policy: camera=(), geolocation=(), microphone=()\r\n"
).encode()


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

    def encodings(self) -> set[str]:
        """What Accept-Encoding names and does not rule out."""
        accepted = ",".join(self.all(b"accept-encoding")).replace(" ", "").lower()
        parts = (each.partition(";q=") for each in accepted.split(","))
        return {name for name, _, weight in parts if weight.strip("0.") or not weight}

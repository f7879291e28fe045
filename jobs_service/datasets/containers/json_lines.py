"""JSON Lines: a JSON value on each line. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from jobs_service.datasets.containers.json_values import STRIPPED, decode, too_long
from jobs_service.datasets.containers.record import MAX_RECORD_BYTES, Record


class JsonLines:
    """Reads a value from each line that is not blank. A comma after it is ignored; a list of messages is a conversation."""

    def __init__(self) -> None:
        self._line = 0
        self._rest = b""
        self._overlong = 0

    def feed(self, data: bytes) -> Iterator[Record]:
        """Takes the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._record(line)
        if len(self._rest) > MAX_RECORD_BYTES:
            # Its length is kept, not the line.
            if not self._overlong and self._line == 0:
                stripped = _is_several(self._rest)
                if stripped:
                    yield Record(1, error=f"not JSON: {STRIPPED}")
            self._overlong, self._rest = self._overlong + len(self._rest), b""

    def finish(self) -> Iterator[Record]:
        """Takes the last line."""
        if self._rest or self._overlong:
            rest, self._rest = self._rest, b""
            yield from self._record(rest)

    def _record(self, raw: bytes) -> Iterator[Record]:
        self._line += 1
        if self._overlong or len(raw) > MAX_RECORD_BYTES:
            yield too_long(self._line, self._overlong + len(raw))
            self._overlong = 0
        elif raw.strip():
            record = decode(raw, self._line)
            if record.error and raw.rstrip().endswith(b","):
                again = decode(raw.rstrip()[:-1], self._line)
                record = record if again.error else again
            yield record._replace(value={"messages": record.value}) if is_conversation(record.value) else record


def is_conversation(value: object) -> bool:
    """Whether a value is a list of messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and ("role" in value[0] or "from" in value[0])
    )


def _is_several(raw: bytes) -> bool:
    """Whether a long line begins with one whole object and the beginning of another."""
    end = raw.find(b"}{")
    while 0 <= end < 64 * 1024:
        try:
            orjson.loads(raw[: end + 1])
        except orjson.JSONDecodeError:
            end = raw.find(b"}{", end + 1)
        else:
            return True
    return False

"""Detects the encoding of a text file by its first bytes and decodes it to UTF-8. Pure."""

from __future__ import annotations

import codecs

# Longest first: the mark of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "UTF-8", "utf-8"),
    (codecs.BOM_UTF32_LE, "UTF-32", "utf-32-le"),
    (codecs.BOM_UTF32_BE, "UTF-32", "utf-32-be"),
    (codecs.BOM_UTF16_LE, "UTF-16", "utf-16-le"),
    (codecs.BOM_UTF16_BE, "UTF-16", "utf-16-be"),
)


class Encoding:
    """Converts a file to UTF-8 without its byte order mark. `name`: the encoding's name in messages."""

    def __init__(self, head: bytes) -> None:
        mark, self.name, codec = next((each for each in MARKS if head.startswith(each[0])), (b"", *_without_mark(head)))
        self._skip = len(mark)
        self._decoder = None if codec == "utf-8" else codecs.getincrementaldecoder(codec)("strict")

    def to_utf8(self, data: bytes, *, final: bool = False) -> bytes:
        """Returns the next bytes as UTF-8. Raises UnicodeDecodeError."""
        data, self._skip = data[self._skip :], 0
        return data if self._decoder is None else self._decoder.decode(data, final).encode()


def _without_mark(head: bytes) -> tuple[str, str]:
    """Detects UTF-16 without a mark by its zero bytes: tables and JSON begin with ASCII characters."""
    if len(head) >= 4 and head[0] and head[2] and not head[1] and not head[3]:
        return "UTF-16", "utf-16-le"
    if len(head) >= 4 and head[1] and head[3] and not head[0] and not head[2]:
        return "UTF-16", "utf-16-be"
    return "UTF-8", "utf-8"

"""Detects the format of a file from its content, and returns a reader of its records or the reason why there is none. Pure."""

from __future__ import annotations

import re

import orjson

from jobs_service.datasets.containers.json_documents import JsonDocuments
from jobs_service.datasets.containers.json_lines import JsonLines
from jobs_service.datasets.containers.json_values import around
from jobs_service.datasets.containers.record import RecordReader, Unreadable
from jobs_service.datasets.containers.tables import Table, delimiter_of

# Bytes at the beginning of a file by which its format is detected.
HEAD_BYTES = 64 * 1024
PARQUET = b"PAR1"
REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook: unpack it, or save the sheet as CSV"),
    (b"BZh", "a bzip2 file: decompress it, or use gzip"),
    (b"\xfd7zXZ", "an xz file: decompress it, or use gzip"),
    (b"\x1f\x8b", "a gzip file inside a compressed file: compress it once"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file inside a compressed file: compress it once"),
    (b"ARROW1", "an Arrow or Feather file: save it as Parquet or JSON Lines"),
    (b"Obj\x01", "an Avro file: save it as Parquet or JSON Lines"),
    (b"SQLite format 3", "an SQLite database: export a table as CSV or JSON Lines"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file: save the sheet as CSV"),
    (b"%PDF", "a PDF document: extract its text first"),
    (b"\x80\x04", "a Python pickle, which is never read: save the rows as JSON Lines"),
    (b"\x80\x05", "a Python pickle, which is never read: save the rows as JSON Lines"),
)
# An object around the list of rows, such as {"data": […]}, with other plain values before it.
WRAPPED = re.compile(
    rb'\{\s*(?:"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-0-9.eE+]+|true|false|null)\s*,\s*)*'
    rb'"(?:data|rows|examples|train|dataset|items|records|samples|instances|entries)"\s*:\s*\[\s*[\]\[{]'
)
TURNS = re.compile(rb'\[\s*\{\s*"(?:role|from|content|value)"\s*:')
STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
MULTIPART = re.compile(rb"-{2,}[^\r\n]{1,80}\r?\n[Cc]ontent-[Dd]isposition:")


def refused_kind(head: bytes) -> str | None:
    """Returns the kind of a file that is refused, and what to do, by its first bytes; None for other files."""
    return next((kind for magic, kind in REFUSED if head.startswith(magic)), None)


def text_reader(head: bytes) -> RecordReader:
    """Returns the reader of a UTF-8 text by its beginning: HEAD_BYTES, or all of it."""
    start = head.lstrip()
    first_line = start.partition(b"\n")[0]
    if not start:
        return JsonLines()
    if start[:1] == b"{":
        if WRAPPED.match(start):
            return JsonDocuments(2)
        return JsonDocuments(0) if b"\n" in start and _is_open(first_line) else JsonLines()
    if start[:1] == b"[":
        if TURNS.match(start):
            return JsonDocuments(0) if b"\n" in start and _is_open(first_line) else JsonLines()
        return JsonDocuments(1)
    return _table_reader(start, first_line)


def _table_reader(start: bytes, first_line: bytes) -> RecordReader:
    if MULTIPART.match(start):
        return Unreadable("the file is a form, as `curl -F` sends it. Send the file itself: `curl --data-binary @file`")
    if start[:100].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return Unreadable("the file is a web page or XML, not a dataset; was it downloaded without signing in?")
    if start.startswith(b"version https://git-lfs"):
        return Unreadable("the file is a pointer of Git LFS: fetch the file itself with `git lfs pull`")
    line = first_line.decode(errors="replace").strip()
    delimiter = delimiter_of(line)
    if "\0" not in line and (delimiter or line.strip('"').lower() in ("text", "messages", "conversations")):
        return Table(delimiter or ",")
    shown = around(start[:200].decode(errors="replace"), 0)
    return Unreadable(
        f"the file has no known format: it begins with `{shown}`. "
        "Use JSON Lines, a JSON array, CSV or Parquet, as they are or compressed with gzip or Zstandard"
    )


def _is_open(line: bytes) -> bool:
    """Whether a line ends inside the brackets that it opens."""
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        bare = STRINGS.sub(b"", line)
        return sum(map(bare.count, (b"{", b"["))) > sum(map(bare.count, (b"}", b"]")))
    return False

"""Decodes one JSON value. Errors say what is wrong, where, and what to do. Pure."""

from __future__ import annotations

import re

import orjson

from jobs_service.datasets.containers.record import MAX_RECORD_BYTES, Record

# Characters around an error that are shown.
AROUND = 40
NOT_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"-inf")
PYTHON_WORDS = {b"True": "true", b"False": "false", b"None": "null"}
STRIPPED = (
    "several objects on one line. If their line breaks were lost on the way, as with `curl -d @file`, "
    "send the file with `curl --data-binary @file`"
)
NOT_UTF8 = "the text is not UTF-8. Save the file as UTF-8"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def decode(raw: bytes, line: int, column: int = 1) -> Record:
    """Returns the record of a JSON text. `line` and `column`: where it begins in the file."""
    try:
        return Record(line, orjson.loads(raw), len(raw))
    except orjson.JSONDecodeError as error:
        return _failed(raw, line, column, error)


def too_long(line: int, size: int) -> Record:
    """Returns the record of a row that is too long."""
    return Record(line, size=size, error=f"longer than {MAX_RECORD_BYTES} bytes")


def around(text: str, position: int) -> str:
    """Returns the text around a position, on one line."""
    start, end = max(0, position - AROUND), position + AROUND
    cut = f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
    return CONTROL.sub(" ", cut).encode(errors="replace").decode()


def _failed(raw: bytes, line: int, column: int, error: orjson.JSONDecodeError) -> Record:
    try:
        text, position, reason = raw.decode(), error.pos, _reason(raw.decode(), error)
    except UnicodeDecodeError as undecodable:
        position = len(raw[: undecodable.start].decode())
        text, reason = raw.decode("cp1252", errors="replace"), f"not JSON: {_encoding(raw, undecodable.start)}"
        # In this encoding a byte is a character: positions in `raw` are positions in `text`.
        shown = around(text, undecodable.start)
    else:
        shown = around(text, position)
        text = text[:position]
    before = raw.decode(errors="replace")[:position] if "\n" in text else ""
    lines = before.count("\n")
    column = position - before.rfind("\n") if lines else column + position
    return Record(line + lines, size=len(raw), error=reason, column=column, text=shown)


def _reason(text: str, error: orjson.JSONDecodeError) -> str:
    rest = text[error.pos : error.pos + 20].encode(errors="replace")
    number = next((each for each in NOT_NUMBERS if rest.startswith(each)), None)
    if number:
        return f"not JSON: {number.decode()} is not JSON; write null, or leave the key out"
    word = next((each for each in PYTHON_WORDS if rest.startswith(each)), None)
    if word:
        return f"not JSON: Python's {word.decode()} is {PYTHON_WORDS[word]} in JSON; write rows with json.dumps"
    if rest.startswith(b"'"):
        return "not JSON: strings and keys stand in double quotes"
    if rest.lstrip().startswith((b"{", b"[")) and text[: error.pos].rstrip().endswith("}"):
        return f"not JSON: {STRIPPED}"
    if not text[error.pos :].strip():
        return "not JSON: the row ends before its last bracket or quote; it may have been cut off"
    return f"not JSON: {error.msg.partition(':')[0]}"


def _encoding(raw: bytes, position: int) -> str:
    try:
        raw[position : position + 1].decode("cp1252")
    except UnicodeDecodeError:
        return NOT_UTF8
    return f"{NOT_UTF8}. It is perhaps Windows-1252 (ANSI)"

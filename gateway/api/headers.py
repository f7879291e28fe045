"""Reads request headers: media types, encodings and the deadline."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.types import Scope

from gateway.errors import NotAcceptable, UnsupportedMediaType
from rpc.errors import MalformedRequest

JSON = "application/json"
GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Returns all values of a header; `name` is in lower case."""
    values: list[str] = scope["state"]["headers"].get(name, [])
    return values


def one_header(request: Request, name: bytes) -> str | None:
    """Returns the value of a header, None without it. Raises MalformedRequest if it was sent more than once."""
    values = header_values(request.scope, name)
    if len(values) > 1:
        raise MalformedRequest(details=f"Send one {name.decode()} header.")
    return values[0] if values else None


def timeout_seconds(request: Request) -> float | None:
    """Returns the deadline that the client sets with `grpc-timeout`. Raises MalformedRequest."""
    text = one_header(request, b"grpc-timeout")
    if text is None:
        return None
    match = GRPC_TIMEOUT.fullmatch(text)
    if match is None:
        raise MalformedRequest(details="grpc-timeout is a number and a unit, such as 500m.")
    return int(match[1]) * UNIT_SECONDS[match[2]]


def check_accept(request: Request, media_type: str) -> None:
    """Raises NotAcceptable if the client's Accept header excludes this media type."""
    accept = ",".join(header_values(request.scope, b"accept"))
    if not accept or accept == "*/*":
        return
    accepted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if not accepted & {media_type, f"{media_type.partition('/')[0]}/*", "*/*"}:
        raise NotAcceptable(media_type)


def content_type(request: Request) -> tuple[str, bool]:
    """Returns the body's media type, and whether its charset is UTF-8 or not given. Raises MalformedRequest."""
    media_type, _, parameters = (one_header(request, b"content-type") or "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    return media_type.strip().lower(), charset in ("", "charset=utf-8")


def is_encoded(request: Request) -> bool:
    """Whether the body has a Content-Encoding. Raises MalformedRequest."""
    return (one_header(request, b"content-encoding") or "identity").lower() != "identity"


def check_json(request: Request) -> None:
    """Raises UnsupportedMediaType unless the body is JSON in UTF-8, not compressed."""
    if content_type(request) != (JSON, True) or is_encoded(request):
        raise UnsupportedMediaType(details=f"Send Content-Type {JSON}, in UTF-8 and not compressed.")


def accepts_encoding(scope: Scope, encoding: str) -> bool:
    """Whether Accept-Encoding names an encoding, and not with `q=0`."""
    for value in header_values(scope, b"accept-encoding"):
        for part in value.replace(" ", "").lower().split(","):
            name, _, weight = part.partition(";q=")
            if name == encoding:
                return not weight or bool(weight.strip("0."))
    return False

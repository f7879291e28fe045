"""Reads request bodies, within a size and a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect, Request

from gateway.api.headers import one_header
from gateway.errors import RequestTimeout
from rpc.errors import TooLarge


def declared_length(request: Request, *, max_bytes: int) -> int:
    """Returns the length of the body in bytes, `max_bytes` if it is sent in chunks. Raises TooLarge and MalformedRequest."""
    length = one_header(request, b"content-length")
    if length is None:
        return max_bytes if one_header(request, b"transfer-encoding") else 0
    if int(length) > max_bytes:
        raise _too_large(max_bytes)
    return int(length)


async def read_body(request: Request, *, max_bytes: int, timeout_seconds: float) -> bytes:
    """Returns the whole body. Raises TooLarge as soon as it is longer, RequestTimeout and ClientDisconnect."""
    body, more = b"", True
    try:
        async with asyncio.timeout(timeout_seconds):
            while more:
                chunk, more = await _receive(request)
                body = body + chunk if body else chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise RequestTimeout(timeout_seconds) from None
    return body


async def chunks(request: Request, *, silence_seconds: float) -> AsyncGenerator[bytes, None]:
    """Yields the body as it arrives. Raises RequestTimeout after `silence_seconds` without a chunk, and ClientDisconnect."""
    more = True
    while more:
        try:
            async with asyncio.timeout(silence_seconds):
                chunk, more = await _receive(request)
        except TimeoutError:
            raise RequestTimeout(silence_seconds) from None
        if chunk:
            yield chunk


async def _receive(request: Request) -> tuple[bytes, bool]:
    """Returns the next chunk of the body, and whether there are more."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message["body"], message["more_body"]


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        "Body too large", details=f"The body may have at most {max_bytes} bytes.", metadata={"limit": str(max_bytes)}
    )

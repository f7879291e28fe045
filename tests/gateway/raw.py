"""A client that sends exactly the bytes it is given, where an ordinary one would mend them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson


@dataclass(frozen=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body."""
        return orjson.loads(self.body)


async def exchange(url: str, data: bytes) -> bytes:
    """Sends bytes and reads all that comes back until the server closes. Raises TimeoutError where it does not."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        async with asyncio.timeout(5):
            writer.write(data)
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def send(url: str, data: bytes) -> Answer:
    """The answer to these bytes, which is the connection's last."""
    head, _, body = (await exchange(url, data)).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split(" ")[1]) if first else 0, headers, body)


def request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """A request that closes its connection; underscores in header names stand for hyphens."""
    values = {"host": "localhost", "connection": "close", **{k.replace("_", "-"): v for k, v in headers.items()}}
    if body:
        values.setdefault("content-length", str(len(body)))
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in values.items()], "", ""]
    return "\r\n".join(lines).encode("latin-1") + body

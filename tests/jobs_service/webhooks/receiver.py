"""A webhook's receiver: a real HTTP server that records requests and sends given responses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """An answer's bytes."""
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Received:
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        """Which message it carries."""
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """`answers` are used up from the front; then it answers `always`. None: never.

    With `endless` it sends that again and again instead, until its client leaves.
    """

    port: int = 0
    scheme: str = "http"
    answers: list[bytes | None] = field(default_factory=list)
    always: bytes | None = OK
    endless: bytes | None = None
    sent: int = 0
    received: list[Received] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?from=tests"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.received.append(Received(head[0], headers, body))
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            while self.endless is not None:
                writer.write(self.endless)
                await writer.drain()
                self.sent += len(self.endless)
            result = self.answers.pop(0) if self.answers else self.always
            if result is None:
                await reader.read()
            else:
                writer.write(result)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self.under_way -= 1
            writer.close()


@asynccontextmanager
async def receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    made = Receiver(scheme="https" if tls else "http")
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()

"""A proxy between a client and a server that can stall, drop, slow down and reset connections."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


LINGER_NOT = struct.pack("ii", 1, 0)


class Proxy:
    """Carries bytes both ways. `port`: where it listens."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.delay_seconds = 0.0
        self.trickle = False
        # Breaks a connection off in the middle of what comes back.
        self.cut = False
        self.port = 0

    def stall(self) -> None:
        """Stalls all connections from now on."""
        self._open.clear()

    def go_on(self) -> None:
        """Forwards what was stalled."""
        self._open.set()

    def reset(self) -> None:
        """Resets every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection."""
        await self._open.wait()
        with suppress(OSError):
            far_reader, far_writer = await self._connect()
            self._writers |= {writer, far_writer}
            carried = [self._carry(reader, far_writer), self._carry(far_reader, writer, back=True)]
            await asyncio.gather(*carried, return_exceptions=True)
            self._writers -= {writer, far_writer}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False) -> None:
        try:
            while data := await reader.read(65_536):
                await asyncio.sleep(self.delay_seconds)
                await self._open.wait()
                if self.cut and back:
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    # Without this it would be closed, not reset.
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
                    writer.transport.abort()
                    return
                for part in [data[n : n + 1] for n in range(len(data))] if self.trickle else [data]:
                    writer.write(part)
                    await writer.drain()
                    if self.trickle:
                        await asyncio.sleep(1)
        finally:
            writer.close()


@asynccontextmanager
async def proxy(connect: Connect) -> AsyncIterator[Proxy]:
    """A proxy while its body runs."""
    made = Proxy(connect)
    tasks: set[asyncio.Task[None]] = set()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(made.serve(reader, writer), name="proxied"))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.go_on()
        made.reset()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

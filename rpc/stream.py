"""The reader's side of a server-streaming call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message


class Stream:
    """Iterates over the responses of a server-streaming call, which a background task puts into a queue of one.

    Raises an exception that the task puts into the queue. Leaving `async with`, or `cancel`, ends the call.
    """

    def __init__(self, pump: Callable[[asyncio.Queue[Message | Exception | None]], Any], name: str) -> None:
        self._queue: asyncio.Queue[Message | Exception | None] = asyncio.Queue(1)
        self._pump = asyncio.create_task(pump(self._queue), name=name)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Message:
        item = await self._queue.get()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)

    def __del__(self) -> None:
        # As in grpc.aio, a call ends when its reader is deleted.
        if not self._pump.done() and not self._pump.get_loop().is_closed():
            self._pump.cancel()

    def cancel(self) -> None:
        """Ends the call; a pending read ends the iteration."""
        self._pump.cancel()
        if not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

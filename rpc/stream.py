"""A server-streaming call as whoever reads it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message


class Stream:
    """The messages of one server-streaming call, made in a task of its own; at most one waits to be taken.

    Raises what the pump hands over in place of a message. Leaving the `async with` around it, or `cancel`, ends the call.
    """

    def __init__(self, pump: Callable[[asyncio.Queue[Message | Exception | None]], Any], name: str) -> None:
        self._handoff: asyncio.Queue[Message | Exception | None] = asyncio.Queue(1)
        self._pump = asyncio.create_task(pump(self._handoff), name=name)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Message:
        item = await self._handoff.get()
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
        # As grpc.aio does: a call that nobody reads any more ends.
        if not self._pump.done() and not self._pump.get_loop().is_closed():
            self._pump.cancel()

    def cancel(self) -> None:
        """Ends the call; whoever waits for a message is told that there are no more."""
        self._pump.cancel()
        if not self._handoff.empty():
            self._handoff.get_nowait()
        self._handoff.put_nowait(None)

"""Memory that the C library keeps after it was freed."""

from __future__ import annotations

import asyncio
import ctypes

from rpc.process.background import repeat

TRIM_SECONDS, TRIM_TIMEOUT_SECONDS = 10.0, 10.0


async def trim_memory() -> None:
    """Gives freed memory back to the system from time to time, until cancelled. Only glibc has to be asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    async def work() -> None:
        # In a thread: it takes as long as there is memory to give back, and almost no time otherwise.
        await asyncio.to_thread(trim, 0)

    await repeat("trim_memory", work, every_seconds=TRIM_SECONDS, timeout_seconds=TRIM_TIMEOUT_SECONDS)

"""Returns freed memory, which glibc keeps, to the system."""

from __future__ import annotations

import asyncio
import ctypes

from rpc.process.background import repeat

TRIM_SECONDS, TRIM_TIMEOUT_SECONDS = 10.0, 10.0


async def trim_memory() -> None:
    """Returns freed memory to the system every `TRIM_SECONDS` until cancelled. Ends at once with another C library."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    async def work() -> None:
        # In a thread: it can block for long.
        await asyncio.to_thread(trim, 0)

    await repeat("trim_memory", work, every_seconds=TRIM_SECONDS, timeout_seconds=TRIM_TIMEOUT_SECONDS)

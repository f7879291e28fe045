"""Memory that a burst took is given back."""

from __future__ import annotations

import subprocess
import sys

# Blocks of a burst, of which a few in between stay: the C library keeps the rest.
BURST = """
import asyncio, contextlib, os
from rpc.process import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

async def trim():
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(memory.trim_memory(), 1)

blocks = [os.urandom(100_000) for _ in range(1_000)]
kept = blocks[::50]
del blocks
before = resident()
asyncio.run(trim())
print(before, resident())
"""


def test_memory_is_given_back_after_a_burst() -> None:
    """Of 100 MB that were freed in between others, the system has most again."""
    result = subprocess.run([sys.executable, "-c", BURST], capture_output=True, text=True, check=True)
    before, after = map(int, result.stdout.split())
    assert before - after > 50_000_000

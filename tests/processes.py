"""Servers as processes, with only their environment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ISSUER, SECRET

ROOT = Path(__file__).parents[1]


def environment(database_url: str, **more: str) -> dict[str, str]:
    """What a server needs: the tests' issuer, a database, any free port."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **kept,
        "PIPELINE_DATABASE_URL": database_url,
        "PIPELINE_JWT_SECRET": SECRET,
        "PIPELINE_JWT_ISSUER": ISSUER,
        "PIPELINE_ESTIMATOR_PORT": "0",
        "PIPELINE_JOBS_PORT": "0",
        "PIPELINE_LOG_FORMAT": "json",
        **more,
    }


class Server:
    """A running server. `lines` is what it has logged so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.text = ""

    async def read(self) -> None:
        """Follows its log until it ends."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.text += line.decode()
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": line.decode()})

    async def logged(self, event: str, test: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """Waits for a line of the log."""
        async with asyncio.timeout(30):
            while True:
                for line in self.lines:
                    if line.get("event") == event and test(line):
                        return line
                if self.process.returncode is not None:
                    raise AssertionError(f"ended with {self.process.returncode}: {self.text}")
                await asyncio.sleep(0.02)

    async def address(self) -> str:
        """Where it listens, once it does."""
        return str((await self.logged("serving"))["address"])


@asynccontextmanager
async def running(module: str, variables: Mapping[str, str], *arguments: str) -> AsyncIterator[Server]:
    """Runs `python -m module` while its body runs, then stops it with SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, env=variables, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    server = Server(process)
    reading = asyncio.create_task(server.read(), name="read-log")
    try:
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(25):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await reading


async def run(module: str, variables: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Runs `python -m module` to its end. Returns its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, env=variables, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()

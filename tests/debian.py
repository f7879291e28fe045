"""Programs from Debian packages, installed or unpacked by `make test` into `.pipeline/debian`."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.jobs_service.trainers import until


def needs(*programs: str) -> pytest.MarkDecorator:
    """Returns a mark that skips a test if programs are missing."""
    missing = [name for name in programs if shutil.which(name) is None]
    names = ", ".join(missing)
    return pytest.mark.skipif(bool(missing), reason=f"no {names} here; `make test` fetches Debian's where there is apt")


def free_port() -> int:
    """Returns a free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@asynccontextmanager
async def listening(*command: str, port: int) -> AsyncIterator[None]:
    """Runs a server while its body runs. Waits until it listens."""
    process = await asyncio.create_subprocess_exec(*command, env=_environment(command[0]))

    async def listens() -> bool:
        assert process.returncode is None
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(listens)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _environment(program: str) -> Mapping[str, str]:
    """The environment of an unpacked program: its libraries are beside it."""
    path = shutil.which(program)
    assert path is not None
    libraries = sorted(str(folder) for folder in Path(path).parents[1].glob("lib/*-linux-gnu"))
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}

"""Child processes that end with their parent and are restarted when they exit."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rpc.process.workers import tie_to_parent

# Exit code of a server whose error needs the operator.
NEEDS_OPERATOR = 2
# A server drains for at most 20 seconds.
STOP_SECONDS = 25.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
# After this time the pause before a restart is reset.
STEADY_SECONDS = 10.0
# Size at which a log is rotated; one rotated file (`.1`) is kept.
MAX_LOG_BYTES = 32 * 1024 * 1024


class SetupError(Exception):
    """An error that the operator has to fix, in one line."""


def last_line(log: Path) -> str:
    """Returns the last line of a log file that is not blank."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1] if lines else "no output"


def rotate(log: Path) -> None:
    """Copies a large log to `.1` and truncates it, so that processes that append to it can continue."""
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
        with log.open("r+b") as file:
            file.truncate()


@dataclass
class Server:
    """A server process that `run` restarts, with growing pauses."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    report: Callable[[str], None]
    process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Runs the server until cancelled. Raises SetupError if its first start exits with code 2."""
        pause = FIRST_PAUSE_SECONDS
        first = True
        while True:
            started = time.monotonic()
            code = await self._run_once()
            if first and code == NEEDS_OPERATOR:
                raise SetupError(last_line(self.log))
            steady = time.monotonic() - started > STEADY_SECONDS
            first, pause = first and not steady, FIRST_PAUSE_SECONDS if steady else pause
            self.report(f"{self.name} ended with {_reason(code)}; restarting in {pause:.1f} s (see {self.log})")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def stop(self) -> None:
        """Sends SIGTERM, and SIGKILL after STOP_SECONDS."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _run_once(self) -> int:
        rotate(self.log)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must reach the children through us, in order
                preexec_fn=partial(tie_to_parent, signal.SIGKILL),
            )
        return await self.process.wait()


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"

"""Child processes: they end with their parent, are started again when they die, and stop when they are told."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rpc.processes import tie_to_parent

# Exit code for what only the operator can mend, as our servers use it.
NEEDS_OPERATOR = 2
# A server drains for at most 20 seconds.
STOP_SECONDS = 25.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
# One that ran this long starts over with the shortest pause.
STEADY_SECONDS = 10.0
# Of a log, this much is kept before (`.1`) and this much now.
MAX_LOG_BYTES = 32 * 1024 * 1024


class SetupError(Exception):
    """Something that only the operator can mend; says in one line what."""


def last_line(log: Path) -> str:
    """The last words of a log."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1] if lines else "it left no word"


def rotate(log: Path) -> None:
    """Moves what is in a log aside once it is large; whoever appends to it goes on appending."""
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
        with log.open("r+b") as file:
            file.truncate()


@dataclass
class Server:
    """One server as a process of its own, started again with growing pauses for as long as `run` runs."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    tell: Callable[[str], None]
    process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Keeps it running until cancelled. Raises SetupError when its first start needs the operator."""
        pause = FIRST_PAUSE_SECONDS
        first = True
        while True:
            started = time.monotonic()
            code = await self._run_once()
            if first and code == NEEDS_OPERATOR:
                raise SetupError(last_line(self.log))
            steady = time.monotonic() - started > STEADY_SECONDS
            first, pause = first and not steady, FIRST_PAUSE_SECONDS if steady else pause
            self.tell(f"{self.name} ended with {_why(code)}; starting it again in {pause:.1f} s (see {self.log})")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def stop(self) -> None:
        """Asks it to finish what it has, and after a while does not ask."""
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
                start_new_session=True,  # Ctrl-C on a terminal is ours to pass on, in our order
                preexec_fn=partial(tie_to_parent, signal.SIGKILL),
            )
        return await self.process.wait()


def _why(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"

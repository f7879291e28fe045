"""A training process: starts it, reads its messages and output, and stops it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from rpc.process.workers import tie_to_parent
from trainer.supervisor.messages import MAX_LINE_BYTES, Message, parse
from trainer.task import REPORTS_VARIABLE, TASK_VARIABLE

POLL_SECONDS = 0.2
KILL_SECONDS = 10.0
# Lines at the end of the output that are stored, for the error message of a crash.
LAST_LINES = 20
READ_BYTES = 65_536


class Child:
    """One training process and its children. The thread that starts it must read its output and messages.

    The kernel kills the process when that thread ends, so that no training continues without a lease.
    """

    def __init__(self, command: Sequence[str], task_file: Path, environment: Mapping[str, str]) -> None:
        self._pipe = task_file.with_name("reports")
        os.mkfifo(self._pipe, 0o600)
        # Opened for writing, too, so that there is no end of file between two writers.
        self._reports = os.open(self._pipe, os.O_RDWR | os.O_NONBLOCK)
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = subprocess.Popen(  # noqa: S603 - the operator's own command or ours
            list(command),
            env={**environment, TASK_VARIABLE: str(task_file), REPORTS_VARIABLE: str(self._pipe)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(tie_to_parent, signal.SIGKILL),
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self.pid = self._process.pid
        self._terminated_at: float | None = None
        self._partial = {self._reports: b"", self._output: b""}

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def messages(self) -> Iterator[Message | str | None]:
        """Yields messages and lines of output, and None at least every POLL_SECONDS. Ends when the process has ended."""
        while True:
            ended = self.exit_code is not None
            ready, _, _ = select.select([self._reports, self._output], [], [], 0 if ended else POLL_SECONDS)
            has_read = False
            for source in ready:
                for line in self._read(source):
                    has_read = True
                    if source == self._reports:
                        yield parse(line)
                    else:
                        text = line.decode(errors="replace").rstrip()
                        self.last_lines.append(text)
                        yield text
            if ended and not has_read:
                return
            yield None

    def terminate(self) -> None:
        """Sends SIGTERM, at the first call only: the training saves a checkpoint and stops."""
        if self._terminated_at is None:
            self._terminated_at = time.monotonic()
            self._signal(self.pid, signal.SIGTERM)

    def is_overdue(self, seconds: float) -> bool:
        """Whether SIGTERM was sent more than `seconds` ago."""
        return self._terminated_at is not None and time.monotonic() - self._terminated_at > seconds

    def kill(self) -> None:
        """Kills the process and its children, and waits for it, up to KILL_SECONDS."""
        deadline = time.monotonic() + KILL_SECONDS
        self._signal(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(max(0.1, deadline - time.monotonic()))

    def close(self) -> None:
        """Kills the process if it still runs, and closes its pipes."""
        if self.exit_code is None:
            self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        os.close(self._reports)
        self._pipe.unlink(missing_ok=True)

    def _read(self, source: int) -> Iterator[bytes]:
        try:
            data = os.read(source, READ_BYTES)
        except BlockingIOError:
            return
        *lines, rest = (self._partial[source] + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines, rest = [*lines, rest[:MAX_LINE_BYTES]], b""
        self._partial[source] = rest
        yield from (line for line in lines if line.strip())

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def describe_exit(code: int) -> str:
    """Returns an exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in signal.Signals.__members__.values() else f"signal {-code}"
    hint = " (the machine's memory may have run out)" if code == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"

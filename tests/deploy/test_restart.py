"""Restarts of `pipeline up`: data survives, and no process is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from deploy.local.running import get_json, read
from tests.deploy.processes import family, patience, stack, wait_for

SECOND_START_SECONDS = 5.0


@pytest.mark.slow
def test_a_second_start_is_quick_and_finds_everything(shared_folder: Path) -> None:
    """Data survives; Ctrl-C ends every process and removes run.json; the next start is ready within five seconds."""
    with stack(shared_folder) as first:
        listed = get_json(first.running.gateway, "/api/datasets", first.token)[1]["data"]
        everyone = family(psutil.Process(first.process.pid))
        assert len(everyone) > 5
        os.killpg(first.process.pid, signal.SIGINT)
        assert first.process.wait(30) == 0
        assert [each for each in everyone if each.is_running()] == []
        assert read(shared_folder) is None
        assert not (shared_folder / "run.json").exists()
    started = time.monotonic()
    with stack(shared_folder) as second:
        seconds = time.monotonic() - started
        print(f"second start: {seconds:.2f} s, load {os.getloadavg()[0]:.1f}")
        assert seconds < patience(SECOND_START_SECONDS)
        assert get_json(second.running.gateway, "/api/datasets", second.token)[1]["data"] == listed
        assert "importing" not in second.output.read_text()


@pytest.mark.slow
def test_a_killed_supervisor_takes_everything_with_it(shared_folder: Path) -> None:
    """After SIGKILL of `pipeline up` no server and no PostgreSQL is left, and it can be started again."""
    with stack(shared_folder) as killed:
        everyone = family(psutil.Process(killed.process.pid))
        killed.process.kill()
        killed.process.wait()
        wait_for(lambda: not [each for each in everyone if each.is_running()])
    with stack(shared_folder) as again:
        assert get_json(again.running.gateway, "/api/datasets", again.token)[1]["data"]["pagination"]["total"] == 1

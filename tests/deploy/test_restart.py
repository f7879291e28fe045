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
def test_a_stack_starts_again_after_its_end_and_after_its_death(folder: Path) -> None:
    """Ctrl-C and SIGKILL end every process; the next start finds all data, and after Ctrl-C is ready in five seconds."""
    with stack(folder) as first:
        listed = get_json(first.running.gateway, "/api/datasets", first.token)[1]["data"]
        assert listed["pagination"]["total"] == 1
        everyone = family(psutil.Process(first.process.pid))
        assert len(everyone) > 5
        os.killpg(first.process.pid, signal.SIGINT)
        assert first.process.wait(30) == 0
        assert [each for each in everyone if each.is_running()] == []
        assert read(folder) is None
        assert not (folder / "run.json").exists()
    started = time.monotonic()
    with stack(folder) as second:
        seconds = time.monotonic() - started
        print(f"second start: {seconds:.2f} s, load {os.getloadavg()[0]:.1f}")
        assert seconds < patience(SECOND_START_SECONDS)
        assert get_json(second.running.gateway, "/api/datasets", second.token)[1]["data"] == listed
        assert "importing" not in second.output.read_text()
        everyone = family(psutil.Process(second.process.pid))
        second.process.kill()
        second.process.wait()
        wait_for(lambda: not [each for each in everyone if each.is_running()])
    with stack(folder) as third:
        assert get_json(third.running.gateway, "/api/datasets", third.token)[1]["data"] == listed

"""Tests of real training, collected only where PyTorch is installed: in .venv-train."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import Stack, TestDatabase, open_stack
from tests.trainer.train.trainings import REPOSITORY

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo-tiny."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-m", "trainer", "--demo-model", folder], check=True, cwd=REPOSITORY)
    return folder


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Stack]:
    """The services over gRPC, with leases that a killed trainer loses soon."""
    leases = {"lease_ms": 4_000, "renew_ms": 500, "sweep_ms": 50, "max_attempts": 10}
    async with open_stack("grpc", database.url, tmp_path, **leases) as opened:
        yield opened

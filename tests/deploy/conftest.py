"""Folders for stacks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A local folder. Not one of pytest's: those are root's alone, and PostgreSQL is another user where we are root."""
    with tempfile.TemporaryDirectory(prefix="pipeline-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    """One that the tests of a file share, as the starts of one person do."""
    with tempfile.TemporaryDirectory(prefix="pipeline-", dir="/tmp") as made:
        yield Path(made)

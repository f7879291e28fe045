"""Folders for stacks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A local folder. Not below pytest's folders, which another user, who runs PostgreSQL for root, cannot enter."""
    with tempfile.TemporaryDirectory(prefix="pipeline-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    """A local folder that the tests of a file share."""
    with tempfile.TemporaryDirectory(prefix="pipeline-", dir="/tmp") as made:
        yield Path(made)

"""Programs of Debian's packages: those of this machine, or those that `make test` unpacked into `.pipeline/debian`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where programs are missing, and says so."""
    missing = [name for name in programs if shutil.which(name) is None]
    names = ", ".join(missing)
    return pytest.mark.skipif(bool(missing), reason=f"no {names} here; `make test` fetches Debian's where there is apt")


def environment(program: str) -> Mapping[str, str]:
    """The environment of an unpacked program: its libraries are beside it."""
    path = shutil.which(program)
    assert path is not None
    libraries = sorted(str(folder) for folder in Path(path).parents[1].glob("lib/*-linux-gnu"))
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}

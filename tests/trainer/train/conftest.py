"""Tests of real training need PyTorch: they are collected where it is installed, in .venv-train."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]

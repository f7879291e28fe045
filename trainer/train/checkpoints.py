"""Checkpoints in a storage that all trainers share: any that fsspec supports.

A checkpoint is a folder `step-000000120`. Its `manifest.json`, written last, lists every file with size and SHA-256. A folder
without a manifest, or with a different file, is incomplete and is not used. The newest two are kept.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from trainer.train.errors import CheckpointError

MANIFEST = "manifest.json"
MAX_CHECKPOINTS = 2


class Checkpoints:
    """The checkpoints of one job. `identity`: properties that a checkpoint must have to be resumed from."""

    def __init__(self, url: str, identity: Mapping[str, Any]) -> None:
        self._url = url.rstrip("/")
        self._filesystem, root = fsspec.core.url_to_fs(self._url)
        self._root = root.rstrip("/")
        self._identity = dict(identity)

    def save(self, folder: Path, step: int) -> str:
        """Copies a folder as the checkpoint of a step; returns its URI. Raises CheckpointError."""
        name = _name(step)
        target = f"{self._root}/{name}"
        try:
            if self._filesystem.exists(target):
                self._filesystem.rm(target, recursive=True)
            files = {}
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                relative = path.relative_to(folder).as_posix()
                self._filesystem.makedirs(f"{target}/{relative}".rpartition("/")[0], exist_ok=True)
                self._filesystem.put_file(str(path), f"{target}/{relative}")
                files[relative] = {"size": path.stat().st_size, "sha256": _sha256(path)}
            manifest = {"step": step, "identity": self._identity, "files": files}
            with self._filesystem.open(f"{target}/{MANIFEST}", "wb") as opened:
                opened.write(json.dumps(manifest, indent=2).encode())
            for old in self._steps()[:-MAX_CHECKPOINTS]:
                self._filesystem.rm(f"{self._root}/{_name(old)}", recursive=True)
        except Exception as error:  # each kind of storage has exceptions of its own
            with suppress(Exception):  # an incomplete checkpoint is useless, and the storage may be full
                self._filesystem.rm(target, recursive=True)
            raise CheckpointError(f"The checkpoint of step {step} cannot be written to {self._url}: {error}") from error
        return f"{self._url}/{name}"

    def load(self, folder: Path) -> tuple[int | None, list[str]]:
        """Copies the newest complete checkpoint into a folder. Returns its step, if any, and lines for the job's log."""
        log_lines = list[str]()
        for step in reversed(self._steps()):
            try:
                self.fetch(step, folder)
            except CheckpointError as error:
                log_lines.append(str(error))
                continue
            return step, [*log_lines, f"Training resumes from the checkpoint of step {step}."]
        if log_lines:
            log_lines.append("Training starts from the beginning.")
        return None, log_lines

    def fetch(self, step: int, folder: Path) -> None:
        """Copies the checkpoint of a step into a folder. Raises CheckpointError."""
        name, target = _name(step), local_folder(folder, step)
        try:
            problem = self._copy(name, target)
        except Exception as error:  # as above
            problem = f"cannot be read: {error}"
        if problem is not None:
            shutil.rmtree(target, ignore_errors=True)
            raise CheckpointError(f"The checkpoint {name} is not used: {problem}.")

    def _copy(self, name: str, target: Path) -> str | None:
        """Copies a checkpoint. Returns the reason if it cannot be used, else None."""
        source = f"{self._root}/{name}"
        if not self._filesystem.exists(f"{source}/{MANIFEST}"):
            return "it is incomplete"
        manifest = json.loads(self._filesystem.cat_file(f"{source}/{MANIFEST}"))
        for key, value in self._identity.items():
            if manifest["identity"].get(key) != value:
                return f"its {key} is different"
        for relative, expected in manifest["files"].items():
            path = target / relative
            if not path.resolve().is_relative_to(target.resolve()):
                return f"it names a file outside of it, {relative}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._filesystem.exists(f"{source}/{relative}"):
                return f"{relative} is missing"
            self._filesystem.get_file(f"{source}/{relative}", str(path))
            if (path.stat().st_size, _sha256(path)) != (expected["size"], expected["sha256"]):
                return f"{relative} differs from what was written"
        return None

    def _steps(self) -> list[int]:
        """Returns the steps of checkpoints, oldest first."""
        try:
            paths = self._filesystem.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:  # as above
            raise CheckpointError(f"The checkpoints in {self._url} cannot be listed: {error}") from error
        names = [str(path).rstrip("/").rpartition("/")[2] for path in paths]
        numbers = [name.removeprefix("step-") for name in names if name.startswith("step-")]
        return sorted(int(number) for number in numbers if number.isdecimal())


def local_folder(folder: Path, step: int) -> Path:
    """Returns the training library's folder for the checkpoint of a step."""
    return folder / f"checkpoint-{step}"


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

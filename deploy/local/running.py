"""The running stack: `run.json` in the local folder, which exists while `pipeline up` runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.auth import DevelopmentIssuer
from gateway.settings import GatewaySettings

PRIVATE = 0o600
GET_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Issuer:
    """Secret and claims of the development issuer."""

    jwt_secret: str
    jwt_issuer: str
    jwt_audience: str

    def open(self) -> DevelopmentIssuer:
        """Returns the issuer."""
        return DevelopmentIssuer(GatewaySettings(dev_issuer=True, **asdict(self)))


@dataclass(frozen=True, slots=True)
class Running:
    """Addresses of a stack. `gateway` is a URL; `issuer` is None without the development issuer."""

    gateway: str
    estimator: str
    jobs: str
    database_url: str
    pid: int
    issuer: Issuer | None
    # URL of each process's metrics.
    metrics: Mapping[str, str]


def read(folder: Path) -> Running | None:
    """Returns the stack that runs on a local folder, None if its process is gone."""
    try:
        fields = json.loads((folder / "run.json").read_text())
        os.kill(fields["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    issuer = fields.pop("issuer")
    return Running(**fields, issuer=issuer and Issuer(**issuer))


@contextmanager
def run_file(folder: Path, running: Running) -> Iterator[None]:
    """Writes `run.json` for as long as the body runs. It contains secrets; only its owner may read it."""
    file = folder / "run.json"
    write_private(file, json.dumps(asdict(running), indent=2))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def write_private(file: Path, text: str) -> None:
    """Replaces a file atomically; only its owner may read it."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE), "w") as opened:  # noqa: PTH123 - Path sets no mode
        opened.write(text)
    temporary.replace(file)


def get_json(gateway: str, path: str, token: str | None = None) -> tuple[int, Any]:
    """Returns status and JSON of a GET; (0, None) if there is no answer."""
    headers = {"accept": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    connection = HTTPConnection(urlsplit(gateway).netloc, timeout=GET_SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or "null")
    except (OSError, HTTPException, ValueError):
        return 0, None
    finally:
        connection.close()

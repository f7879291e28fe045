"""What the bench runs: one PostgreSQL, our servers in one process and apart, and the programs that they are compared with."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import psutil
from pipeline.estimator.v1 import estimator_pb2

from deploy.local.postgres import Postgres
from deploy.local.running import get_json
from deploy.settings import environment
from jobs_service.database.migrate import migrate
from rpc.database.queries import load_queries
from tests.bench.load import CLIENTS

HERE = Path(__file__).parent
SECRET, ISSUER, PASSWORD = "a-secret-of-the-bench-that-is-32-bytes-long", "pipeline-bench", "password-of-the-bench"
START_SECONDS = 60.0
CONFIGURATION = {
    "gpu_config": {"type": "A100-80GB", "count": 2},
    "hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16},
}
# Users without jobs, who create some at the same time: one user's are created one after another, so that the limit on open
# jobs is exact. Then users by the number of their finished jobs. Each user has one dataset.
CREATORS = [str(uuid.UUID(int=0xAAAAAAAA_0000_4000_8000_000000000000 + number)) for number in range(CLIENTS)]
OWNERS = {jobs: str(uuid.UUID(int=0xAAAAAAAA_0000_4000_9000_000000000000 + jobs)) for jobs in (10, 1_000, 5_000)}
JOBS_OF_OTHERS = 10_000
# `pipeline serve` with a part of it changed. The Estimator reads a dataset at most once in 0.9 seconds; `cold` reads it for
# every estimate. `unmeasured` counts nothing.
CHANGES = {
    "cold": "import estimator_service.datasets.store as s; s.FRESH_SECONDS = 0",
    "unmeasured": "import prometheus_client as p; p.Counter.inc = p.Histogram.observe = lambda *a, **k: None",
}
SQL = load_queries("tests.bench", "bench.sql")


# Shares of requests whose trace is recorded.
TRACED = {"traced 1 %": 0.01, "traced": 1.0}


def dataset_of(user: str) -> str:
    """Returns the id of a user's dataset."""
    return user.replace("aaaaaaaa", "dddddddd")


class Programs:
    """Starts each program when a row first needs it, and ends all of them with the stack."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.processes: dict[str, Any] = {}
        self._ports: dict[str, int] = {}
        self._postgres = Postgres(folder / "postgres")
        stack.callback(self._postgres.close)
        with (folder / "postgres" / "postgresql.conf").open("a") as configuration:
            configuration.write("max_connections = 300  # each of our processes may take ten\n")
        self._postgres.start()
        (self.processes["postgres"],) = psutil.Process().children()
        self._databases: set[str] = set()

    def admin_url(self, database: str) -> str:
        """Returns an administrator's URL of a database."""
        return self._postgres.url.replace("/postgres?", f"/{database}?", 1)

    def database(self, name: str, jobs_of_others: int) -> None:
        """Creates a database with our users' datasets and jobs, and others' jobs."""
        if name not in self._databases:
            self._databases.add(name)
            print(f"  database {name}: {jobs_of_others:,} jobs of other users", flush=True)
            asyncio.run(self._create(name, jobs_of_others))

    async def _create(self, name: str, jobs_of_others: int) -> None:
        admin = await asyncpg.connect(self._postgres.url)
        await admin.execute(f"create database {name}")
        await admin.close()
        url = self.admin_url(name)
        await migrate(url, passwords={"service": PASSWORD})
        admin = await asyncpg.connect(url, command_timeout=600)
        for user, jobs in [(user, 0) for user in CREATORS] + [(user, jobs) for jobs, user in OWNERS.items()]:
            await admin.execute(SQL["dataset"], uuid.UUID(dataset_of(user)), uuid.UUID(user))
            await admin.execute(SQL["jobs_of_user"], uuid.UUID(user), jobs)
        await admin.execute(SQL["jobs_of_others"], jobs_of_others // 10)
        await admin.execute("vacuum analyze")
        await admin.close()

    def forget_created(self) -> None:
        """Removes what the creators created, so that each round meets the same tables."""
        asyncio.run(self._forget_created())

    async def _forget_created(self) -> None:
        admin = await asyncpg.connect(self.admin_url("bench"))
        await admin.execute(SQL["forget_created"])
        await admin.execute("vacuum")
        await admin.close()

    def serve(self, name: str = "serve", database: str = "bench") -> int:
        """Starts `pipeline serve`, changed if `CHANGES` has its name; returns its HTTP port."""
        if name not in self._ports:
            ports = {f"{each}_port": _free_port() for each in ("gateway", "estimator", "jobs")}
            program = f"{CHANGES.get(name, '')}\nimport deploy.cli; raise SystemExit(deploy.cli.main())"
            settings = self._settings(database) | ports
            if name in TRACED:
                settings |= {"otlp_endpoint": f"http://127.0.0.1:{self.echo()}", "trace_sample_ratio": TRACED[name]}
            self._start(name, [sys.executable, "-c", program, "serve"], **settings)
            self._wait_until_ready(name, ports["gateway_port"])
        return self._ports[name]

    def apart(self) -> tuple[int, int]:
        """Starts gateway, Jobs and Estimator as processes of their own; returns the gateway's and the Estimator's port."""
        if "gateway" not in self._ports:
            ports = {name: _free_port() for name in ("gateway", "estimator", "jobs")}
            settings = self._settings("bench") | {f"{name}_port": port for name, port in ports.items()}
            settings |= {f"{name}_address": f"127.0.0.1:{ports[name]}" for name in ("estimator", "jobs")}
            for name, module in (("estimator", "estimator_service"), ("jobs", "jobs_service"), ("gateway", "gateway")):
                self._start(name, [sys.executable, "-m", module], **settings)
            self._ports["estimator"] = ports["estimator"]
            self._wait_until_ready("gateway", ports["gateway"])
        return self._ports["gateway"], self._ports["estimator"]

    def other(self, name: str, *command: str) -> int:
        """Starts a program to compare with, whose last argument is its port; returns the port."""
        if name not in self._ports:
            port = _free_port()
            os.environ.update(
                BENCH_DATABASE_URL=self.admin_url("bench"),
                BENCH_SECRET=SECRET,
                BENCH_ISSUER=ISSUER,
                NODE_ENV="production",
            )
            self._start(name, [*command, str(port)])
            until = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                self._check(name, until)
            self._ports[name] = port
        return self._ports[name]

    def fastapi(self) -> int:
        """Starts the FastAPI program; returns its port."""
        return self.other("fastapi", sys.executable, str(HERE / "fastapi_server.py"))

    def fastify(self) -> int:
        """Starts the Fastify program, its packages installed first; returns its port."""
        folder = HERE / "fastify"
        if not (folder / "node_modules").is_dir():
            print("  npm ci", flush=True)
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True)
        return self.other("fastify", "node", str(folder / "server.js"))

    def echo(self) -> int:
        """Starts the bare grpc.aio server; returns its port."""
        return self.other("echo", sys.executable, str(HERE / "echo_server.py"))

    def http_arguments(self, user: str, body: Mapping[str, Any] | None = None) -> list[str]:
        """Returns h2load's arguments for a user's requests over HTTP/1.1."""
        arguments = ["--h1", *_headers(user, "content-type: application/json")]
        if body is not None:
            arguments += ["-d", self._file(json.dumps({"dataset_id": dataset_of(user), **body}).encode())]
        return arguments

    def grpc_arguments(self, user: str) -> list[str]:
        """Returns h2load's arguments for EstimateCost over gRPC, four calls at a time on a connection."""
        request = estimator_pb2.EstimateCostRequest(
            dataset_id=dataset_of(user),
            gpu_config=estimator_pb2.GpuConfig(type="A100-80GB", count=2),
            hyperparameters=estimator_pb2.Hyperparameters(batch_size=4, epochs=3, learning_rate=5e-5, rank=16),
        ).SerializeToString()
        frame = b"\0" + len(request).to_bytes(4, "big") + request
        return ["-m4", *_headers(user, "content-type: application/grpc", "te: trailers"), "-d", self._file(frame)]

    def check_logs(self) -> None:
        """Raises SystemExit if any call failed: over gRPC that shows in our own log lines only."""
        for log in self._folder.glob("*.log"):
            for line in log.read_text().splitlines():
                if (
                    line.startswith("{")
                    and (entry := json.loads(line)).get("event") == "call"
                    and entry["code"] != "OK"
                ):
                    raise SystemExit(f"bench: {log.stem}: {line}")

    def _settings(self, database: str) -> dict[str, Any]:
        return {
            "database_url": self.admin_url(database).replace("postgres:@", f"pipeline_service:{PASSWORD}@", 1),
            "jwt_secret": SECRET,
            "jwt_issuer": ISSUER,
            "log_format": "json",
            "storage_url": f"file://{self._folder}/storage",
        }

    def _start(self, name: str, command: list[str], **settings: Any) -> None:
        log = (self._folder / f"{name}.log").open("wb")
        self._stack.callback(log.close)
        process = psutil.Popen(command, env=environment(**settings), stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        self.processes[name] = process

    def _wait_until_ready(self, name: str, port: int) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if get_json(f"http://127.0.0.1:{port}", "/readyz")[0] == 200:
                    break
            self._check(name, until)
        self._ports[name] = port

    def _check(self, name: str, until: float) -> None:
        """Waits a moment. Raises SystemExit if a program ended or takes too long to start."""
        if self.processes[name].poll() is not None or time.monotonic() > until:
            raise SystemExit(f"bench: {name} does not start: {(self._folder / f'{name}.log').read_text()}")
        time.sleep(0.05)

    def _file(self, content: bytes) -> str:
        file = self._folder / f"body-{hashlib.sha256(content).hexdigest()[:12]}"
        file.write_bytes(content)
        return str(file)


def _headers(user: str, *more: str) -> list[str]:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "authenticated", "sub": user, "iat": now, "exp": now + 86_400}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    return [part for line in (f"authorization: Bearer {token}", *more) for part in ("-H", line)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])

"""`make bench`: what the suite costs against the least that does the same; writes BENCHMARKS.md.

Each comparison runs both sides in turn, round after round, and tells the median of the rounds' ratios: what else the
machine does meets both alike. Processor time is counted per process and request. Load comes from h2load, which is cheap.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import jwt
import psutil
from pipeline.estimator.v1 import estimator_pb2

from deploy.postgres import Postgres, program
from deploy.running import get_json
from deploy.settings import environment
from jobs_service.database.migrate import migrate
from rpc.database.queries import load_queries

HERE = Path(__file__).parent
REPORT = HERE.parents[1] / "BENCHMARKS.md"
SECRET, ISSUER, PASSWORD = "a-secret-of-the-bench-that-is-32-bytes-long", "pipeline-bench", "password-of-the-bench"
ASKED = {
    "gpu_config": {"type": "A100-80GB", "count": 2},
    "hyperparameters": {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16},
}
CREATE = {**ASKED, "preset_id": "balanced"}
CLIENTS = 16
# Users that queue jobs at the same time, each with a dataset of their own: one user's are queued one after another, so
# that the limit on open jobs is exact. What a round makes is removed after it.
USERS = [str(uuid.UUID(int=0xAAAAAAAA_0000_4000_8000_000000000000 + number)) for number in range(CLIENTS)]
DATASETS = [user.replace("aaaaaaaa", "dddddddd") for user in USERS]
# So many that starting one h2load for each user, which counts for both sides, is a small part.
CREATES = 1600
MIN_FREE_BYTES = 4 << 30
ESTIMATE, JOBS = "/api/jobs/estimate", "/api/jobs"
SQL = load_queries("tests.bench", "bench.sql")
RPC = "/pipeline.estimator.v1.EstimatorService/EstimateCost"


@dataclass
class Side:
    """One side of a comparison: what it is, one round of it, and what was measured."""

    name: str
    round: Callable[[], tuple[float, int]]
    processes: Mapping[str, psutil.Process]
    rates: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        """Runs one round."""
        before = {name: cpu_seconds(process) for name, process in self.processes.items()}
        rate, count = self.round()
        self.rates.append(rate)
        for name, process in self.processes.items():
            self.cpu_ms.setdefault(name, []).append((cpu_seconds(process) - before[name]) * 1000 / count)


@dataclass
class Comparison:
    """Ours against another; `target` is the least that ours over other has to be, or, with `at_most`, the most."""

    title: str
    ours: Side
    other: Side
    target: float | None
    at_most: bool = False
    after: Callable[[], None] = lambda: None

    def run(self, rounds: int) -> None:
        """Runs both sides in turn; who begins changes from round to round."""
        for number in range(rounds + 1):
            for side in (self.ours, self.other) if number % 2 else (self.other, self.ours):
                side.measure()
                self.after()
            if number == 0:
                # The first round warms up caches, pools and prepared statements.
                for side in (self.ours, self.other):
                    side.rates.clear()
                    side.cpu_ms.clear()

    @property
    def ratio(self) -> float:
        """Median over the rounds of ours over other; of times where `at_most`."""
        pairs = zip(self.ours.rates, self.other.rates, strict=True)
        return statistics.median(other / ours if self.at_most else ours / other for ours, other in pairs)

    @property
    def work_ratio(self) -> float:
        """The same of processor time, servers and PostgreSQL together: what else the machine does changes it little."""
        ours, other = (
            sum(statistics.median(spent) for spent in side.cpu_ms.values()) for side in (self.ours, self.other)
        )
        return ours / other if self.at_most else other / ours


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of a process and its children, those that ended too: PostgreSQL has one for each session."""
    own = process.cpu_times()
    total: float = own.user + own.system + own.children_user + own.children_system
    for each in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            used = each.cpu_times()
            total += used.user + used.system
    return total


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Bench:
    """Everything that runs, and the load on it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = self._folder = folder
        self._stack = stack
        self.processes: dict[str, psutil.Process] = {}
        self.tokens = [_token(user) for user in USERS]
        self._postgres = Postgres(folder / "postgres")
        self._stack.callback(self._postgres.close)
        self._postgres.start()
        (self.postgres,) = psutil.Process().children()

    def admin_url(self, database: str) -> str:
        """An administrator's URL of a database."""
        return self._postgres.url.replace("/postgres?", f"/{database}?", 1)

    def service_url(self, database: str) -> str:
        """The URL that services have of a database."""
        return self.admin_url(database).replace("postgres:@", f"pipeline_service:{PASSWORD}@", 1)

    async def prepare(self, database: str, rows: int) -> None:
        """Makes a database with a dataset of our user, and others' jobs so that the table has `rows`, ten of them ours."""
        admin = await asyncpg.connect(self._postgres.url)
        await admin.execute(f"create database {database}")
        await admin.close()
        url = self.admin_url(database)
        await migrate(url, passwords={"service": PASSWORD})
        admin = await asyncpg.connect(url, command_timeout=600)
        for dataset, user in zip(DATASETS, USERS, strict=True):
            await admin.execute(SQL["dataset"], uuid.UUID(dataset), uuid.UUID(user))
        if rows:
            await admin.execute(SQL["datasets_of_others"], rows // 10 - len(USERS))
            await admin.execute(SQL["jobs_of_all"])
        await admin.execute("vacuum analyze")
        await admin.close()

    def start(self, name: str, *command: str, port: int, **settings: Any) -> psutil.Process:
        """Starts a program that listens on a port, with its output in a file of the bench's folder."""
        log = (self._folder / f"{name}.log").open("wb")
        self._stack.callback(log.close)
        process = subprocess.Popen([sys.executable, *command], env=environment(**settings), stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                self.processes[name] = psutil.Process(process.pid)
                return self.processes[name]
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name} does not start: {(self._folder / f'{name}.log').read_text()}")
            time.sleep(0.05)

    def serve(self, name: str, url: str, common: Mapping[str, Any]) -> int:
        """Starts `pipeline serve` on a database; returns its HTTP port."""
        ports = {f"{each}_port": free_port() for each in ("gateway", "estimator", "jobs")}
        self.start(name, "-m", "deploy.cli", "serve", port=ports["gateway_port"], database_url=url, **common, **ports)
        self.until_ready(ports["gateway_port"])
        return ports["gateway_port"]

    def until_ready(self, port: int) -> None:
        """Waits until a gateway and what is behind it answer."""
        until = time.monotonic() + 60
        while get_json(f"http://127.0.0.1:{port}", "/readyz")[0] != 200:
            if time.monotonic() > until:
                raise SystemExit(f"not ready: {self._folder}")
            time.sleep(0.05)

    def remove_jobs(self) -> None:
        """Empties the tables that queueing fills, so that each round meets the same."""
        asyncio.run(self._remove_jobs())

    async def _remove_jobs(self) -> None:
        admin = await asyncpg.connect(self.admin_url("bench"))
        await admin.execute(SQL["remove_jobs"])
        await admin.close()

    def check_logs(self) -> None:
        """Raises SystemExit if any call failed: over gRPC that shows in our own log lines only."""
        for name in ("estimator", "jobs", "serve", "few", "many"):
            for line in (self._folder / f"{name}.log").read_text().splitlines():
                body = json.loads(line)
                if body["event"] == "call" and body["code"] != "OK":
                    raise SystemExit(f"{name}: {line}")

    def http(self, port: int, path: str, count: int, body: Mapping[str, Any] | None = None) -> tuple[float, int]:
        """Sends one user's requests over HTTP/1.1; returns requests a second and their number."""
        return h2load(f"http://127.0.0.1:{port}{path}", count, *self._http(0, body))

    def create(self, port: int) -> tuple[float, int]:
        """Queues jobs of all users at once."""
        url, each = f"http://127.0.0.1:{port}{JOBS}", CREATES // len(USERS)
        with ThreadPoolExecutor(len(USERS)) as pool:
            started = time.monotonic()
            loads = [pool.submit(h2load, url, each, *self._http(n, CREATE), clients=1) for n in range(len(USERS))]
            count = sum(load.result()[1] for load in loads)
            return count / (time.monotonic() - started), count

    def rpc(self, port: int, count: int) -> tuple[float, int]:
        """The same for EstimateCost over gRPC, on four connections with four calls at a time each."""
        request = estimator_pb2.EstimateCostRequest(
            dataset_id=DATASETS[0],
            gpu_config=estimator_pb2.GpuConfig(**ASKED["gpu_config"]),
            hyperparameters=estimator_pb2.Hyperparameters(**ASKED["hyperparameters"]),
        ).SerializeToString()
        frame = b"\0" + len(request).to_bytes(4, "big") + request
        headers = self._headers(0, "content-type: application/grpc", "te: trailers")
        url = f"http://127.0.0.1:{port}{RPC}"
        return h2load(url, count, "-m4", *headers, "-d", self._file(frame), clients=CLIENTS // 4)

    def _http(self, user: int, body: Mapping[str, Any] | None) -> list[str]:
        arguments = ["--h1", *self._headers(user, "content-type: application/json")]
        if body is not None:
            arguments += ["-d", self._file(json.dumps({"dataset_id": DATASETS[user], **body}).encode())]
        return arguments

    def _headers(self, user: int, *more: str) -> list[str]:
        return [part for line in (f"authorization: Bearer {self.tokens[user]}", *more) for part in ("-H", line)]

    def _file(self, content: bytes) -> str:
        file = self._folder / f"body-{hashlib.sha256(content).hexdigest()[:12]}"
        file.write_bytes(content)
        return str(file)


def _token(user: str) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "authenticated", "sub": user, "iat": now, "exp": now + 86_400}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def h2load(url: str, count: int, *arguments: str, clients: int = CLIENTS) -> tuple[float, int]:
    """Requests a second, and how many. Raises SystemExit unless every answer is a good one."""
    command = ["h2load", f"-n{count}", f"-c{clients}", *arguments, url]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    rate, good = re.search(r"finished in .*?, ([\d.]+) req/s", said), re.search(r"status codes: (\d+) 2xx", said)
    if rate is None or good is None or int(good[1]) != count:
        raise SystemExit(f"{' '.join(command[:4])} {url}: {said}")
    return float(rate[1]), count


def pgbench(url: str, count: int) -> tuple[float, int]:
    """The inserts of a new job in one transaction, by as many clients as HTTP has; transactions a second."""
    each = count // CLIENTS
    script = str(HERE / "create_job.pgbench.sql")
    command = [program("pgbench"), "-n", "-M", "prepared", f"-c{CLIENTS}", f"-t{each}", "-f", script, url]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    rate = re.search(r"tps = ([\d.]+)", said)
    assert rate is not None, said
    return float(rate[1]), each * CLIENTS


def comparisons(bench: Bench) -> Iterator[Comparison]:
    """Starts what each comparison needs, and yields it."""
    common = {
        "jwt_secret": SECRET,
        "jwt_issuer": ISSUER,
        "log_format": "json",
        "storage_url": f"file://{bench.folder}/storage",
    }
    url = bench.service_url("bench")
    sql = {"postgres": bench.postgres}

    ports = {f"{name}_port": free_port() for name in ("gateway", "estimator", "jobs")}
    apart = {
        **common,
        **ports,
        "database_url": url,
        "estimator_address": f"127.0.0.1:{ports['estimator_port']}",
        "jobs_address": f"127.0.0.1:{ports['jobs_port']}",
    }
    estimator = bench.start("estimator", "-m", "estimator_service", port=ports["estimator_port"], **apart)
    bench.start("jobs", "-m", "jobs_service", port=ports["jobs_port"], **apart)
    gateway = bench.start("gateway", "-m", "gateway", port=ports["gateway_port"], **apart)
    bench.until_ready(ports["gateway_port"])
    echo_port, hop_port, fast_port = free_port(), free_port(), free_port()
    echo = bench.start("echo", str(HERE / "echo_server.py"), str(echo_port), port=echo_port)
    hop = bench.start("hop", str(HERE / "hop_server.py"), str(hop_port), str(echo_port), port=hop_port)
    os.environ.update(BENCH_DATABASE_URL=bench.admin_url("bench"), BENCH_SECRET=SECRET, BENCH_ISSUER=ISSUER)
    fast = bench.start("fastapi", str(HERE / "fastapi_server.py"), str(fast_port), port=fast_port)
    serve_port = bench.serve("serve", url, common)
    serve = bench.processes["serve"]

    yield Comparison(
        "EstimateCost over gRPC : bare grpc.aio echo",
        Side("estimator_service", lambda: bench.rpc(ports["estimator_port"], 2000), {"estimator": estimator, **sql}),
        Side("echo", lambda: bench.rpc(echo_port, 2000), {"echo": echo}),
        target=0.75,
    )
    yield Comparison(
        "POST /api/jobs/estimate, apart : bare Starlette → grpc.aio echo",
        Side(
            "gateway → estimator_service",
            lambda: bench.http(ports["gateway_port"], ESTIMATE, 1500, ASKED),
            {"gateway": gateway, "estimator": estimator, **sql},
        ),
        Side("Starlette → echo", lambda: bench.http(hop_port, ESTIMATE, 1500, ASKED), {"starlette": hop, "echo": echo}),
        target=0.8,
    )
    ours, others = {"serve": serve, **sql}, {"fastapi": fast, **sql}
    yield Comparison(
        "POST /api/jobs/estimate, one process : FastAPI + asyncpg",
        Side("pipeline serve", lambda: bench.http(serve_port, ESTIMATE, 2000, ASKED), ours),
        Side("FastAPI", lambda: bench.http(fast_port, ESTIMATE, 2000, ASKED), others),
        target=1.5,
    )
    yield Comparison(
        "POST /api/jobs, one process : FastAPI + asyncpg",
        Side("pipeline serve", lambda: bench.create(serve_port), ours),
        Side("FastAPI", lambda: bench.create(fast_port), others),
        target=1.2,
        after=bench.remove_jobs,
    )
    yield Comparison(
        "POST /api/jobs, one process : pgbench, the same inserts",
        Side("pipeline serve", lambda: bench.create(serve_port), ours),
        Side("pgbench", lambda: pgbench(bench.admin_url("bench"), CREATES), sql),
        target=None,
        after=bench.remove_jobs,
    )
    bench.http(serve_port, JOBS, 16, CREATE)
    yield Comparison(
        "GET /api/jobs, one process : FastAPI + asyncpg",
        Side("pipeline serve", lambda: bench.http(serve_port, JOBS, 1500), ours),
        Side("FastAPI", lambda: bench.http(fast_port, JOBS, 1500), others),
        target=1.2,
    )
    few = bench.serve("few", bench.service_url("few"), common)
    many = bench.serve("many", bench.service_url("many"), common)
    yield Comparison(
        "GET /api/jobs, time with 1,000,000 rows : with 10,000",
        Side("1,000,000 rows", lambda: bench.http(many, JOBS, 1000), {"serve": bench.processes["many"], **sql}),
        Side("10,000 rows", lambda: bench.http(few, JOBS, 1000), {"serve": bench.processes["few"], **sql}),
        target=1.2,
        at_most=True,
    )


def report(done: list[Comparison], rounds: int) -> str:
    """The results as Markdown."""
    load, now = os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; `tests/bench/` has the programs compared with. Throughput in requests a second, median of",
        f"{rounds} interleaved rounds; the ratio is the median of the rounds' own ratios, with the lowest and the highest in",
        "brackets. Processor time in milliseconds a request, median, PostgreSQL with all its sessions as one. Load: h2load, 16",
        "requests at a time; jobs are queued by 16 users at once, other requests are one user's. PostgreSQL's data is in",
        "memory where the machine allows it: what is compared is work, not a disk. `of processor time`: the other side's over",
        "ours (ours over the other's in the last row), servers and PostgreSQL together, which what else runs changes little.",
        "",
        f"- {now} UTC, {platform.machine()}, {os.cpu_count()} cores, load average {load:.1f} at the end",
        f"- Python {platform.python_version()}, grpcio {grpc.__version__}, {platform.system()} {platform.release()}",
        "",
        "| ours : other | ours | other | ratio | target | of processor time | ms of it, ours | other |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in done:
        pairs = zip(each.ours.rates, each.other.rates, strict=True)
        ratios = [other / ours if each.at_most else ours / other for ours, other in pairs]
        expected = "—" if each.target is None else f"{'≤' if each.at_most else '≥'} {each.target}"
        met = each.target is None or (each.ratio <= each.target if each.at_most else each.ratio >= each.target)
        cells = [
            each.title,
            f"{statistics.median(each.ours.rates):,.0f}",
            f"{statistics.median(each.other.rates):,.0f}",
            f"**{each.ratio:.2f}** ({min(ratios):.2f} to {max(ratios):.2f})",
            expected + ("" if met else " **missed**"),
            f"{each.work_ratio:.2f}",
            *(
                ", ".join(f"{name} {statistics.median(spent):.2f}" for name, spent in side.cpu_ms.items())
                for side in (each.ours, each.other)
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs everything."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--only", default="", help="only comparisons whose title has this")
    arguments.add_argument("--report", type=Path, default=REPORT)
    chosen = arguments.parse_args()
    if shutil.which("h2load") is None:
        raise SystemExit("bench: h2load is not here; Debian has it in nghttp2-client")
    with contextlib.suppress(PermissionError):
        # What else the machine does counts less; and PostgreSQL writes to memory, so that its disk does not count at all.
        os.nice(-10)
    memory = Path("/dev/shm")
    directory = memory if memory.is_dir() and shutil.disk_usage(memory).free > MIN_FREE_BYTES else Path("/tmp")
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-", dir=directory) as folder, ExitStack() as stack:
        bench = Bench(Path(folder), stack)
        for database, rows in {"bench": 0, "few": 10_000, "many": chosen.rows}.items():
            print(f"preparing {database}: {rows:,} rows")
            asyncio.run(bench.prepare(database, rows))
        done = []
        for each in comparisons(bench):
            if chosen.only.lower() not in each.title.lower():
                continue
            each.run(chosen.rounds)
            done.append(each)
            print(report([each], chosen.rounds).splitlines()[-1], flush=True)
        bench.check_logs()
        chosen.report.write_text(report(done, chosen.rounds))


if __name__ == "__main__":
    main()

"""`pipeline up`: PostgreSQL, migrations, the servers as processes, a demo dataset and a simulated trainer."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from deploy.local import demo
from deploy.local.postgres import Postgres, PostgresError
from deploy.local.processes import Server, SetupError, last_line, rotate
from deploy.local.running import Issuer, Running, get_json, run_file, write_private
from deploy.settings import UpSettings, environment, plain
from jobs_service.database.migrate import migrate
from jobs_service.settings import Login
from rpc.errors import OperatorError
from rpc.process.background import background

SERVERS = {"estimator": "estimator_service", "jobs": "jobs_service", "gateway": "gateway"}
# Every process by name, with the command that starts it. The sender of webhooks listens on no port.
COMMANDS = {name: ["-m", module] for name, module in SERVERS.items()} | {"webhooks": ["-m", "jobs_service", "webhooks"]}
# Processes with a login of their own. The gateway needs no database.
LOGINS: tuple[Login, ...] = ("estimator", "jobs", "webhooks")
READY_SECONDS = 60.0
POLL_SECONDS = 0.05
WATCH_SECONDS = 0.5
# Errors of connecting to a database and migrating it.
DATABASE_ERRORS = (
    OSError,
    TimeoutError,
    ValueError,
    OperatorError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)

Report = Callable[[str], None]
Show = Callable[[Running, str | None], None]


async def up(settings: UpSettings, report: Report, show: Show) -> None:
    """Runs the stack until SIGINT, SIGTERM or SIGHUP. Calls `show` with the demo dataset's id once it is ready.

    Raises SetupError.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stack = asyncio.create_task(_run(settings, report, show), name="stack")
    stopped = asyncio.create_task(stop.wait(), name="wait-for-signal")
    await asyncio.wait({stack, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        report("stopping")
    for task in (stack, stopped):
        task.cancel()
    for result in await asyncio.gather(stack, stopped, return_exceptions=True):
        if isinstance(result, PostgresError):
            raise SetupError(str(result)) from result
        if isinstance(result, Exception):
            raise result


async def _run(settings: UpSettings, report: Report, show: Show) -> None:
    folder = settings.local_dir.absolute()
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(_locked(folder))
        addresses = _addresses(settings)
        generated = _generated(folder)
        passwords = {login: generated[f"{login}_password"] for login in LOGINS}
        admin_url = plain(settings.database_url)
        if admin_url is None:
            report("starting PostgreSQL")
            admin_url = await stack.enter_async_context(_postgres(folder / "postgres", logs / "postgres.log", report))
        for name in await _migrate(admin_url, passwords):
            report(f"migrated {name}")
        issuer = None
        if settings.dev_issuer:
            secret = plain(settings.jwt_secret) or generated["jwt_secret"]
            issuer = Issuer(secret, settings.jwt_issuer, settings.jwt_audience)
        variables = environment(
            host=settings.host,
            log_format=settings.log_format,
            estimator_address=addresses["estimator"],
            jobs_address=addresses["jobs"],
            storage_url=settings.storage_url or f"file://{folder}/storage",
            dev_issuer=settings.dev_issuer,
            **{f"{name}_port": address.rpartition(":")[2] for name, address in addresses.items()},
            **(asdict(issuer) if issuer else {}),
        )
        metrics = _metrics_addresses()
        report("starting the Estimator, the Jobs service and the gateway")
        servers = set()
        for name, command in COMMANDS.items():
            own = {"PIPELINE_METRICS_PORT": str(urlsplit(metrics[name]).port)}
            if name in LOGINS:
                own["PIPELINE_DATABASE_URL"] = _with_login(admin_url, name, passwords[name])
            servers.add(await stack.enter_async_context(_supervised(name, command, logs, {**variables, **own}, report)))
        gateway = f"http://{addresses['gateway']}"
        running = Running(gateway, addresses["estimator"], addresses["jobs"], admin_url, os.getpid(), issuer, metrics)
        await _until_ready(running, servers, logs)
        dataset = await demo.ensure(running, report) if issuer else None
        if issuer and settings.simulated_trainer:
            command = ["-m", "deploy.cli", "trainer", "--simulate", "--address", running.jobs]
            servers.add(await stack.enter_async_context(_supervised("trainer", command, logs, variables, report)))
        show(running, dataset)
        stack.enter_context(run_file(folder, running))
        await _wait_for_failure(servers)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the folder for this process. Raises SetupError if another process has the lock."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another `pipeline up` runs on {folder}: stop it, or set PIPELINE_LOCAL_DIR") from None
        yield


def _addresses(settings: UpSettings) -> Mapping[str, str]:
    """Returns the address of each server. Raises SetupError if a port is in use."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - only compared
    addresses = {}
    with ExitStack() as probes:
        for name in SERVERS:
            port = getattr(settings, f"{name}_port")
            probe = probes.enter_context(socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                reason = f"port {port} on {settings.host}: {os.strerror(error.errno or 0).lower()}"
                raise SetupError(f"{reason}; free it, or set PIPELINE_{name.upper()}_PORT") from None
            addresses[name] = f"{host}:{probe.getsockname()[1]}"
    return addresses


def _metrics_addresses() -> Mapping[str, str]:
    """Returns a URL for the metrics of each process, at free ports of this machine."""
    with ExitStack() as probes:
        sockets = {name: probes.enter_context(socket.socket()) for name in COMMANDS}
        for probe in sockets.values():
            probe.bind(("127.0.0.1", 0))
        return {name: f"http://127.0.0.1:{probe.getsockname()[1]}/metrics" for name, probe in sockets.items()}


def _generated(folder: Path) -> Mapping[str, str]:
    """Returns the secrets of this folder, which the first start generates."""
    file = folder / "secrets.json"
    values = {"jwt_secret": secrets.token_urlsafe(48)} | {
        f"{login}_password": secrets.token_urlsafe(24) for login in LOGINS
    }
    if file.exists():
        values |= json.loads(file.read_text())
    write_private(file, json.dumps(values))
    return values


@asynccontextmanager
async def _postgres(data: Path, log: Path, report: Report) -> AsyncIterator[str]:
    """Runs the embedded PostgreSQL and restarts it when it exits."""
    rotate(log)
    server = Postgres(data, log)
    server.start()

    async def keep() -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if not server.is_running():
                report(f"PostgreSQL ended; restarting it (see {log})")
                try:
                    # In this thread: PostgreSQL ends with the thread that started it.
                    server.start()
                except PostgresError as error:
                    report(str(error))

    try:
        async with background({"keep-postgres": keep()}):
            yield server.url
    finally:
        server.close()


async def _migrate(admin_url: str, passwords: Mapping[Login, str]) -> list[str]:
    try:
        return await migrate(admin_url, passwords=passwords)
    except DATABASE_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SetupError(f"PIPELINE_DATABASE_URL: {reason}") from error


def _with_login(admin_url: str, login: str, password: str) -> str:
    """Returns the URL of the same database for a server's login, which is subject to row-level security."""
    parts = urlsplit(admin_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"pipeline_{login}:{quote(password, safe='')}@{host}"))


@asynccontextmanager
async def _supervised(
    name: str, command: list[str], logs: Path, variables: Mapping[str, str], report: Report
) -> AsyncIterator[asyncio.Task[None]]:
    """Runs a server while the body runs. Yields its task, which ends only with a SetupError."""
    server = Server(name, [sys.executable, *command], variables, logs / f"{name}.log", report)
    try:
        async with background({f"keep-{name}": server.run()}) as (keeper,):
            yield keeper
    finally:
        await server.stop()


async def _until_ready(running: Running, servers: set[asyncio.Task[None]], logs: Path) -> None:
    async def ready() -> None:
        while True:
            status, _ = await asyncio.to_thread(get_json, running.gateway, "/readyz")
            if status == 200:
                return
            await asyncio.sleep(POLL_SECONDS)

    async with background({"wait-until-ready": ready()}) as (probe,):
        done, _ = await asyncio.wait({probe, *servers}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if not done:
            last = "; ".join(f"{name}: {last_line(logs / f'{name}.log')}" for name in COMMANDS)
            raise SetupError(f"not ready after {READY_SECONDS:.0f} s. {last}")


async def _wait_for_failure(servers: set[asyncio.Task[None]]) -> None:
    done, _ = await asyncio.wait(servers, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()

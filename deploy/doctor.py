"""`pipeline doctor`: checks a deployment and prints what is wrong and what to do."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import fsspec
import grpc
import httpx
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.running import Running, get_json
from deploy.settings import DoctorSettings, plain
from estimator_service.catalogue.model import CatalogueError, read_catalogue
from jobs_service.datasets.storage import OBJECT_STORES
from rpc.database.queries import load_queries
from rpc.process.database_url import DatabaseUrl

SQL = load_queries("deploy", "doctor.sql")
TIMEOUT_SECONDS = 5.0
MIN_POSTGRES = 150_000
MAX_CLOCK_SKEW_SECONDS = 2.0
MAX_TRANSACTION_SECONDS = 30.0
MAX_REPLICA_LAG_SECONDS = 30.0
MAX_CONNECTIONS_SHARE = 0.8
# A trainer that has asked for jobs within this time counts as present.
TRAINER_SECONDS = 300.0
MAX_DELIVERY_AGE_SECONDS = 600.0
MAX_PRICE_AGE_DAYS = 90
MIN_CERTIFICATE_DAYS = 21
# Files and rows named in one message.
MAX_NAMES = 5

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `remedy` is what to do; empty where nothing is wrong."""

    check: str
    status: Status
    message: str
    remedy: str = ""

    def fields(self) -> Mapping[str, str]:
        """Returns the finding as a JSON object."""
        return asdict(self)


async def examine(settings: DoctorSettings, running: Running | None, *, repair: bool) -> AsyncIterator[Finding]:
    """Runs every check and yields its findings in order. With `repair`, removes orphaned files and ends every lease."""
    database_url = plain(settings.database_url) or (running.database_url if running else None)
    storage_url = settings.storage_url or f"file://{settings.local_dir.absolute()}/storage"
    if database_url is None:
        yield Finding("database", "error", "no database URL", "set PIPELINE_DATABASE_URL or start the stack")
    else:
        try:
            arguments = DatabaseUrl.parse(database_url).connect_arguments()
            connection = await asyncpg.connect(**arguments, timeout=TIMEOUT_SECONDS, command_timeout=60)
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            yield Finding("database", "error", str(error) or type(error).__name__, "check PIPELINE_DATABASE_URL")
        else:
            try:
                for check in (_database, _queue, _webhooks):
                    for finding in await _safely(check.__name__.strip("_"), check, connection):
                        yield finding
                for finding in await _safely("storage", _storage, connection, storage_url, repair):
                    yield finding
                if repair:
                    for finding in await _safely("leases", _end_leases, connection):
                        yield finding
            finally:
                await connection.close()
    if running is not None:
        for finding in await asyncio.to_thread(_servers, running):
            yield finding
    for finding in (await _issuer(settings), _prices(settings.catalogue_file)):
        yield finding
    for file in (settings.tls_certificate_file, settings.tls_ca_file):
        if file is not None:
            yield _certificate(file)


async def _safely(name: str, check: Callable[..., Awaitable[list[Finding]]], *arguments: Any) -> list[Finding]:
    """Returns the findings of a check, or one finding for the database error that it raised."""
    try:
        return await check(*arguments)
    except asyncpg.UndefinedTableError:
        return [Finding(name, "error", "the schema is missing or old", "run `python -m jobs_service migrate`")]
    except asyncpg.PostgresError as error:
        return [Finding(name, "error", str(error), "use an administrator's PIPELINE_DATABASE_URL")]


async def _database(connection: asyncpg.Connection) -> list[Finding]:
    row = await connection.fetchrow(SQL["server"])
    skew = abs((datetime.now(UTC) - row["clock"]).total_seconds())
    version, share = row["version"], row["connections"] / row["max_connections"]
    oldest = row["oldest_transaction_seconds"]
    findings = [
        _limit("database version", f"PostgreSQL {version // 10_000}.{version % 10_000}", version >= MIN_POSTGRES,
               "upgrade to PostgreSQL 15 or later"),
        _limit("clock", f"{skew:.1f} s between this machine and the database", skew <= MAX_CLOCK_SKEW_SECONDS,
               "run NTP on both: tokens and certificates depend on it", "warning"),
        _limit("connections", f"{row['connections']} of {row['max_connections']}", share <= MAX_CONNECTIONS_SHARE,
               "lower PIPELINE_DATABASE_POOL_SIZE or raise max_connections", "warning"),
        _limit("open transactions", f"the oldest is {oldest:.0f} s old", oldest <= MAX_TRANSACTION_SECONDS,
               "end it (pg_stat_activity): events are delivered only up to the oldest open transaction", "warning"),
    ]  # fmt: skip
    if row["standby"]:
        findings.append(
            Finding("database role", "error", "the database is a read-only standby", "use the primary's URL")
        )
    findings += [
        _limit(f"replica {each['name']}", f"{each['lag_seconds']:.0f} s behind",
               each["lag_seconds"] <= MAX_REPLICA_LAG_SECONDS, "check its network and disk", "warning")
        for each in await connection.fetch(SQL["replicas"])
    ]  # fmt: skip
    return findings


async def _queue(connection: asyncpg.Connection) -> list[Finding]:
    trainers = await connection.fetchval(SQL["trainers"], TRAINER_SECONDS)
    findings = [Finding("trainers", "ok", f"{trainers} asked for jobs in the last {TRAINER_SECONDS / 60:.0f} minutes")]
    for row in await connection.fetch(SQL["waiting"], TRAINER_SECONDS):
        message = f"{row['jobs']} queued, the oldest for {row['oldest_seconds'] / 60:.0f} min"
        remedy = f"start a trainer with --gpus {row['gpu_type']}=N"
        findings.append(_limit(f"queue of {row['gpu_type']}", message, row["offered"], remedy, "warning"))
    return findings


async def _webhooks(connection: asyncpg.Connection) -> list[Finding]:
    row = await connection.fetchrow(SQL["webhooks"])
    message = f"{row['due']} deliveries due, the oldest for {row['oldest_seconds']:.0f} s"
    remedy = "check that the webhook sender runs and can reach the internet"
    return [_limit("webhooks", message, row["oldest_seconds"] <= MAX_DELIVERY_AGE_SECONDS, remedy, "warning")]


async def _end_leases(connection: asyncpg.Connection) -> list[Finding]:
    ended = await connection.execute(SQL["end_leases"])
    return [Finding("leases", "ok", f"ended {ended.rpartition(' ')[2]} leases; their jobs are queued again")]


async def _storage(connection: asyncpg.Connection, url: str, repair: bool) -> list[Finding]:
    expected = {row["path"]: row["bytes"] for row in await connection.fetch(SQL["dataset_files"])}
    named = {row["path"] for row in await connection.fetch(SQL["known_files"])}
    return await asyncio.to_thread(_files, url, expected, named, repair)


def _files(url: str, expected: Mapping[str, int], named: set[str], repair: bool) -> list[Finding]:
    """Writes, reads and lists a probe file, and compares the files of datasets with their rows."""
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
        probe = f"{root}/doctor/{uuid4()}"
        if urlsplit(url).scheme not in OBJECT_STORES:
            filesystem.makedirs(f"{root}/doctor", exist_ok=True)
        filesystem.pipe_file(probe, b"probe")
        assert filesystem.cat_file(probe) == b"probe"
        filesystem.rm_file(probe)
        sizes = {
            path.removeprefix(f"{root}/"): details["size"]
            for path, details in filesystem.find(f"{root}/datasets", detail=True).items()
        }
    except Exception as error:  # each storage has exceptions of its own
        return [Finding("storage", "error", f"{url}: {error}", "check PIPELINE_STORAGE_URL and its credentials")]
    findings = [Finding("storage", "ok", f"{url} can be written, read and listed")]
    missing = sorted(path for path in expected if path not in sizes)
    orphans = sorted(path for path in sizes if path not in named)
    findings.append(_limit("dataset files", f"{len(missing)} of {len(expected)} missing{_names(missing)}", not missing,
                           "restore the storage to the same moment as the database"))  # fmt: skip
    if sizes and not named:
        # Most likely the storage was restored and the database not yet.
        findings.append(Finding("orphaned files", "error", f"no row names any of the {len(sizes)} files",
                                "restore the database first, or check both URLs; nothing was removed"))  # fmt: skip
    elif repair:
        for path in orphans:
            filesystem.rm_file(f"{root}/{path}")
        findings.append(Finding("orphaned files", "ok", f"removed {len(orphans)}{_names(orphans)}"))
    else:
        findings.append(_limit("orphaned files", f"{len(orphans)}{_names(orphans)}", not orphans,
                               "remove them with `pipeline doctor --repair`", "warning"))  # fmt: skip
    return findings


def _servers(running: Running) -> list[Finding]:
    status, _ = get_json(running.gateway, "/readyz")
    findings = [_limit("gateway", f"/readyz answers {status or 'nothing'}", status == 200, "read the gateway's log")]
    for name, address in (("estimator", running.estimator), ("jobs", running.jobs)):
        with closing(grpc.insecure_channel(address)) as channel:
            try:
                request = health_pb2.HealthCheckRequest()
                stub: Any = health_pb2_grpc.HealthStub(channel)
                response = stub.Check(request, timeout=TIMEOUT_SECONDS)
                word = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
            except grpc.RpcError as error:
                word = error.code().name
        findings.append(_limit(name, f"{address}: {word}", word == "SERVING", f"read the log of {name}"))
    return findings


async def _issuer(settings: DoctorSettings) -> Finding:
    if settings.jwks_url is None:
        return Finding("issuer", "ok", "tokens are verified with a shared secret or by the development issuer")
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
            keys = (await client.get(settings.jwks_url)).raise_for_status().json()["keys"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        message = f"{settings.jwks_url}: {str(error) or type(error).__name__}"
        return Finding("issuer", "error", message, "check PIPELINE_JWKS_URL and the network to the issuer")
    return _limit("issuer", f"{settings.jwks_url}: {len(keys)} keys", bool(keys), "the issuer publishes no key")


def _prices(file: Path) -> Finding:
    try:
        catalogue = read_catalogue(file)
    except CatalogueError as error:
        return Finding("prices", "error", str(error), f"correct {file}")
    oldest = catalogue.oldest_price_date
    age = (datetime.now(UTC).date() - oldest).days
    return _limit("prices", f"the oldest is of {oldest}, {age} days ago", age <= MAX_PRICE_AGE_DAYS,
                  f"update {file} and send SIGHUP to the Estimator", "warning")  # fmt: skip


def _certificate(file: Path) -> Finding:
    try:
        end = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    except (OSError, ValueError, ssl.SSLError) as error:
        return Finding(f"certificate {file}", "error", str(error), "replace the file by a PEM certificate")
    days = (end.timestamp() - time.time()) / 86_400
    status: Status = "error" if days < 0 else "warning"
    return _limit(
        f"certificate {file}", f"valid until {end:%Y-%m-%d}", days >= MIN_CERTIFICATE_DAYS, "renew it", status
    )


def _limit(check: str, message: str, holds: bool, remedy: str, status: Status = "error") -> Finding:
    return Finding(check, "ok", message) if holds else Finding(check, status, message, remedy)


def _names(paths: list[str]) -> str:
    """Returns the first paths in parentheses, for a message."""
    if not paths:
        return ""
    more = ", …" if len(paths) > MAX_NAMES else ""
    return f" ({', '.join(paths[:MAX_NAMES])}{more})"

"""`make campaign`: many jobs, many faults, and a judgement from what clients wrote down and what the database holds."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rpc.process.logs import setup_logs
from tests.campaign.checker import Evidence, Finding, check, read_history, read_tables
from tests.campaign.clients import People, Person
from tests.campaign.faults import Faults, Workers
from tests.campaign.history import History
from tests.conftest import insert_dataset
from tests.deploy.processes import Stack, stack

LEASE_MS, RENEW_MS, SWEEP_MS, ATTEMPTS = 3_000, 500, 200, 20
USERS, CREATORS, WORKERS, THREADS = 4, 8, 4, 6
TOKEN_SECONDS = 24 * 3600
# Once the faults are over, every job must end within this.
DRAIN_SECONDS = 180.0
TELL_SECONDS = 10.0


@dataclass
class Options:
    """What a campaign is asked for."""

    seed: int
    jobs: int
    faults: int
    minutes: float


async def campaign(options: Options, running: Stack, folder: Path, tell: Any) -> dict[str, Any]:
    """Runs one on a stack; returns what there is to report."""
    chance = random.Random(options.seed)
    records = folder / "history"
    records.mkdir()
    issuer = running.running.issuer
    assert issuer is not None
    tokens = issuer.open()
    admin = await asyncpg.connect(running.running.database_url)
    people = []
    for number in range(USERS):
        user = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        dataset = await insert_dataset(admin, user, name=f"Campaign {number}")
        people.append(Person(user, tokens.token(user, seconds=TOKEN_SECONDS), dataset))
    await admin.close()
    worker_token = tokens.token(str(uuid.uuid4()), role="worker", seconds=TOKEN_SECONDS)
    started = time.monotonic()
    with History(records / "people.jsonl") as history:
        clients = People(running.running.gateway, people, history, chance)
        watches = [asyncio.create_task(clients.watch(person), name="watch") for person in people]
        while not all(person.watches for person in people):
            await asyncio.sleep(0.05)
        workers = Workers(running, records, options.seed, WORKERS, THREADS, worker_token)
        faults = Faults(running, workers, chance, LEASE_MS / 1000)
        telling = asyncio.create_task(_tell(tell, options, clients, faults), name="tell")
        try:
            striking = asyncio.create_task(faults.run(options.faults, options.minutes * 60), name="faults")
            await _create_all(clients, options, chance)
            await striking
            ends = await _drain(running, people)
        finally:
            await asyncio.to_thread(workers.stop)
            for task in [telling, *watches]:
                task.cancel()
            await asyncio.gather(telling, *watches, return_exceptions=True)
            await clients.close()
        for person in people:
            history.write(
                "caught_up", time.monotonic(), "ok", watcher=person.user_id, user=person.user_id, from_start=True
            )
    admin = await asyncpg.connect(running.running.database_url)
    tables = await read_tables(admin)
    version = await admin.fetchval("show server_version")
    await admin.close()
    entries = await asyncio.to_thread(read_history, records)
    mine = {person.user_id for person in people}
    tables["jobs"] = [job for job in tables["jobs"] if job["user_id"] in mine]
    findings = check(Evidence(entries, **tables), all_final=True)
    return {
        "wanted": asdict(options),
        "seconds": round(time.monotonic() - started),
        "drain": ends,
        "postgres": version,
        "faults": Counter(kind for _, kind in faults.done),
        "recovery": _recovery(faults.done, sorted(clients.served)),
        "answers": clients.answers,
        "reconnects": sum(person.watches for person in people) - len(people),
        "calls": _calls(entries),
        "statuses": Counter(job["status"] for job in tables["jobs"]),
        "attempts": sum(job["lease_epoch"] for job in tables["jobs"]),
        "findings": findings,
    }


async def _create_all(clients: People, options: Options, chance: random.Random) -> None:
    """Creates the jobs, evenly over the time that the faults take."""
    start, queue = time.monotonic(), iter(range(options.jobs))
    pace = options.minutes * 60 * 0.95 / options.jobs

    async def creator() -> None:
        for number in queue:
            await asyncio.sleep(max(0.0, start + number * pace - time.monotonic()))
            await clients.create(chance.choice(clients.people))

    await asyncio.gather(*[creator() for _ in range(CREATORS)])


async def _drain(running: Stack, people: list[Person]) -> dict[str, float]:
    """Waits until every job has ended and every watcher has heard so, or time is up; how long each took."""
    start = time.monotonic()
    result: dict[str, float] = {}
    admin = await _connected(running.running.database_url)
    while time.monotonic() < start + DRAIN_SECONDS:
        rows = await admin.fetch("select id::text, user_id::text, revision, completed_at from lora_training_jobs")
        if all(row["completed_at"] for row in rows):
            result.setdefault("all jobs ended", round(time.monotonic() - start, 1))
            results = {person.user_id: person.revisions for person in people}
            if all(results[row["user_id"]][row["id"]] == row["revision"] for row in rows if row["user_id"] in results):
                result["all watchers told"] = round(time.monotonic() - start, 1)
                break
        await asyncio.sleep(0.5)
    await admin.close()
    return result


async def _connected(database_url: str) -> asyncpg.Connection:
    """A connection of an administrator's, once PostgreSQL is there: the last fault may have been its end."""
    async with asyncio.timeout(DRAIN_SECONDS):
        while True:
            with suppress(OSError, asyncpg.PostgresError):
                return await asyncpg.connect(database_url)
            await asyncio.sleep(0.1)


def _recovery(faults: list[tuple[float, str]], served: list[float]) -> dict[str, list[float]]:
    """Seconds from each fault to the next creation acknowledged, by kind."""
    result: dict[str, list[float]] = {}
    for moment, kind in faults:
        following = next((at for at in served if at > moment), None)
        if following is not None:
            result.setdefault(kind, []).append(following - moment)
    return result


def _calls(entries: Any) -> Counter[str]:
    return Counter(f"{entry['op']} {entry['outcome']}" for entry in entries)


async def _tell(tell: Any, options: Options, clients: People, faults: Faults) -> None:
    while True:
        tell(clients.acknowledged, len(faults.done))
        await asyncio.sleep(1.0)


def report(result: dict[str, Any]) -> str:
    """The result as it goes into RELIABILITY.md."""
    expected, findings = result["wanted"], result["findings"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = [
        (
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {memory:.0f} GB, PostgreSQL {result['postgres']}, "
            f"seed {expected['seed']}: {expected['jobs']:,} jobs, "
            f"{sum(result['faults'].values())} faults in {result['seconds']} s."
        ),
        "",
        "| fault | times | seconds until the next job is acknowledged: median, longest |",
        "|---|---|---|",
    ]
    for kind, times in sorted(result["faults"].items()):
        took = result["recovery"].get(kind) or [float("nan")]
        lines.append(f"| {kind} | {times} | {statistics.median(took):.2f}, {max(took):.2f} |")
    calls = result["calls"]
    lines += [
        "",
        (
            f"Jobs: {_counts(result['statuses'])}; {result['attempts']:,} leases. "
            f"After the last fault all had ended within {result['drain'].get('all jobs ended', '—')} s, and every watcher "
            f"had been told within {result['drain'].get('all watchers told', '—')} s. "
            f"Watchers reconnected {result['reconnects']} times."
        ),
        f"Calls by outcome: {_counts(calls)}.",
        "",
        "| promise | looked at | broken |",
        "|---|---|---|",
        *(f"| {each.promise} | {each.looked_at:,} | {len(each.broken)} |" for each in findings),
    ]
    return "\n".join(lines)


def _counts(counter: Any) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items()))


@asynccontextmanager
async def _shown(options: Options) -> AsyncIterator[Any]:
    """Bars on a terminal, a line now and then elsewhere."""
    console = Console()
    if console.is_terminal:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console) as progress:
            jobs = progress.add_task("jobs acknowledged", total=options.jobs)
            faults = progress.add_task("faults", total=options.faults)

            def show(acknowledged: int, struck: int) -> None:
                progress.update(jobs, completed=acknowledged)
                progress.update(faults, completed=struck)

            yield show
        return
    last, start = 0.0, time.monotonic()

    def line(acknowledged: int, struck: int) -> None:
        nonlocal last
        if time.monotonic() - last > TELL_SECONDS:
            last = time.monotonic()
            print(
                f"{last - start:5.0f} s: {acknowledged} of {options.jobs} jobs acknowledged, "
                f"{struck} of {options.faults} faults",
                flush=True,
            )

    yield line


async def _main(options: Options, folder: Path) -> int:
    settings = {
        "lease_ms": LEASE_MS,
        "renew_ms": RENEW_MS,
        "sweep_ms": SWEEP_MS,
        "max_attempts": ATTEMPTS,
        "max_open_jobs": 1_000_000,
        "simulated_trainer": False,
        "log_level": "warning",
    }
    # The stack ends with the thread that starts it: this one.
    with stack(folder / "stack", **settings) as running:
        async with _shown(options) as tell:
            result = await campaign(options, running, folder, tell)
    text = report(result)
    (folder / "report.md").write_text(text + "\n")
    print(text)
    findings: list[Finding] = result["findings"]
    for finding in findings:
        for words in finding.broken[:10]:
            print(f"BROKEN {finding.promise}: {words}", file=sys.stderr)
    return 1 if any(finding.broken for finding in findings) else 0


def main() -> int:
    """0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="chooses faults and their moments; a random one if none")
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=None, help="5, or more where that is too short for the jobs")
    parser.add_argument("--folder", type=Path, help="where histories and logs go; a new one under /tmp if none")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1 << 32)
    minutes = chosen.minutes or max(5.0, chosen.jobs / 1000, chosen.faults / 12)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="pipeline-campaign-", dir="/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    setup_logs("warning")
    print(f"seed {seed}; histories and logs in {folder}", flush=True)
    return asyncio.run(_main(Options(seed, chosen.jobs, chosen.faults, minutes), folder))


if __name__ == "__main__":
    sys.exit(main())

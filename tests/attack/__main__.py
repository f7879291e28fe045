"""`make attack`: attacks on a stack of this machine, and what the calls of others cost meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import uuid
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rpc.process.logs import setup_logs
from tests.attack.attacks import ATTACKS, Target, run_attack
from tests.attack.clients import Measured, measuring
from tests.deploy.processes import Stack, stack
from tests.soak.__main__ import memory

INNOCENTS, ATTACKERS = 4, 40
# Of the quiet figure, in the same run; these machines are noisy and the attacker shares their cores.
MAX_P99_RATIO, MIN_P99_MS = 5.0, 500.0
# When memory is looked at again.
AFTER_SECONDS = 15.0
MAX_MEMORY = {"jobs_service": 700 * 2**20, "gateway": 350 * 2**20}


async def attack(running: Stack, name: str, seconds: float, table: Table) -> bool:
    """Runs one attack in a process of its own and adds its row to the table. Returns whether others noticed it."""
    issuer = running.running.issuer
    assert issuer is not None
    tokens = issuer.open()
    users = [tokens.token(str(uuid.uuid4()), seconds=3600) for _ in range(INNOCENTS + ATTACKERS)]
    worker = tokens.token(str(uuid.uuid4()), role="worker", seconds=3600)
    where = running.running
    target = Target(where.gateway, where.jobs, where.estimator, users[INNOCENTS:], worker)
    quiet = await _measure(target, users[:INNOCENTS], seconds / 2)
    peak: dict[str, int] = {}
    # Spawned: gRPC does not survive a fork.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        async with measuring(target.gateway, target.jobs, users[:INNOCENTS]) as under:
            work = asyncio.get_running_loop().run_in_executor(pool, run_attack, name, target, seconds)
            while not work.done():
                for server, size in memory(running).items():
                    peak[server] = max(peak.get(server, 0), size)
                await asyncio.wait({work}, timeout=0.5)
    done = work.result()
    await asyncio.sleep(AFTER_SECONDS)
    after = memory(running)
    ratio = under.p99 / max(quiet.p99, MIN_P99_MS / MAX_P99_RATIO)
    large = [server for server, limit in MAX_MEMORY.items() if peak.get(server, 0) > limit]
    holds = not under.errors and ratio <= MAX_P99_RATIO and not large
    sizes = ", ".join(
        f"{server} {peak[server] / 2**20:.0f}, then {after[server] / 2**20:.0f}"
        for server in MAX_MEMORY
        if server in peak
    )
    verdict = "ok" if holds else "REACHED"
    table.add_row(name, done, _times(quiet), _times(under), str(dict(under.errors) or 0), sizes, verdict)
    print(f"{name}: {done}; {verdict}", flush=True)
    return not holds


async def _measure(target: Target, tokens: list[str], seconds: float) -> Measured:
    async with measuring(target.gateway, target.jobs, tokens) as measured:
        await asyncio.sleep(seconds)
    return measured


def _times(measured: Measured) -> str:
    return f"{measured.p50:.0f} / {measured.p99:.0f} ({len(measured.seconds)} calls)"


def main() -> int:
    """Returns the exit code: 1 if an attack reached others."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"default: all of {', '.join(ATTACKS)}")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each attack")
    arguments = parser.parse_args()
    setup_logs("warning")
    table = Table("attack", "done", "quiet p50/p99 ms", "under attack p50/p99 ms", "errors of others", "memory MiB", "")
    reached = 0
    for name in arguments.attacks or ATTACKS:
        with (
            tempfile.TemporaryDirectory(prefix="pipeline-attack-", dir="/tmp") as folder,
            stack(Path(folder), simulated_trainer=False, webhook_allow_private=True) as running,
        ):
            reached += asyncio.run(attack(running, name, arguments.seconds, table))
    Console(width=160).print(table)
    return int(reached > 0)


if __name__ == "__main__":
    sys.exit(main())

"""What goes wrong on purpose: processes are killed, or stopped for longer than their leases, at random."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.deploy.processes import Stack

# How often each kind comes, in relation to the others.
KINDS = {"worker": 8, "worker paused": 2, "jobs server": 6, "gateway": 3, "postgres": 2}
MARKS = {"jobs server": "jobs_service", "gateway": "-m gateway", "postgres": "bin/postgres"}


class Workers:
    """Trainer processes; those that die are replaced at once."""

    def __init__(self, stack: Stack, folder: Path, seed: int, count: int, threads: int, token: str) -> None:
        self._stack, self._folder, self._seed, self._threads, self._token = stack, folder, seed, threads, token
        self._born = 0
        self.processes = [self._spawn() for _ in range(count)]

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._born += 1
        name = f"worker-{self._born:05}"
        command = [sys.executable, "-m", "tests.campaign.worker", "--address", self._stack.running.jobs]
        options = {
            "token": self._token,
            "history": self._folder / f"{name}.jsonl",
            "seed": f"{self._seed}/{self._born}",
            "threads": self._threads,
        }
        command += [part for option, value in options.items() for part in (f"--{option}", str(value))]
        with (self._folder / "workers.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, number: int) -> None:
        """Kills one, and starts another."""
        process = self.processes[number]
        process.kill()
        process.wait()
        self.processes[number] = self._spawn()

    def stop(self) -> None:
        """Ends them all as an operator would."""
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Faults:
    """Strikes so many times in so many seconds."""

    def __init__(self, stack: Stack, workers: Workers, chance: random.Random, lease_seconds: float) -> None:
        self._stack, self._workers, self._chance, self._lease_seconds = stack, workers, chance, lease_seconds
        self.done: list[tuple[float, str]] = []

    async def run(self, count: int, seconds: float) -> None:
        """At moments that are random, and random kinds."""
        kinds = self._chance.choices(list(KINDS), KINDS.values(), k=count)
        start = time.monotonic()
        moments = sorted(start + self._chance.uniform(0, seconds) for _ in range(count))
        for moment, kind in zip(moments, kinds, strict=True):
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            await self._strike(kind)

    async def _strike(self, kind: str) -> None:
        number = self._chance.randrange(len(self._workers.processes))
        if kind == "worker":
            await asyncio.to_thread(self._workers.kill, number)
        elif kind == "worker paused":
            process = self._workers.processes[number]
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2 * self._lease_seconds)
            process.send_signal(signal.SIGCONT)
        else:
            while (result := self._find(MARKS[kind])) is None:
                # It was killed a moment ago and is not back yet: this one shall not always hit it while it starts.
                await asyncio.sleep(self._chance.uniform(0.1, 5.0))
            os.kill(result, signal.SIGKILL)
        self.done.append((time.monotonic(), kind))

    def _find(self, mark: str) -> int | None:
        for child in psutil.Process(self._stack.process.pid).children():
            try:
                if mark in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
            except psutil.NoSuchProcess:
                continue
        return None

"""The life of jobs as a state machine: random calls, races, crashes and silent trainers, with invariants after each."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar, copy_context
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import asyncpg
import grpc
import pytest
import structlog
import uvloop
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from pipeline.jobs.v1 import jobs_pb2
from pipeline.workers.v1 import workers_pb2

from jobs_service.queue import claims
from jobs_service.queue.sweeper import Sweeper
from rpc.database.pool import Database
from rpc.database.transaction import Transaction
from tests.campaign.checker import Evidence, check, read_tables
from tests.conftest import Stack, insert_dataset, metadata, open_stack
from tests.databases import Databases
from tests.door import refusal
from tests.jobs_service.jobs.test_create_job import new_request
from tests.jobs_service.trainers import sweeper

# Four times 75 runs of 50 steps, in pieces so that several processes share them.
PIECES, RUNS, STEPS = 4, 75, 50
USERS = [f"aaaaaaaa-0000-4000-8000-00000000000{number}" for number in range(2)]
WORKERS = [f"eeeeeeee-0000-4000-8000-00000000000{number}" for number in range(3)]
# Longer than a run: a lease ends when a rule says so, by the database's own clock.
LEASE = timedelta(minutes=10)
SETTINGS = {
    "lease_ms": 600_000,
    "sweep_ms": 60_000,
    "max_attempts": 3,
    "watch_poll_ms": 10,
    "max_watches": 10_000,
    "max_watches_per_user": 10_000,
}
GPUS = [workers_pb2.GpuOffer(type="A100-80GB", count=1000)]
SILENCE = (
    "update lora_training_jobs set lease_expires_at = clock_timestamp() "
    "where id = $1 and lease_token = $2 and status in ('initializing', 'running')"
)
# Requests keep their payload, so that the same key with other content is seen too.
KEYS = [str(uuid.UUID(int=number)) for number in range(1, 6)]


# Statements left until the connection of the one who calls is cut; a list of one, seen by their own tasks alone.
CRASH: ContextVar[list[int]] = ContextVar("crash")


@contextmanager
def crashes() -> Iterator[None]:
    """While the body runs, a transaction's connection may be cut before a statement, as by the death of a server."""
    run = Transaction._run

    async def crashing(self: Transaction, method: Any, statement: str, *arguments: Any) -> Any:
        if left := CRASH.get(None):
            left[0] -= 1
            if left[0] < 0:
                left.clear()
                self._connection.terminate()
        return await run(self, method, statement, *arguments)

    Transaction._run = crashing  # type: ignore[method-assign]
    try:
        yield
    finally:
        Transaction._run = run  # type: ignore[method-assign]


class World:
    """The services, the clients' records of one run, and the database."""

    def __init__(self, runner: asyncio.Runner, stack: Stack, sweeper: Sweeper, admin: asyncpg.Connection) -> None:
        self.run = runner.run
        self.stack, self.sweeper, self.admin = stack, sweeper, admin
        self.datasets: dict[str, str] = {}
        self.users = {user: metadata(user) for user in USERS}
        self.workers = {worker: metadata(worker, role="worker") for worker in WORKERS}
        self.alone = asyncio.Lock()
        self.runs = self.steps = 0
        self.looked_at: Counter[str] = Counter()
        self.begin()

    def begin(self) -> None:
        """Forgets the run before."""
        self.history: list[dict[str, Any]] = []
        self.jobs: list[tuple[str, str]] = []
        self.leases: list[dict[str, Any]] = []
        self.expired: set[str] = set()
        self.cursors: dict[str, str] = {}
        self.revisions: dict[str, dict[str, int]] = {}
        self.watches: dict[str, asyncio.Task[None]] = {}

    async def note(self, op: str, call: Awaitable[Any], about: dict[str, Any]) -> Any:
        """Awaits a call and writes down how it ended."""
        entry = {"op": op, "began": time.monotonic(), **about}
        if "token" in about:
            entry["expired"] = about["token"] in self.expired
        answer = None
        try:
            answer = await call
            stop = op == "report" and answer.stop
            entry["outcome"] = f"stop:{answer.stop_reason}" if stop else "ok"
        except grpc.aio.AioRpcError as error:
            refused = refusal(error)
            gone = refused.code == grpc.StatusCode.UNAVAILABLE
            assert gone or refused.reason in EXPECTED[op], (op, refused)
            entry["outcome"] = "unknown" if gone else f"refused:{refused.reason}"
        entry["ended"] = time.monotonic()
        self.history.append(entry)
        return answer, entry

    async def create(self, user: str, key: str, batch: int) -> None:
        request = new_request(self.datasets[user], request_id=key)
        request.hyperparameters.batch_size = batch
        call = self.stack.jobs.CreateJob(request, metadata=self.users[user])
        answer, entry = await self.note("create", call, {"user": user, "request_id": key})
        if answer is not None:
            entry["job"] = answer.job.id
            if (user, answer.job.id) not in self.jobs:
                self.jobs.append((user, answer.job.id))

    async def lease(self, worker: str, count: int, *, heard: bool) -> None:
        request = workers_pb2.LeaseJobsRequest(max_jobs=count, gpus=GPUS, trainer="tests")
        call = self.stack.workers.LeaseJobs(request, metadata=self.workers[worker])
        answer, entry = await self.note("lease", call, {"worker": worker})
        values = [
            {"job": each.job_id, "token": each.lease_token, "epoch": each.lease_epoch}
            for each in (answer.leases if answer else [])
        ]
        entry["leases"] = values
        # An answer that is lost leaves a lease that nobody knows of.
        if heard:
            self.leases += [{**each, "worker": worker} for each in values]
        else:
            entry["outcome"] = "unknown"

    async def report(self, lease: dict[str, Any], step: int) -> None:
        request = workers_pb2.ReportProgressRequest(
            job_id=lease["job"],
            lease_token=lease["token"],
            epoch=1,
            step=step,
            metrics=[{"step": step, "epoch": 1, "values": {"loss": 1 / (step + 1)}}],
        )
        await self.note(
            "report", self.stack.workers.ReportProgress(request, metadata=self.workers[lease["worker"]]), lease
        )

    async def complete(self, lease: dict[str, Any], artifact: str) -> None:
        request = workers_pb2.CompleteJobRequest(job_id=lease["job"], lease_token=lease["token"], artifact_uri=artifact)
        call = self.stack.workers.CompleteJob(request, metadata=self.workers[lease["worker"]])
        await self.note("complete", call, {**lease, "artifact": artifact})

    async def fail(self, lease: dict[str, Any], retryable: bool) -> None:
        request = workers_pb2.FailJobRequest(
            job_id=lease["job"], lease_token=lease["token"], error_message="out of memory", retryable=retryable
        )
        await self.note("fail", self.stack.workers.FailJob(request, metadata=self.workers[lease["worker"]]), lease)

    async def release(self, lease: dict[str, Any]) -> None:
        request = workers_pb2.ReleaseJobRequest(job_id=lease["job"], lease_token=lease["token"])
        await self.note(
            "release", self.stack.workers.ReleaseJob(request, metadata=self.workers[lease["worker"]]), lease
        )

    async def steal(self, lease: dict[str, Any], thief: str) -> None:
        """Another trainer reports with a lease's token."""
        if thief != lease["worker"]:
            await self.report({**lease, "worker": thief}, 10)
            assert self.history[-1]["outcome"] != "ok", "a lease was another's to use"

    async def cancel(self, user: str, job: str) -> None:
        call = self.stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job), metadata=self.users[user])
        await self.note("cancel", call, {"user": user, "job": job})

    async def expire(self, lease: dict[str, Any]) -> None:
        """The trainer is silent for longer than its lease."""
        async with self.alone:
            await self.admin.execute(SILENCE, uuid.UUID(lease["job"]), uuid.UUID(lease["token"]))
        self.expired.add(lease["token"])

    async def sweep(self) -> None:
        try:
            await self.sweeper.expire()
        except Exception as error:
            assert type(error).__name__ == "DatabaseUnavailable", error  # noqa: PT017 - the one that a crash makes

    async def follow(self, user: str) -> None:
        """Watches all jobs of a user from where the watch was broken off; again where it breaks."""
        while True:
            request = jobs_pb2.WatchJobsRequest(last_event_id=self.cursors.get(user, ""))
            stream = self.stack.jobs.WatchJobs(request, metadata=self.users[user], timeout=600)
            try:
                async for message in stream:
                    self.hear(user, message)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                stream.cancel()

    def hear(self, user: str, message: jobs_pb2.WatchJobsResponse) -> None:
        """Writes down one message of a watch."""
        self.cursors[user] = message.id
        result = self.revisions.setdefault(user, {})
        kind = message.WhichOneof("update")
        entry = {"op": kind, "watcher": user, "outcome": "ok", "from_start": True}
        if kind == "event":
            entry |= {"job": message.event.job_id, "revision": message.event.revision}
            result[message.event.job_id] = message.event.revision
        elif kind == "snapshot":
            entry["revisions"] = {job.id: job.revision for job in message.snapshot.jobs}
            result.update(entry["revisions"])
        self.history.append(entry)

    async def watch(self, user: str) -> None:
        """Begins a watch, or breaks it off and goes on with another."""
        async with self.alone:
            # Two at once would both go on from the same place.
            await self.unwatch(user)
            self.watches[user] = asyncio.create_task(self.follow(user), name=f"watch-{user}")

    async def unwatch(self, user: str) -> None:
        """Breaks a watch off."""
        if task := self.watches.pop(user, None):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled() and (error := task.exception()):
                raise error

    async def start(self) -> None:
        """Begins a run: no job, and a watch of each user."""
        async with self.admin.transaction():
            # The services' own sweeper may be at work.
            await self.admin.execute("lock table lora_training_jobs in exclusive mode")
            for table in ("job_metrics", "cost_records", "job_events", "lora_notifications", "lora_training_jobs"):
                await self.admin.execute(f"delete from {table}")
        self.begin()
        for user in USERS:
            await self.watch(user)

    async def judge(self) -> None:
        """Ends a run: waits until the watchers know all, and looks whether every promise was kept."""
        tables = await read_tables(self.admin)
        for user in USERS:
            ends = {job["id"]: job["revision"] for job in tables["jobs"] if job["user_id"] == user}
            until = time.monotonic() + 10
            while self.revisions.get(user, {}) != ends and time.monotonic() < until:
                await asyncio.sleep(0.005)
            await self.unwatch(user)
            self.history.append({"op": "caught_up", "watcher": user, "user": user, "from_start": True, "outcome": "ok"})
        result = check(Evidence(self.history, **tables), all_final=False)
        broken = [words for finding in result for words in finding.broken]
        assert not broken, "\n".join(broken)
        for finding in result:
            self.looked_at[finding.promise] += finding.looked_at

    def move(self, kind: str, who: int, what: int) -> Awaitable[None] | None:
        """One call of a client, chosen by numbers; None where there is nothing to call about."""
        user, worker = USERS[who % len(USERS)], WORKERS[who % len(WORKERS)]
        lease = self.leases[-1 - what % min(len(self.leases), 6)] if self.leases else None
        match kind:
            case "create":
                return self.create(user, KEYS[what % len(KEYS)], 4 if who < 6 else 8)
            case "lease":
                return self.lease(worker, 1 + what % 3, heard=who < 7)
            case "cancel" if self.jobs:
                return self.cancel(*self.jobs[what % len(self.jobs)])
            case "sweep":
                return self.sweep()
            case "watch":
                return self.watch(user)
            case "expire" if lease:
                return self.expire(lease)
            case "report" if lease:
                return self.report(lease, (0, 1, 100, 1500)[who % 4])
            case "complete" if lease:
                return self.complete(lease, f"file:///{who % 2}")
            case "fail" if lease:
                return self.fail(lease, who % 4 != 0)
            case "release" if lease:
                return self.release(lease)
            case "steal" if lease:
                return self.steal(lease, worker)
        return None


EXPECTED = {
    "create": {"IDEMPOTENCY_KEY_REUSED"},
    "lease": set(),
    "report": {"LEASE_LOST", "JOB_FINAL"},
    "complete": {"LEASE_LOST", "JOB_FINAL", "INVALID_TRANSITION"},
    "fail": {"LEASE_LOST", "JOB_FINAL"},
    "release": {"LEASE_LOST", "JOB_FINAL"},
    "cancel": {"JOB_FINAL"},
}

# How often each kind of call is made, in relation to the others.
KINDS = (
    ["create"] * 4
    + ["lease"] * 4
    + ["report"] * 5
    + ["complete"] * 2
    + ["fail"] * 2
    + ["expire"] * 3
    + ["sweep"] * 3
    + ["release", "cancel", "steal", "watch"]
)
Move = tuple[str, int, int]
MOVES = st.tuples(st.sampled_from(KINDS), st.integers(0, 7), st.integers(0, 7))


def machine(world: World) -> type[RuleBasedStateMachine]:
    """The machine on a world that its runs share."""

    class Jobs(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            world.runs += 1
            world.run(world.start())

        def _do(self, *moves: Move, crash: int | None = None) -> None:
            world.steps += 1
            made = [call for move in moves if (call := world.move(*move))]

            async def together() -> None:
                if crash is not None:
                    CRASH.set([crash])
                await asyncio.gather(*made)

            world.run(together(), context=copy_context())

        @rule(
            move=MOVES,
            others=st.lists(MOVES, min_size=1, max_size=2),
            race=st.sampled_from([False, False, True]),
            crash=st.sampled_from([None] * 12 + list(range(5))),
        )
        def step(self, move: Move, others: list[Move], race: bool, crash: int | None) -> None:
            self._do(move, *(others if race else ()), crash=None if race else crash)

        def teardown(self) -> None:
            world.run(world.judge())

    return Jobs


@asynccontextmanager
async def opened(runner: asyncio.Runner, databases: Databases, folder: Path) -> AsyncIterator[World]:
    """A world with a database of its own."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(databases.one())
        services = await stack.enter_async_context(open_stack("local", made.url, folder, **SETTINGS))
        pool = await stack.enter_async_context(Database.open(made.url, size=2))
        admin = await asyncpg.connect(made.admin_url)
        stack.push_async_callback(admin.close)
        world = World(runner, services, sweeper(pool), admin)
        for user in USERS:
            world.datasets[user] = await insert_dataset(admin, user)
        stack.enter_context(crashes())
        # Trainers here release at once, over and over.
        stack.enter_context(patch.object(claims, "FREE_RETURNS", 1_000_000))
        yield world


@contextmanager
def quiet() -> Iterator[None]:
    """Tens of thousands of calls, and no line of each. Loggers keep nothing of it: other tests of this process read theirs."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)


@pytest.mark.slow
@pytest.mark.parametrize("piece", range(PIECES))
def test_nothing_is_lost_doubled_or_moved_back(databases: Databases, tmp_path: Path, piece: int) -> None:
    """Every invariant of the checker holds after any order of calls and crashes."""
    chosen = int(os.environ.get("LIFE_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"LIFE_SEED={chosen} repeats this piece")
    with quiet(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        world_context = opened(runner, databases, tmp_path)
        world = runner.run(world_context.__aenter__())
        try:
            chosen_settings = settings(
                max_examples=RUNS,
                stateful_step_count=STEPS,
                database=None,
                print_blob=False,
                # Shrinking takes minutes: for whoever repeats a failure.
                phases=[Phase.generate, Phase.shrink] if "LIFE_SEED" in os.environ else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            run_state_machine_as_test(seed(chosen)(machine(world)), settings=chosen_settings, _min_steps=STEPS)
        finally:
            runner.run(world_context.__aexit__(None, None, None))
    print(f"{world.runs} runs, {world.steps} steps, looked at {dict(world.looked_at)}")
    assert world.runs >= RUNS
    assert world.steps >= RUNS * STEPS
    assert all(world.looked_at.values()), world.looked_at

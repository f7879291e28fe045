"""The kill campaign of the cluster: `make campaign-cluster`.

Jobs run on the cluster of cluster.py while the dispatcher (a process, with SIGKILL), its API server and pods are the victims.
In the end the database, and what the cluster wrote down of every pod, are judged together.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
from pipeline.jobs.v1 import jobs_pb2

from rpc.process.logs import setup_logs
from tests.conftest import Stack, metadata, open_stack, token
from tests.databases import Databases, postgres
from tests.jobs_service.jobs.test_create_job import ANN
from tests.jobs_service.trainers import TRAINER
from tests.trainer.dispatcher.api_server import DROP
from tests.trainer.dispatcher.cluster import REPOSITORY, Cluster
from tests.trainer.dispatcher.conftest import expected_result, make_pod_environment, queue, result_of_job

ATTEMPTS = 20
LEASES = {"lease_ms": 5_000, "renew_ms": 1_000, "sweep_ms": 50, "max_attempts": ATTEMPTS}
POD_ENDINGS: tuple[dict[str, Any], ...] = (
    {"disruption": "PreemptionByScheduler"},
    {"reason": "Evicted", "message": "The node was low on resource: memory."},
    {"disruption": "DeletionByTaintManager"},
    {"terminated": {"exitCode": 139}},
    {},
)
END_SECONDS, POD_SECONDS = 600, 15


class Campaign:
    """Faults against one cluster. `faults` counts what was done."""

    def __init__(self, stack: Stack, cluster: Cluster, folder: Path, seed: int) -> None:
        self._stack, self._cluster, self._folder = stack, cluster, folder
        self._random = random.Random(seed)
        self._dispatcher: asyncio.subprocess.Process | None = None
        self.faults: Counter[str] = Counter()

    async def run(self, jobs: int, faults: int) -> list[jobs_pb2.Job]:
        """Queues jobs, does faults until they are spent, and waits for the end. Returns the jobs that were queued."""
        queued = [await queue(self._stack, count=self._random.choice((1, 1, 2))) for _ in range(jobs)]
        await self._start()
        try:
            kinds = [
                self._kill_dispatcher,
                self._api_server_away,
                self._kill_pod,
                self._kill_pod,
                self._preempt,
                self._disturb,
            ]
            for _ in range(faults):
                await asyncio.sleep(self._random.uniform(0.2, 2))
                await self._random.choice(kinds)()
            self._cluster.is_closed = False
            await self._until_all_ended()
        finally:
            await self._kill()
        return queued

    async def _start(self) -> None:
        """`pipeline dispatcher --kubernetes` as an operator runs it."""
        environment = {
            "KUBECONFIG": str(self._cluster.kubeconfig(self._folder / "kubeconfig")),
            "PIPELINE_JOBS_ADDRESS": self._stack.jobs_address,
            "PIPELINE_TRAINER_TOKEN_FILE": str(self._folder / "worker.token"),
            "PIPELINE_KUBERNETES_QUEUE": "training",
            "PIPELINE_DISPATCHER_POLL_SECONDS": "0.2",
            "PIPELINE_METRICS_PORT": "-1",
        }
        with (self._folder / "dispatcher.log").open("ab") as log:
            self._dispatcher = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "deploy.cli", "dispatcher", "--kubernetes",
                env={**os.environ, **environment}, cwd=REPOSITORY, stdout=log, stderr=log,
            )  # fmt: skip

    async def _kill(self) -> None:
        if self._dispatcher is not None:
            with suppress(ProcessLookupError):
                self._dispatcher.kill()
            await self._dispatcher.wait()

    async def _kill_dispatcher(self) -> None:
        self.faults["dispatcher killed"] += 1
        await self._kill()
        await asyncio.sleep(self._random.uniform(0, 2))
        await self._start()

    async def _api_server_away(self) -> None:
        self.faults["API server away"] += 1
        await asyncio.to_thread(self._cluster.api.stop)
        await asyncio.sleep(self._random.uniform(0.1, 4))
        await asyncio.to_thread(self._cluster.api.start)

    async def _kill_pod(self) -> None:
        name = await self._a_pod()
        if name is not None:
            self.faults["pod killed"] += 1
            self._cluster.kill_pod(name, **self._random.choice(POD_ENDINGS))

    async def _preempt(self) -> None:
        """Kueue suspends one TrainJob, and admits nothing for a while."""
        name = await self._a_pod()
        if name is not None:
            self.faults["preempted by Kueue"] += 1
            self._cluster.preempt(name)
            await asyncio.sleep(self._random.uniform(0.5, 3))
            self._cluster.is_closed = False

    async def _disturb(self) -> None:
        """The next requests are throttled, fail, or succeed without a response."""
        self.faults["API server's answers lost or refused"] += 1
        for _ in range(self._random.randint(1, 4)):
            self._cluster.api.faults.append(("*", self._random.choice((DROP, 429, 500, 503))))

    async def _a_pod(self) -> str | None:
        """Waits for a running pod. Returns None if there is none for long, perhaps because all jobs have ended."""
        end = time.monotonic() + POD_SECONDS
        while time.monotonic() < end:
            alive = [name for name in list(self._cluster.processes) if self._cluster.is_alive(name)]
            if alive:
                return self._random.choice(alive)
            await asyncio.sleep(0.05)
        return None

    async def _until_all_ended(self) -> None:
        end = time.monotonic() + END_SECONDS
        request = jobs_pb2.ListJobsRequest(limit=1)
        while True:
            response = await self._stack.jobs.ListJobs(request, metadata=metadata(ANN))
            unfinished = sum(response.status_counts.get(name, 0) for name in ("queued", "initializing", "running"))
            if not unfinished and not any(self._cluster.store.all(kind) for kind in ("TrainJob", "Secret", "Pod")):
                return
            assert time.monotonic() < end, dict(response.status_counts)
            await asyncio.sleep(0.2)


async def judge(
    stack: Stack, cluster: Cluster, admin: asyncpg.Connection, folder: Path, jobs: list[jobs_pb2.Job]
) -> dict[str, tuple[int, list[str]]]:
    """Returns the invariants: how often each was checked, and its violations."""
    rows = {str(row["id"]): row for row in await admin.fetch("select * from lora_training_jobs")}
    costs = await admin.fetch("select * from cost_records")
    completions = Counter(str(row["job_id"]) for row in costs if row["outcome"] == "completed")
    lost, wrong, doubled, unpaid = list[str](), list[str](), list[str](), list[str]()
    for job in jobs:
        row = rows[job.id]
        if row["status"] != "completed":
            lost.append(f"{job.id} {row['status']} {row['error_message']}")
        elif await result_of_job(stack, job) != await expected_result(folder, job):
            wrong.append(job.id)
        if completions[job.id] != 1:
            doubled.append(f"{job.id} completed {completions[job.id]} times")
    # One that was taken back before its first report keeps its lease, and starts again once it is admitted again.
    doubled += [
        f"{name} started {times} times"
        for name, times in cluster.started.items()
        if times > 1 + cluster.preemptions[name]
    ]
    doubled += [
        f"{name} created {times} times"
        for (kind, name), times in cluster.store.created.items()
        if kind == "TrainJob" and times != 1
    ]
    for cost in costs:
        name = f"job-{cost['job_id'].hex}-{cost['lease_epoch']}"
        began = cluster.started_at.get(name)
        if cost["billed_seconds"] and (began is None or cost["started_at"].timestamp() < began):
            unpaid.append(f"{name} was billed from {cost['started_at']}, its pod began {began}")
    return {
        "every job is completed": (len(jobs), lost),
        "its adapter has the bytes of an uninterrupted training": (len(jobs), wrong),
        "no lease has two TrainJobs or a pod that nothing called for, and no job two results": (
            len(costs) + len(cluster.started),
            doubled,
        ),
        "nothing is billed before its pod has started": (len(costs), unpaid),
    }


async def main() -> int:
    """Runs a campaign and prints its report for RELIABILITY.md. Returns 1 if an invariant was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    chosen = parser.parse_args()
    setup_logs("warning", "json")
    folder = Path(tempfile.mkdtemp(prefix="pipeline-cluster-"))
    began = time.monotonic()
    with postgres(folder / "data") as url:
        databases = Databases(url)
        await databases.prepare()
        async with databases.one() as database, open_stack("grpc", database.url, folder, **LEASES) as stack:
            (folder / "worker.token").write_text(token(TRAINER, role="worker"))
            environment = make_pod_environment(stack, folder, folder / "worker.token")
            with Cluster(folder, gpus=chosen.gpus, environment=environment) as cluster:
                campaign = Campaign(stack, cluster, folder, chosen.seed)
                jobs = await campaign.run(chosen.jobs, chosen.faults)
                admin = await asyncpg.connect(database.admin_url)
                verdict = await judge(stack, cluster, admin, folder, jobs)
                outcomes = await admin.fetch(
                    "select outcome, count(*) from cost_records group by outcome order by outcome"
                )
                await admin.close()
    done = campaign.faults.total()
    print(f"seed {chosen.seed}: {len(jobs)} jobs, {done} faults in {time.monotonic() - began:.0f} s.\n")
    print("| fault | times |\n|---|---|")
    print("\n".join(f"| {fault} | {times} |" for fault, times in sorted(campaign.faults.items())))
    print(
        f"\nLeases: {', '.join(f'{row[0]} {row[1]}' for row in outcomes)}.\n\n| promise | looked at | broken |\n|---|---|---|"
    )
    for promise, (seen, broken) in verdict.items():
        print(f"| {promise} | {seen:,} | {len(broken)} |")
    for promise, (_, broken) in verdict.items():
        for each in broken:
            print(f"{promise}: {each}", file=sys.stderr)
    is_broken = any(broken for _, broken in verdict.values())
    if is_broken:
        print(f"logs are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return int(is_broken)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(asyncio.run(main()))

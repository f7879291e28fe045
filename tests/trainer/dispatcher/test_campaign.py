"""A small kill campaign against the cluster, whose checker finds planted violations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import Stack, TestDatabase, open_stack
from tests.trainer.dispatcher.campaign import LEASES, Campaign, judge
from tests.trainer.dispatcher.cluster import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Stack]:
    """The services over gRPC, with as many attempts as a campaign takes."""
    async with open_stack("grpc", database.url, tmp_path, **LEASES) as opened:
        yield opened


async def test_nothing_is_lost_doubled_or_billed_while_it_waits(
    stack: Stack, cluster: Cluster, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    """With dispatcher, API server and pods killed at random all invariants hold; planted violations are found."""
    jobs = await Campaign(stack, cluster, tmp_path, seed=20).run(jobs=4, faults=12)
    verdict = await judge(stack, cluster, admin, tmp_path, jobs)
    assert {promise: broken for promise, (_, broken) in verdict.items() if broken} == {}
    name = next(iter(cluster.started))
    cluster.started[name] += 1 + cluster.preemptions[name]
    cluster.started_at = dict.fromkeys(cluster.started_at, 1e12)
    (file,) = [path for path in (tmp_path / "storage").rglob("*") if path.is_file() and jobs[0].dataset_id in str(path)]
    file.write_bytes(b"another dataset")
    await admin.execute(
        "update cost_records set outcome = 'released' where job_id = $1 and outcome = 'completed'", jobs[1].id
    )
    verdict = await judge(stack, cluster, admin, tmp_path, jobs)
    assert [len(broken) > 0 for _, broken in verdict.values()] == [False, True, True, True]

"""Real trainings of the tiny model as TrainJobs of the test cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Stack
from tests.jobs_service.trainers import get
from tests.trainer.dispatcher.cluster import Cluster
from tests.trainer.dispatcher.conftest import dispatching, eventually
from tests.trainer.train.trainings import files_of, is_final, log_of, queue, until, write_token

pytestmark = pytest.mark.train


@pytest.fixture
def environment(stack: Stack, models: Path, tmp_path: Path) -> dict[str, str]:
    """What the runtime sets in pods."""
    return {
        "OMP_NUM_THREADS": "1",
        "PIPELINE_JOBS_ADDRESS": stack.jobs_address,
        "PIPELINE_TRAINER_TOKEN_FILE": str(write_token(tmp_path / "token")),
        "PIPELINE_MODELS_DIR": str(models),
        "PIPELINE_CHECKPOINT_URL": f"file://{tmp_path}/checkpoints",
        "PIPELINE_CHECKPOINT_SECONDS": "0",
        "PIPELINE_TRAINER_WORK_DIR": str(tmp_path / "work"),
    }


async def test_a_preempted_and_killed_training_has_the_adapter_of_a_whole_one(
    stack: Stack, environment: dict[str, str], tmp_path: Path
) -> None:
    """On the cluster a job that was preempted and then killed has the same bytes as an uninterrupted one."""
    with Cluster(tmp_path, gpus=1, environment=environment, grace_seconds=60) as cluster:
        async with dispatching(stack, cluster):
            whole = await files_of(stack, await until(stack, await queue(stack), is_final))
            job = await queue(stack)
            await until(stack, job, lambda now: now.current_step >= 2)
            (name,) = await eventually(lambda: list(cluster.processes))
            cluster.preempt(name)
            await eventually(lambda: name not in cluster.processes)
            cluster.is_closed = False
            before = (await get(stack, job.id)).current_step
            await until(stack, job, lambda now: now.current_step > before and now.attempt == 1)
            (name,) = await eventually(lambda: list(cluster.processes))
            cluster.kill_pod(name, reason="Evicted", message="The node was low on resource: memory.")
            done = await until(stack, job, is_final)
            files = await files_of(stack, done)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert files[name] == whole[name], name
    assert done.attempt == 2
    assert any("resumes from the checkpoint" in line for line in await log_of(stack, job))


async def test_two_nodes_train_what_one_does(stack: Stack, environment: dict[str, str], tmp_path: Path) -> None:
    """Two preempted nodes with a GPU each give the same bytes as two GPUs of one node."""
    with Cluster(tmp_path, gpus=2, environment=environment) as cluster:
        async with dispatching(stack, cluster):
            whole = await files_of(stack, await until(stack, await queue(stack, count=2), is_final))
    with Cluster(tmp_path, nodes=2, gpus=1, environment=environment, grace_seconds=60) as cluster:
        async with dispatching(stack, cluster):
            job = await queue(stack, count=2)
            await until(stack, job, lambda now: now.current_step >= 2)
            (made,) = cluster.jobs()
            name, trained = made["metadata"]["name"], made["spec"]["trainer"]
            assert (trained["numNodes"], trained["numProcPerNode"], len(cluster.processes[name])) == (2, 1, 2)
            cluster.preempt(name)
            await eventually(lambda: name not in cluster.processes)
            cluster.is_closed = False
            done = await until(stack, job, is_final)
            files = await files_of(stack, done)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert files[name] == whole[name], name
    assert done.attempt == 1
    assert sum("resumes from the checkpoint" in line for line in await log_of(stack, job)) == 1

"""Trainings that are killed, stopped or cancelled, that lose their server, or run out of disk space."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import Stack, TestDatabase, metadata, token
from tests.jobs_service import trainers
from tests.jobs_service.jobs.test_create_job import ANN
from tests.jobs_service.trainers import TRAINER, get
from tests.trainer.train.trainings import (
    ROWS,
    STEPS,
    checkpoints_of,
    children_of,
    files_of,
    is_final,
    log_of,
    losses_of,
    queue,
    servers,
    trainer,
    until,
)
from trainer.client import Job, Trainer
from trainer.settings import TrainerSettings
from trainer.supervisor.messages import Report, Saved
from trainer.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.train


def seeded() -> random.Random:
    """Random numbers whose seed a failure shows."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


async def test_killed_anywhere_it_goes_on_bit_for_bit(stack: Stack, models: Path, tmp_path: Path) -> None:
    """A run whose processes are killed and then stopped gives the same adapter as an uninterrupted one."""
    chance = seeded()
    whole = await queue(stack)
    async with trainer(stack, tmp_path / "whole", models, "--once"):
        expected = await files_of(stack, await until(stack, whole, is_final))
    job = await queue(stack)
    folder = tmp_path / "killed"
    for victim in ("child", "supervisor", "term"):
        step = chance.randint(1, STEPS - 3) if victim != "term" else chance.randint(STEPS // 2, STEPS - 2)
        async with trainer(stack, folder, models, "--once", CHECKPOINT_SECONDS=0) as process:
            now = await until(stack, job, lambda job, step=step: job.current_step >= step or job.is_final)
            if now.is_final:
                break
            if victim == "child":
                for child in children_of(process.pid):
                    os.kill(child, signal.SIGKILL)
            else:
                process.send_signal(signal.SIGKILL if victim == "supervisor" else signal.SIGTERM)
            await process.wait()
        await until(stack, job, lambda job: job.status == jobs_pb2.JOB_STATUS_QUEUED or job.is_final)
    async with trainer(stack, folder, models, "--once", CHECKPOINT_SECONDS=0):
        done = await until(stack, job, is_final)
    files = await files_of(stack, done)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert files[name] == expected[name], name
    assert any("resumes from the checkpoint" in line for line in await log_of(stack, job))


async def test_a_killed_jobs_server_costs_nothing(database: TestDatabase, models: Path, tmp_path: Path) -> None:
    """Killing and restarting the Jobs server during a training costs no attempt and no step."""
    chance = seeded()
    rows = ROWS * 10
    steps = STEPS * 10
    async with servers(database.url, tmp_path) as stack:
        whole = await queue(stack, rows)
        async with trainer(stack, tmp_path / "whole", models, "--once"):
            expected = await files_of(stack, await until(stack, whole, is_final))
        job = await queue(stack, rows)
        async with trainer(stack, tmp_path / "trainer", models, "--once"):
            for step in sorted(chance.sample(range(1, steps // 2), 2)):
                now = await until(stack, job, lambda job, step=step: job.current_step >= step)
                assert now.status == jobs_pb2.JOB_STATUS_RUNNING
                stack.jobs_server.process.kill()
                await stack.jobs_server.process.wait()
                await stack.start()
            done = await until(stack, job, is_final)
        files = await files_of(stack, done)
        assert files["adapter_model.safetensors"] == expected["adapter_model.safetensors"]
        assert (done.attempt, done.current_step) == (1, steps)
        assert await losses_of(stack, job) == await losses_of(stack, whole)


@contextmanager
def file_limit(pid: int, size: int) -> Iterator[None]:
    """Lets a process write no file larger than `size` bytes, as a full disk would; lifts that after the body."""
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


async def test_a_full_storage_completes_nothing(database: TestDatabase, models: Path, tmp_path: Path) -> None:
    """If the storage is full, the attempt fails with that reason; with room, the next one completes."""
    storage = tmp_path / "storage"
    async with servers(database.url, tmp_path) as stack:
        job = await queue(stack)
        options = {"TRAINER_TRANSFER_SECONDS": 1, "CHECKPOINT_SECONDS": 0}
        async with trainer(stack, tmp_path / "trainer", models, "--once", **options) as process:
            await until(stack, job, lambda job: job.current_step >= 1)
            with file_limit(stack.jobs_server.process.pid, 10_000):
                failed = await until(stack, job, lambda job: job.attempt == 2)
                assert await process.wait() == 0
        assert "STORAGE_UNAVAILABLE" in failed.error_message
        assert (failed.status, failed.HasField("artifact_size")) == (jobs_pb2.JOB_STATUS_QUEUED, False)
        assert not list(storage.rglob("*adapter_model.safetensors*"))
        async with trainer(stack, tmp_path / "trainer", models, "--once"):
            done = await until(stack, job, is_final)
        assert "adapter_model.safetensors" in await files_of(stack, done)


async def test_a_full_disk_of_the_trainer_is_named(stack: Stack, models: Path, tmp_path: Path) -> None:
    """If the trainer's disk is full, the attempt fails with that reason and nothing is uploaded."""
    job = await queue(stack)
    folder = tmp_path / "trainer"
    async with trainer(stack, folder, models, "--once", CHECKPOINT_SECONDS=0) as process:
        # The adapter's 30 kB fit, and the optimizer's 60 kB do not.
        with file_limit(process.pid, 40_000):
            now = await until(stack, job, lambda job: job.attempt == 2)
    assert "The trainer cannot write a file; its disk has" in now.error_message
    assert not now.HasField("artifact_size")
    assert checkpoints_of(folder, job) == 0


async def test_a_trainer_without_room_for_the_dataset_ends(stack: Stack, models: Path, tmp_path: Path) -> None:
    """If the dataset cannot be stored, the attempt fails with that reason and the trainer ends with one line."""
    job = await queue(stack)
    folder = tmp_path / "trainer"
    async with trainer(stack, folder, models) as process:
        with file_limit(process.pid, 1_000):
            now = await until(stack, job, lambda job: job.attempt == 2)
            assert await process.wait() == 2
    assert now.error_message == "The trainer cannot write its files: File too large."
    assert (folder / "trainer.log").read_text().splitlines()[-1].startswith("trainer: files cannot be written to ")


async def test_a_trainer_told_to_end_releases_its_job(stack: Stack, models: Path, tmp_path: Path) -> None:
    """Case 43: SIGTERM saves a checkpoint and returns the job to the queue: no attempt is lost, and it is not completed."""
    job = await queue(stack)
    async with trainer(stack, tmp_path / "trainer", models) as process:
        await until(stack, job, lambda job: job.current_step >= 2)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    now = await get(stack, job.id)
    assert (now.status, now.attempt) == (jobs_pb2.JOB_STATUS_QUEUED, 1)
    assert now.status_reason == jobs_pb2.STATUS_REASON_RELEASED
    assert checkpoints_of(tmp_path / "trainer", job) == 1


async def test_a_training_that_was_stopped_cannot_be_stopped_again(stack: Stack, models: Path, tmp_path: Path) -> None:
    """SIGTERM at the end of a training is no failure: the exit code is 0."""
    await queue(stack)
    (leased,) = await trainers.lease(stack)
    settings = TrainerSettings(
        checkpoint_url=f"file://{tmp_path}/checkpoints", models_dir=models, trainer_work_dir=tmp_path / "work"
    )

    def stop_twice(training: Supervisor, job: Job) -> int | None:
        child = training._start(job, tmp_path)
        for message in child.messages():
            if isinstance(message, Report) and message.fields.get("step"):
                child.terminate()
            if isinstance(message, Saved):
                while child.exit_code is None:
                    os.kill(child.pid, signal.SIGTERM)
        child.close()
        return child.exit_code

    with Trainer(stack.jobs_address, token(TRAINER, role="worker"), gpus={}, name="tests") as client:
        training = Supervisor(client, settings, lambda *_: None)
        assert await asyncio.to_thread(stop_twice, training, client.resume(leased)) == 0


async def test_cancelling_stops_the_training(stack: Stack, models: Path, tmp_path: Path) -> None:
    """A cancelled job's training process ends soon, and the trainer leases the next job."""
    job = await queue(stack, ROWS * 40)
    async with trainer(stack, tmp_path / "trainer", models) as process:
        await until(stack, job, lambda job: job.current_step >= 1)
        await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))

        async def gone() -> bool:
            return not children_of(process.pid)

        await trainers.until(gone, 10)
        following = await queue(stack)
        done = await until(stack, following, is_final)
        assert done.status == jobs_pb2.JOB_STATUS_COMPLETED
    assert (await get(stack, job.id)).status == jobs_pb2.JOB_STATUS_CANCELLED


def test_a_half_written_checkpoint_is_not_used(tmp_path: Path) -> None:
    """A checkpoint without a manifest or with a changed file is skipped; one of another model is not used."""
    from trainer.train.checkpoints import Checkpoints

    source = tmp_path / "source"
    source.mkdir()
    store = Checkpoints(f"file://{tmp_path}/kept", {"base_model": "a", "world_size": 1})
    for step in (1, 2, 3):
        (source / "state").write_text(str(step))
        store.save(source, step)
    kept = tmp_path / "kept"
    assert sorted(path.name for path in kept.iterdir()) == ["step-000000002", "step-000000003"]
    (kept / "step-000000003" / "state").write_text("?")
    step, log_lines = store.load(tmp_path / "one")
    assert (step, (tmp_path / "one" / "checkpoint-2" / "state").read_text()) == (2, "2")
    assert "differs" in log_lines[0]
    (kept / "step-000000003" / "manifest.json").unlink()
    step, log_lines = store.load(tmp_path / "two")
    assert (step, (tmp_path / "two" / "checkpoint-2" / "state").read_text()) == (2, "2")
    assert "incomplete" in log_lines[0]
    other = Checkpoints(f"file://{tmp_path}/kept", {"base_model": "b", "world_size": 1})
    step, log_lines = other.load(tmp_path / "three")
    assert step is None
    assert "its base_model is different" in log_lines[1]


async def test_a_storage_that_fails_is_named(stack: Stack, models: Path, tmp_path: Path) -> None:
    """If checkpoints cannot be written, the attempt fails with that reason and nothing is uploaded."""
    job = await queue(stack)
    async with trainer(
        stack, tmp_path / "trainer", models, "--once", CHECKPOINT_SECONDS=0, CHECKPOINT_URL="file:///dev/full/x"
    ):
        now = await until(stack, job, lambda job: job.attempt == 2)
    assert "The checkpoints in file:///dev/full" in now.error_message
    assert not now.HasField("artifact_size")

"""The module that trainers import, against the real service over real gRPC."""

from __future__ import annotations

import asyncio
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import asyncpg
import pytest
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import NewDataset, Stack, TestDatabase, metadata, open_stack, token
from tests.jobs_service.jobs.test_create_job import ANN
from tests.jobs_service.trainers import TRAINER, get, queue, until
from trainer import client as module
from trainer.client import Job, Stopped, Trainer, TrainerError

WORKER = token(TRAINER, role="worker")
GPUS = {"A100-80GB": 8}


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Stack]:
    """The services over gRPC, with leases short enough to wait for."""
    leases = {"lease_ms": 1_000, "renew_ms": 200, "sweep_ms": 30, "max_attempts": 3}
    async with open_stack("grpc", database.url, tmp_path, **leases) as opened:
        yield opened


@pytest.fixture
async def job(stack: Stack, new_dataset: NewDataset) -> jobs_pb2.Job:
    """A job that waits: 3 epochs, 3750 steps."""
    return await queue(stack, new_dataset)


async def train(address: str, work: Callable[[Job], None], **options: Any) -> Job:
    """Takes a job and does something with it, in a thread as a trainer would."""

    def run() -> Job:
        with Trainer(address, WORKER, gpus=GPUS, name="tests", **options) as trainer:
            (job,) = trainer.lease(wait_seconds=10)
            with job:
                work(job)
            return job

    return await asyncio.to_thread(run)


async def test_all_that_is_reported_arrives(stack: Stack, job: jobs_pb2.Job) -> None:
    """Each value reaches the job's metrics though reports are sent together; what is not finite becomes a log line."""

    def work(held: Job) -> None:
        assert (held.total_steps, held.hyperparameters.rank, held.dataset.name) == (3750, 16, "Questions")
        for step in range(1, 251):
            held.report(step, of=250, epoch=step * 3 / 250, values={"loss": 2 / step}, stage="training")
        held.report(values={"loss": float("nan")}, lines=["almost done"])
        held.complete("s3://adapters/1", values={"eval_loss": 0.5})

    held = await train(stack.jobs_address, work)
    assert held.outcome == "completed"
    done = await get(stack, job.id)
    assert (done.status, done.artifact_uri) == (jobs_pb2.JOB_STATUS_COMPLETED, "s3://adapters/1")
    assert (done.trainer, done.current_epoch, done.attempt) == ("tests", 3, 1)
    asked_for = jobs_pb2.ListJobMetricsRequest(id=job.id, max_points=1000)
    points = (await stack.jobs.ListJobMetrics(asked_for, metadata=metadata(ANN))).points
    assert [point.step for point in points] == [15 * step for step in range(1, 251)]
    log = await stack.jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(id=job.id), metadata=metadata(ANN))
    assert [line for event in log.events for line in event.log_lines] == ["almost done", "loss is nan"]


async def test_a_long_step_keeps_the_lease(stack: Stack, job: jobs_pb2.Job, admin: asyncpg.Connection) -> None:
    """The lease is renewed while nothing is reported, for longer than it lasts."""
    began = asyncio.get_running_loop().create_future()
    go_on, loop = asyncio.Event(), asyncio.get_running_loop()

    def work(held: Job) -> None:
        held.report(1)
        loop.call_soon_threadsafe(began.set_result, None)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        held.complete("s3://adapters/1")

    training = asyncio.create_task(train(stack.jobs_address, work))
    await began
    started = await admin.fetchval("select now()")
    longer = "select lease_expires_at > $1::timestamptz + interval '3 seconds' from lora_training_jobs"
    await until(lambda: admin.fetchval(longer, started), 15)
    go_on.set()
    assert (await training).outcome == "completed"
    assert (await get(stack, job.id)).attempt == 1


async def test_a_cancelled_job_stops_its_trainer(stack: Stack, job: jobs_pb2.Job) -> None:
    """A report after the owner cancelled raises Stopped, which leaves the job's body and nothing else."""
    loop = asyncio.get_running_loop()
    cancel = jobs_pb2.CancelJobRequest(id=job.id)

    def work(held: Job) -> None:
        held.report(1)
        asyncio.run_coroutine_threadsafe(cancelled(), loop).result()
        while True:
            held.report(2)
            time.sleep(0.01)

    async def cancelled() -> None:
        await stack.jobs.CancelJob(cancel, metadata=metadata(ANN))

    assert (await train(stack.jobs_address, work)).outcome == "cancelled"


class Line:
    """A TCP line to a server that can be cut and mended."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.partition(":")
        self._open: set[asyncio.StreamWriter] = set()
        self._up = True
        self.address = ""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Line]:
        """The line while it is there."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self.cut()
            server.close()

    def cut(self) -> None:
        """Nothing passes any more, and nothing comes in."""
        self._up = False
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        """It may be used again."""
        self._up = True

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._up:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self._host, int(self._port))
        self._open |= {writer, back}
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        self._open -= {writer, back}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        writer.transport.abort()


@pytest.mark.parametrize("seconds", [0.3, None], ids=["for less than the lease", "for longer"])
async def test_a_cut_line(stack: Stack, job: jobs_pb2.Job, seconds: float | None) -> None:
    """A line that is cut for less than the lease goes unnoticed; after longer the job is another trainer's."""
    loop = asyncio.get_running_loop()

    def work(held: Job) -> None:
        held.report(1)
        loop.call_soon_threadsafe(line.cut)
        if seconds is not None:
            loop.call_soon_threadsafe(loop.call_later, seconds, line.mend)
            held.report(2, values={"loss": 1.0})
            held.complete("s3://adapters/1")
        while True:
            held.report(3)
            time.sleep(0.01)

    async with Line(stack.jobs_address).opened() as line:
        held = await train(line.address, work)
    if seconds is not None:
        assert held.outcome == "completed"
        assert (await get(stack, job.id)).current_metrics["loss"] == 1.0
    else:
        assert held.outcome == "lease_lost"

        async def queued() -> bool:
            found = await get(stack, job.id)
            return (found.status, found.attempt) == (jobs_pb2.JOB_STATUS_QUEUED, 2)

        await until(queued, 15)


async def test_how_a_body_ends(stack: Stack, job: jobs_pb2.Job) -> None:
    """An error fails the attempt and is retried, an interrupt costs no attempt, and a body without a result is an error."""

    def fails(held: Job) -> None:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError):
        await train(stack.jobs_address, fails)
    found = await get(stack, job.id)
    assert (found.status, found.attempt) == (jobs_pb2.JOB_STATUS_QUEUED, 2)
    assert found.error_message == "RuntimeError: CUDA out of memory"
    # An interrupt would end the test's own loop on its way through a task: it stays in the thread.
    await train(stack.jobs_address, lambda held: None)
    found = await get(stack, job.id)
    assert (found.attempt, found.error_message) == (3, "The trainer left the job without a result.")

    def give_back() -> str:
        with Trainer(stack.jobs_address, WORKER, gpus=GPUS) as trainer:
            (held,) = trainer.lease()
            with pytest.raises(KeyboardInterrupt), held:
                raise KeyboardInterrupt
            return held.outcome

    assert await asyncio.to_thread(give_back) == "released"
    found = await get(stack, job.id)
    assert (found.status, found.attempt) == (jobs_pb2.JOB_STATUS_QUEUED, 3)


async def test_a_trainer_that_hangs_gives_up(stack: Stack, job: jobs_pb2.Job) -> None:
    """Where the code does not report for `stall_seconds` the renewals end, so that another trainer gets the job."""
    loop = asyncio.get_running_loop()

    async def lost() -> bool:
        return (await get(stack, job.id)).attempt == 2

    def work(held: Job) -> None:
        held.report(1)
        asyncio.run_coroutine_threadsafe(until(lost, 15), loop).result()
        held.report(2)

    assert (await train(stack.jobs_address, work, stall_seconds=0.5)).outcome == "lease_lost"


async def test_what_the_service_refuses_is_named(stack: Stack, job: jobs_pb2.Job) -> None:
    """A name that no metric may have, and a token that is not a worker's, are errors that say so; nobody repeats them."""

    def work(held: Job) -> None:
        held.report(1, values={"train loss": 1.0})
        held.complete("s3://adapters/1")

    with pytest.raises(TrainerError, match=r"VALIDATION_FAILED.*metrics"):
        await train(stack.jobs_address, work)

    def lease_as_user() -> None:
        with Trainer(stack.jobs_address, token(ANN), gpus=GPUS) as trainer:
            trainer.lease()

    with pytest.raises(TrainerError, match="PERMISSION_DENIED ROLE_NOT_ALLOWED"):
        await asyncio.to_thread(lease_as_user)


async def test_stop_ends_the_wait_for_jobs(stack: Stack) -> None:
    """`stop` from another thread ends `jobs()` at once, however long it would wait."""
    with Trainer(stack.jobs_address, WORKER, gpus=GPUS) as trainer:
        waiting = asyncio.create_task(asyncio.to_thread(list, trainer.jobs()))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        trainer.stop()
        assert await asyncio.wait_for(waiting, 5) == []


async def test_the_example_in_the_docstring_trains(
    stack: Stack, job: jobs_pb2.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback for Hugging Face's Trainer, as it stands there, reports steps and logs and ends a job."""
    code = textwrap.dedent(module.__doc__.partition("your own:\n")[2].partition("\nA job is had")[0])
    package = ModuleType("transformers")
    package.TrainerCallback = object
    monkeypatch.setitem(sys.modules, "transformers", package)
    code = code.replace("jobs.internal:50052", stack.jobs_address).replace("H100", "A100-80GB")

    def train(hyperparameters: Any, dataset: Any, callbacks: list[Any]) -> str:
        state = SimpleNamespace(max_steps=30, global_step=0, epoch=0.0)
        control = SimpleNamespace(should_training_stop=False)
        for step in range(1, 31):
            state.global_step, state.epoch = step, step / 10
            callbacks[0].on_step_end(None, state, control, model=None)
            if step % 10 == 0:
                callbacks[0].on_log(None, state, control, logs={"loss": 1 / step, "note": "words"})
        used.append(control)
        return "model"

    used: list[Any] = []

    def upload(model: str) -> str:
        known["trainer"].stop()
        return f"s3://adapters/{model}"

    known = {"token": WORKER, "train": train, "upload": upload}
    await asyncio.to_thread(exec, code, known)
    assert not used[0].should_training_stop
    done = await get(stack, job.id)
    assert (done.status, done.artifact_uri) == (jobs_pb2.JOB_STATUS_COMPLETED, "s3://adapters/model")
    assert (done.current_step, done.current_epoch, done.trainer) == (3750, 3, "gpu-7")
    assert Stopped("cancelled").reason == "cancelled"

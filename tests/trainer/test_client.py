"""The client of trainers, against the real service over gRPC."""

from __future__ import annotations

import asyncio
import socket
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import asyncpg
import numpy as np
import pytest
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import NewDataset, Stack, TestDatabase, open_stack, token
from tests.conftest import metadata as metadata_of
from tests.jobs_service.jobs.test_create_job import ANN
from tests.jobs_service.trainers import TRAINER, get, queue, until
from tests.trainer.rows import import_rows
from trainer import client as module
from trainer.client import Job, Stopped, Trainer, TrainerError
from trainer.client.reports import ReportBuffer

WORKER = token(TRAINER, role="worker")
GPUS = {"A100-80GB": 8}
CONFIG = (
    {"type": "A100-80GB", "count": 2},
    {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16},
)


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
    """Leases a job and calls a function with it, in a thread."""

    def run() -> Job:
        with Trainer(address, WORKER, gpus=GPUS, name="tests", **options) as trainer:
            (job,) = trainer.lease(wait_seconds=10)
            with job:
                work(job)
            return job

    return await asyncio.to_thread(run)


async def test_all_that_is_reported_arrives(stack: Stack, job: jobs_pb2.Job) -> None:
    """Every reported value reaches the job's metrics; values that are not finite become log lines."""

    def work(value: Job) -> None:
        assert (value.total_steps, value.hyperparameters.rank, value.dataset.name) == (3750, 16, "Questions")
        for step in range(1, 251):
            value.report(step, of=250, epoch=step * 3 / 250, values={"loss": 2 / step}, stage="training")
        value.report(values={"loss": float("nan")}, lines=["almost done"])
        value.complete("s3://adapters/1", values={"eval_loss": 0.5})

    value = await train(stack.jobs_address, work)
    assert value.outcome == "completed"
    done = await get(stack, job.id)
    assert (done.status, done.artifact_uri) == (jobs_pb2.JOB_STATUS_COMPLETED, "s3://adapters/1")
    assert (done.trainer, done.current_epoch, done.attempt) == ("tests", 3, 1)
    asked_for = jobs_pb2.ListJobMetricsRequest(id=job.id, max_points=1000)
    points = (await stack.jobs.ListJobMetrics(asked_for, metadata=metadata_of(ANN))).points
    assert [point.step for point in points] == [15 * step for step in range(1, 251)]
    log = await stack.jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(id=job.id), metadata=metadata_of(ANN))
    assert [line for event in log.events for line in event.log_lines] == ["almost done", "loss is nan"]


async def test_a_long_step_keeps_the_lease(stack: Stack, job: jobs_pb2.Job, admin: asyncpg.Connection) -> None:
    """The lease is renewed without reports, for longer than its length."""
    began = asyncio.get_running_loop().create_future()
    go_on, loop = asyncio.Event(), asyncio.get_running_loop()

    def work(leased: Job) -> None:
        leased.report(1)
        loop.call_soon_threadsafe(began.set_result, None)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        leased.complete("s3://adapters/1")

    training = asyncio.create_task(train(stack.jobs_address, work))
    await began
    started = await admin.fetchval("select now()")
    longer = "select lease_expires_at > $1::timestamptz + interval '3 seconds' from lora_training_jobs"
    await until(lambda: admin.fetchval(longer, started), 15)
    go_on.set()
    assert (await training).outcome == "completed"
    assert (await get(stack, job.id)).attempt == 1


async def test_a_cancelled_job_stops_its_trainer(stack: Stack, job: jobs_pb2.Job) -> None:
    """A report after a cancellation raises Stopped, which ends only the job's body."""
    loop = asyncio.get_running_loop()
    cancel = jobs_pb2.CancelJobRequest(id=job.id)

    def work(leased: Job) -> None:
        leased.report(1)
        asyncio.run_coroutine_threadsafe(cancelled(), loop).result()
        while True:
            leased.report(2)
            time.sleep(0.01)

    async def cancelled() -> None:
        await stack.jobs.CancelJob(cancel, metadata=metadata_of(ANN))

    assert (await train(stack.jobs_address, work)).outcome == "cancelled"


class Line:
    """A TCP proxy to a server that can be cut and restored."""

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
async def test_a_cut_connection(stack: Stack, job: jobs_pb2.Job, seconds: float | None) -> None:
    """A short interruption of the connection costs nothing; after a longer one another trainer gets the job."""
    loop = asyncio.get_running_loop()

    def work(leased: Job) -> None:
        leased.report(1)
        loop.call_soon_threadsafe(line.cut)
        if seconds is not None:
            loop.call_soon_threadsafe(loop.call_later, seconds, line.mend)
            leased.report(2, values={"loss": 1.0})
            leased.complete("s3://adapters/1")
        while True:
            leased.report(3)
            time.sleep(0.01)

    async with Line(stack.jobs_address).opened() as line:
        leased = await train(line.address, work)
    if seconds is not None:
        assert leased.outcome == "completed"
        assert (await get(stack, job.id)).current_metrics["loss"] == 1.0
    else:
        assert leased.outcome == "lease_lost"

        async def queued() -> bool:
            result = await get(stack, job.id)
            return (result.status, result.attempt) == (jobs_pb2.JOB_STATUS_QUEUED, 2)

        await until(queued, 15)


async def test_the_body_of_a_job_ends_the_attempt(stack: Stack, job: jobs_pb2.Job) -> None:
    """An error fails the attempt and is retried, an interrupt costs no attempt, and a body without a result is an error."""

    def fails(leased: Job) -> None:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError):
        await train(stack.jobs_address, fails)
    result = await get(stack, job.id)
    assert (result.status, result.attempt) == (jobs_pb2.JOB_STATUS_QUEUED, 2)
    assert result.error_message == "RuntimeError: CUDA out of memory"
    # An interrupt would end the test's own loop on its way through a task: it stays in the thread.
    await train(stack.jobs_address, lambda leased: None)
    result = await get(stack, job.id)
    assert (result.attempt, result.error_message) == (3, "The trainer left the job without a result.")

    def give_back() -> str:
        with Trainer(stack.jobs_address, WORKER, gpus=GPUS) as trainer:
            (leased,) = trainer.lease()
            with pytest.raises(KeyboardInterrupt), leased:
                raise KeyboardInterrupt
            return leased.outcome

    assert await asyncio.to_thread(give_back) == "released"
    result = await get(stack, job.id)
    assert (result.status, result.attempt) == (jobs_pb2.JOB_STATUS_QUEUED, 3)


async def test_a_trainer_that_hangs_gives_up(stack: Stack, job: jobs_pb2.Job) -> None:
    """Without a report for `stall_seconds` renewals end, and another trainer gets the job."""
    loop = asyncio.get_running_loop()

    async def lost() -> bool:
        return (await get(stack, job.id)).attempt == 2

    def work(leased: Job) -> None:
        leased.report(1)
        asyncio.run_coroutine_threadsafe(until(lost, 15), loop).result()
        leased.report(2)

    assert (await train(stack.jobs_address, work, stall_seconds=0.5)).outcome == "lease_lost"


class Tensor:
    """What a training library logs in place of a number: one element, which `item` takes out."""

    def __init__(self, value: float) -> None:
        self._value = value

    def item(self) -> float:
        return self._value


async def test_no_report_ends_a_training(stack: Stack, job: jobs_pb2.Job) -> None:
    """Cases 40, 44: invalid names, numbers and texts are renamed, cut or logged."""
    values = {
        "eval_cosine_accuracy@1": 0.5,
        "timing(s)/gen": np.float32(2),
        "GPU 0 memory": Tensor(3.0),
        "_step": np.int64(4),
        "größe": 5,
        "x" * 100: 6,
        "grad_norm": None,
        "note": "1.5",
        "array": np.array([1.0, 2.0]),
        "huge": 10**400,
        **{f"metric_{number}": number for number in range(86)},
    }

    def work(value: Job) -> None:
        value.report(1, values=values, stage="s\0t" * 40, lines=["a\0b", "\ud800", "l" * 5_000], platform_id="p" * 999)
        value.report(2, checkpoint=("s3://" + "u" * 1_000, 1))
        value.report(2, checkpoint=("s3://c", 10**30))
        value.report(2, checkpoint=("s3://good", np.int64(2)))
        value.report("two", epoch=None, of=0, values={"loss": float("-inf")})
        value.report(3, values={"loss": 0.25})
        value.complete("s3://adapters/1", values={"final score": Tensor(1.0), "none": None}, result_step=-1)

    value = await train(stack.jobs_address, work)
    assert value.outcome == "completed"
    done = await get(stack, job.id)
    metrics = dict(done.current_metrics)
    assert (metrics["eval_cosine_accuracy_1"], metrics["timing_s_/gen"], metrics["GPU_0_memory"]) == (0.5, 2, 3)
    assert (metrics["m_step"], metrics["gr_e"], metrics["x" * 64], metrics["loss"]) == (4, 5, 6, 0.25)
    assert metrics["final_score"] == 1
    asked_for = jobs_pb2.ListJobEventsRequest(id=job.id, limit=100)
    log = await stack.jobs.ListJobEvents(asked_for, metadata=metadata_of(ANN))
    lines = [line for event in log.events for line in event.log_lines]
    assert {"ab", "?", "l" * 2_000, "grad_norm is None", "note is 1.5", "loss is -inf"} <= set(lines)
    assert any("metric eval_cosine_accuracy@1 is recorded as eval_cosine_accuracy_1" in line for line in lines)
    assert any("over 32 values" in line for line in lines)


async def test_a_refused_report_costs_the_report_alone(
    stack: Stack, job: jobs_pb2.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that the service refuses is logged; the lease is renewed, and the job completes."""
    take = ReportBuffer.take

    def spoiled(buffer: ReportBuffer) -> Any:
        request = take(buffer)
        for point in request.metrics:
            point.values["no such name"] = 1.0
        return request

    monkeypatch.setattr(ReportBuffer, "take", spoiled)

    def work(leased: Job) -> None:
        leased.report(1, values={"loss": 1.0})
        leased.complete("s3://adapters/1")

    assert (await train(stack.jobs_address, work)).outcome == "completed"
    log = await stack.jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(id=job.id, limit=100), metadata=metadata_of(ANN))
    assert any("a report was refused: INVALID_ARGUMENT" in line for event in log.events for line in event.log_lines)


async def test_a_token_that_fails_for_a_while(stack: Stack, job: jobs_pb2.Job, tmp_path: Path) -> None:
    """Case 49: a training survives the expiry of its token if that is a file or a function, and errors of the function."""
    calls = 0

    def make() -> str:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("the issuer is away")
        return token(TRAINER, role="worker", exp=int(time.time()) - 60) if calls == 4 else WORKER

    def work(leased: Job) -> None:
        for step in range(1, 8):
            leased.report(step)
            time.sleep(0.15)
        leased.complete("s3://adapters/1")

    def run(source: Any) -> Job:
        with Trainer(stack.jobs_address, source, gpus=GPUS) as trainer:
            (leased,) = trainer.lease(wait_seconds=10)
            with leased:
                work(leased)
            return leased

    assert (await asyncio.to_thread(run, make)).outcome == "completed"
    assert calls > 5


@pytest.mark.parametrize("text", ["", "two words", '"quoted"', "line\nbreak", "naïve"])
async def test_a_malformed_token_is_named_at_start(tmp_path: Path, text: str) -> None:
    """Case 36: a malformed token is an error at start."""
    file = tmp_path / "token"
    file.write_text(text)
    for source in (text, file):
        with pytest.raises(TrainerError, match="token"):
            Trainer("127.0.0.1:1", source, gpus=GPUS)


async def test_a_line_break_after_the_token_is_no_part_of_it(stack: Stack, tmp_path: Path) -> None:
    """Case 36: a token file may end with a line break."""
    file = tmp_path / "token"
    file.write_text(f"{WORKER}\r\n")

    def run() -> list[Job]:
        with Trainer(stack.jobs_address, file, gpus=GPUS) as trainer:
            return trainer.lease(wait_seconds=0)

    assert await asyncio.to_thread(run) == []


def test_an_address_that_is_a_url_is_named() -> None:
    """Case 36: an `http://` address is an error at start."""
    with pytest.raises(TrainerError, match="HOST:PORT"):
        Trainer("http://jobs.internal:50052", WORKER, gpus=GPUS)


async def test_what_the_service_refuses_is_named(stack: Stack) -> None:
    """A token that is not a worker's is an error that says so, and is not repeated."""

    def lease_as_user() -> None:
        with Trainer(stack.jobs_address, token(ANN), gpus=GPUS) as trainer:
            trainer.lease()

    with pytest.raises(TrainerError, match="PERMISSION_DENIED ROLE_NOT_ALLOWED"):
        await asyncio.to_thread(lease_as_user)


def test_a_service_that_is_away_gives_no_jobs() -> None:
    """`lease` returns without jobs after its wait if the service is unavailable: dispatchers have leases to renew."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with Trainer(f"127.0.0.1:{closed.getsockname()[1]}", WORKER, gpus=GPUS) as trainer:
            assert trainer.lease(wait_seconds=0.5) == []


async def test_stop_ends_the_wait_for_jobs(stack: Stack) -> None:
    """`stop` from another thread ends `jobs()` at once, however long it would wait."""
    with Trainer(stack.jobs_address, WORKER, gpus=GPUS) as trainer:
        waiting = asyncio.create_task(asyncio.to_thread(list, trainer.jobs()))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        trainer.stop()
        assert await asyncio.wait_for(waiting, 5) == []


async def test_the_example_in_the_docstring_trains(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The docstring's callback for Hugging Face's Trainer reports, uploads and completes a job."""
    dataset = await import_rows(stack, [{"prompt": "Hi", "completion": "Hello"}] * 30)
    request = jobs_pb2.CreateJobRequest(
        dataset_id=dataset.id, preset_id="PRESET_ID_BALANCED", gpu_config=CONFIG[0], hyperparameters=CONFIG[1]
    )
    job = (await stack.jobs.CreateJob(request, metadata=metadata_of(ANN))).job
    code = textwrap.dedent(
        module.__doc__.partition("your own function:\n")[2].partition("\nA trainer has a lease of each")[0]
    )
    package = ModuleType("transformers")
    package.TrainerCallback = object
    monkeypatch.setitem(sys.modules, "transformers", package)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worker.token").write_text(WORKER)
    code = code.replace("jobs.internal:50052", stack.jobs_address).replace("H100", "A100-80GB")

    def train(plan: Any, hyperparameters: Any, dataset: Path, callbacks: list[Any]) -> Path:
        assert len(dataset.read_bytes().splitlines()) == 30
        state = SimpleNamespace(max_steps=30, global_step=0, epoch=0.0)
        control = SimpleNamespace(should_training_stop=False)
        for step in range(1, 31):
            state.global_step, state.epoch = step, step / 10
            callbacks[0].on_step_end(None, state, control, model=None)
            if step % 10 == 0:
                callbacks[0].on_log(None, state, control, logs={"loss": 1 / step, "note": "words"})
        assert not control.should_training_stop
        known_names["trainer"].stop()
        folder = tmp_path / "result"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        return folder

    known_names: dict[str, Any] = {"train": train}
    await asyncio.to_thread(exec, code, known_names)
    done = await get(stack, job.id)
    assert (done.status, done.artifact_size) == (jobs_pb2.JOB_STATUS_COMPLETED, 7)
    assert (done.current_step, done.current_epoch, done.trainer) == (done.total_steps, 3, "gpu-7")
    assert Stopped("cancelled").reason == "cancelled"

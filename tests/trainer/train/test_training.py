"""Real trainings of the tiny model, from the real queue to the downloaded adapter: `make test-train`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pipeline.jobs.v1 import jobs_pb2

from jobs_service.datasets.tokens import count_tokens
from tests.conftest import Stack, TestDatabase, metadata, open_stack, token
from tests.jobs_service import trainers
from tests.jobs_service.jobs.test_create_job import ANN
from tests.jobs_service.trainers import TRAINER, get
from tests.trainer.rows import import_rows
from trainer.train.data import read_rows, texts

pytestmark = pytest.mark.train
REPOSITORY = Path(__file__).parents[3]
GPU = "A100-80GB"
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"What is {n} plus {n}?"},
            {"role": "assistant", "content": f"It is {2 * n}."},
        ]
    }
    for n in range(48)
]
# 48 samples, 8 a step, 2 epochs: 12 steps.
CONFIGURATION = {"batch_size": 8, "epochs": 2, "learning_rate": 1e-3, "rank": 8, "alpha": 16.0, "dropout": 0.1}
STEPS = 12


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo-tiny."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-m", "trainer", "--demo-model", folder], check=True, cwd=REPOSITORY)
    return folder


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Stack]:
    """The services over gRPC, with leases that a killed trainer loses soon."""
    leases = {"lease_ms": 4_000, "renew_ms": 500, "sweep_ms": 50, "max_attempts": 10}
    async with open_stack("grpc", database.url, tmp_path, **leases) as opened:
        yield opened


async def queue(stack: Stack, rows: Sequence[Any] = ROWS, *, count: int = 1, **training: Any) -> jobs_pb2.Job:
    """A job on the tiny model."""
    dataset = await import_rows(stack, rows)
    batch = CONFIGURATION["batch_size"] // count
    request = jobs_pb2.CreateJobRequest(
        dataset_id=dataset.id,
        preset_id="PRESET_ID_CUSTOM",
        gpu_config={"type": GPU, "count": count},
        hyperparameters={**CONFIGURATION, "batch_size": batch},
        base_model="demo-tiny",
        training=training,
    )
    return (await stack.jobs.CreateJob(request, metadata=metadata(ANN))).job


def write_token(folder: Path) -> Path:
    """A file with a trainer's token."""
    folder.mkdir(exist_ok=True)
    file = folder / "token"
    file.write_text(token(TRAINER, role="worker"))
    return file


@asynccontextmanager
async def trainer(
    stack: Stack, folder: Path, models: Path, *arguments: str, **variables: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m trainer` as a process; what it prints goes to a file."""
    secret = write_token(folder)
    settings = {"CHECKPOINT_URL": f"file://{folder}/checkpoints", "TRAINER_WORK_DIR": folder / "work", **variables}
    environment = (
        os.environ | {"OMP_NUM_THREADS": "1"} | {f"PIPELINE_{name}": str(value) for name, value in settings.items()}
    )
    command = ["-m", "trainer", "--gpus", f"{GPU}=2", "--models", str(models), "--token-file", str(secret)]
    with (folder / "trainer.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--address", stack.jobs_address, *arguments,
            env=environment, stdout=log, stderr=log, cwd=REPOSITORY,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(stack: Stack, job: jobs_pb2.Job, condition: Callable[[jobs_pb2.Job], bool]) -> jobs_pb2.Job:
    """The job once a condition holds of it."""

    async def look() -> jobs_pb2.Job | None:
        now = await get(stack, job.id)
        assert not now.is_final or condition(now), (now.status, now.error_message)
        return now if condition(now) else None

    return await trainers.until(look, 120)


def is_final(job: jobs_pb2.Job) -> bool:
    """Whether a job has ended."""
    return job.is_final


async def files_of(stack: Stack, job: jobs_pb2.Job) -> dict[str, bytes]:
    """The files of a completed job."""
    assert job.status == jobs_pb2.JOB_STATUS_COMPLETED, job.error_message
    listed = await stack.jobs.GetJobArtifact(jobs_pb2.GetJobArtifactRequest(id=job.id), metadata=metadata(ANN))
    result = {}
    for file in listed.artifact.files:
        request = jobs_pb2.DownloadJobArtifactRequest(id=job.id, name=file.name)
        parts = [part.data async for part in stack.jobs.DownloadJobArtifact(request, metadata=metadata(ANN))]
        result[file.name] = b"".join(parts)
    return result


async def log_of(stack: Stack, job: jobs_pb2.Job) -> list[str]:
    """The log lines of a job, oldest first."""
    lines: list[str] = []
    for page in (1, 2, 3):
        request = jobs_pb2.ListJobEventsRequest(id=job.id, limit=100, page=page)
        events = (await stack.jobs.ListJobEvents(request, metadata=metadata(ANN))).events
        lines += [line for event in events for line in reversed(event.log_lines)]
    return lines[::-1]


async def test_a_job_becomes_an_adapter(stack: Stack, models: Path, tmp_path: Path) -> None:
    """The adapter loads with PEFT on its base model and changes what that predicts; loss falls; figures come back."""
    job = await queue(stack)
    assert job.total_steps == STEPS
    async with trainer(stack, tmp_path / "trainer", models, "--once") as process:
        done = await until(stack, job, is_final)
        assert await process.wait() == 0
    files = await files_of(stack, done)
    expected = {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "training_args.json", "README.md"}
    assert expected <= set(files)
    assert not any(name.endswith((".bin", ".pt", ".pth")) for name in files)
    assert changes_predictions(models / "demo-tiny", tmp_path / "adapter", files)
    request = jobs_pb2.ListJobMetricsRequest(id=job.id)
    points = (await stack.jobs.ListJobMetrics(request, metadata=metadata(ANN))).points
    loss = [point.values["loss"] for point in points if "loss" in point.values]
    assert len(loss) == STEPS
    assert sum(loss[-3:]) < sum(loss[:3])
    assert (done.current_step, done.simulated, done.measurements.stack.attention) == (STEPS, False, "sdpa")
    assert done.measurements.trained_tokens > 48 * 2 * 10
    assert done.final_cost >= 0.5
    assert "Sums" not in files["README.md"].decode()
    assert json.loads(files["adapter_config.json"])["r"] == 8
    assert json.loads(files["training_args.json"])["max_steps"] == STEPS


def changes_predictions(model: Path, adapter: Path, files: dict[str, bytes]) -> bool:
    """Whether an adapter loads on its base model and changes its logits."""
    adapter.mkdir()
    for name, data in files.items():
        (adapter / name).write_bytes(data)
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT still uses names that transformers has renamed
        base = AutoModelForCausalLM.from_pretrained(model)
        ids = AutoTokenizer.from_pretrained(adapter)("What is 1 plus 1?", return_tensors="pt")["input_ids"]
        before = base(input_ids=ids).logits
        after = PeftModel.from_pretrained(base, adapter)(input_ids=ids).logits
    return not torch.allclose(before, after)


async def test_killed_anywhere_it_goes_on_bit_for_bit(stack: Stack, models: Path, tmp_path: Path) -> None:
    """A run whose training process and supervisor are killed, and then told to end, gives the uninterrupted run's adapter."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
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
    assert any("goes on from the checkpoint" in line for line in await log_of(stack, job))


def children_of(pid: int) -> list[int]:
    """Processes that a process has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


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


def checkpoints_of(folder: Path, job: jobs_pb2.Job) -> int:
    """How many whole checkpoints a job has."""
    return len(list((folder / "checkpoints" / job.id).glob("*/manifest.json")))


async def test_cancelling_stops_the_training(stack: Stack, models: Path, tmp_path: Path) -> None:
    """A cancelled job's training process is gone soon after, and the trainer takes the next job."""
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


async def test_two_processes_train_one_job(stack: Stack, models: Path, tmp_path: Path) -> None:
    """A job of two GPUs is trained by two processes, in the steps that were estimated, and resumes from a checkpoint."""
    job = await queue(stack, count=2)
    assert job.total_steps == STEPS
    folder = tmp_path / "trainer"
    async with trainer(stack, folder, models, "--once", CHECKPOINT_SECONDS=0) as process:
        await until(stack, job, lambda job: job.current_step >= 3)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)
    assert (await get(stack, job.id)).status_reason == jobs_pb2.STATUS_REASON_RELEASED
    async with trainer(stack, folder, models, "--once"):
        done = await until(stack, job, is_final)
    assert "adapter_model.safetensors" in await files_of(stack, done)
    assert done.current_step == STEPS


def stored_rows(folder: Path) -> list[dict[str, Any]]:
    """The samples of the one dataset in a storage."""
    (file,) = (path for path in (folder / "storage" / "datasets").rglob("*") if path.is_file())
    return list(read_rows(file))


FORMATS: dict[str, list[Any]] = {
    "conversations": [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": f"Hello {n}"}]} for n in range(9)
    ],
    "instruction": [{"instruction": f"Add {n}", "input": "1", "output": f"{n + 1}"} for n in range(9)],
    "prompt_completion": [{"prompt": f"{n} + 1 =", "completion": f" {n + 1}"} for n in range(9)],
    "text": [{"text": f"Once upon a time there were {n} cats."} for n in range(9)],
    "tools": [
        {
            "messages": [
                {"role": "user", "content": f"Who is {n}?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "find", "arguments": '{"key": "7"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "a", "content": "Ann"},
                {"role": "assistant", "content": "Ann."},
            ]
        }
        for n in range(9)
    ],
    "train flags": [
        {
            "messages": [
                {"role": "user", "content": "1?"},
                {"role": "assistant", "content": "wrong", "weight": 0},
                {"role": "user", "content": "no"},
                {"role": "assistant", "content": f"right {n}", "weight": 1},
            ]
        }
        for n in range(9)
    ],
}


@pytest.mark.parametrize("name", FORMATS)
async def test_every_format_trains_as_it_was_estimated(stack: Stack, models: Path, tmp_path: Path, name: str) -> None:
    """What is trained on has the very tokens and samples that were counted, and the steps that were estimated."""
    from transformers import AutoTokenizer

    from trainer.train import data

    rows = FORMATS[name]
    dataset = await import_rows(stack, rows)
    stored = stored_rows(tmp_path)
    assert len(stored) == len(rows)
    assert sum(count_tokens([text for text in texts(row) if text]) for row in stored) == dataset.total_tokens
    data.check_counts(stored, dataset.total_training_pairs, dataset.total_tokens)
    tokenizer = AutoTokenizer.from_pretrained(models / "demo-tiny")
    prepared = data.prepare(stored, tokenizer, sequence_length=None, validation_fraction=0, seed=1)
    assert len(prepared.train) == len(rows)
    trained = [
        tokenizer.decode([token for token, label in zip(each.input_ids, each.labels, strict=True) if label >= 0])
        for each in prepared.train
    ]
    if name == "train flags":
        assert all("right" in text and "wrong" not in text for text in trained)
    elif name in ("conversations", "tools"):
        assert not any("Who is" in text or "Hi" in text for text in trained)
    elif name == "prompt_completion":
        assert all("+" not in text for text in trained)


async def test_what_cannot_be_honoured_fails_at_once(stack: Stack, models: Path, tmp_path: Path) -> None:
    """QLoRA without a GPU fails with the reason before anything is trained, and is not tried again."""
    job = await queue(stack, method="TRAINING_METHOD_QLORA")
    async with trainer(stack, tmp_path / "trainer", models, "--once"):
        failed = await until(stack, job, is_final)
    assert (failed.status, failed.status_reason) == (jobs_pb2.JOB_STATUS_FAILED, jobs_pb2.STATUS_REASON_NOT_SUPPORTED)
    assert "QLoRA needs a GPU" in failed.error_message
    assert failed.attempt == 1


async def test_validation_chooses_the_best_state(stack: Stack, models: Path, tmp_path: Path) -> None:
    """Samples are held back, eval loss is reported after each epoch, and the result has the best step."""
    job = await queue(stack, validation_fraction=0.1)
    assert job.total_steps == 2 * -(-(48 - 20) // 8)
    async with trainer(stack, tmp_path / "trainer", models, "--once"):
        done = await until(stack, job, is_final)
    assert done.status == jobs_pb2.JOB_STATUS_COMPLETED, done.error_message
    request = jobs_pb2.ListJobMetricsRequest(id=job.id)
    points = (await stack.jobs.ListJobMetrics(request, metadata=metadata(ANN))).points
    losses = {point.step: point.values["eval_loss"] for point in points if "eval_loss" in point.values}
    assert len(losses) == 2
    assert done.result_step == min(losses, key=lambda step: losses[step])
    assert done.current_metrics["eval_loss"] == pytest.approx(min(losses.values()))


def test_a_half_written_checkpoint_is_not_used(tmp_path: Path) -> None:
    """Without a manifest, or with a file that differs, the checkpoint before is taken; of another model, none."""
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
    result, remarks = store.load(tmp_path / "one")
    assert result is not None
    assert (result / "state").read_text() == "2"
    assert "differs" in remarks[0]
    (kept / "step-000000003" / "manifest.json").unlink()
    result, remarks = store.load(tmp_path / "two")
    assert result is not None
    assert (result / "state").read_text() == "2"
    assert "half written" in remarks[0]
    other = Checkpoints(f"file://{tmp_path}/kept", {"base_model": "b", "world_size": 1})
    result, remarks = other.load(tmp_path / "three")
    assert result is None
    assert "its base_model is another one" in remarks[1]


async def test_a_storage_that_fails_is_named(stack: Stack, models: Path, tmp_path: Path) -> None:
    """Where checkpoints cannot be kept the attempt fails with the reason; nothing is uploaded or completed."""
    job = await queue(stack)
    async with trainer(
        stack, tmp_path / "trainer", models, "--once", CHECKPOINT_SECONDS=0, CHECKPOINT_URL="file:///dev/full/x"
    ):
        now = await until(stack, job, lambda job: job.attempt == 2)
    assert "The checkpoints in file:///dev/full" in now.error_message
    assert not now.HasField("artifact_size")


def write_example(script: Path) -> Path:
    """The training script that the documentation shows."""
    page = (REPOSITORY / "docs" / "trainers.md").read_text()
    script.write_text("# train.py" + page.partition("```python\n# train.py")[2].partition("```")[0])
    return script


async def test_any_command_may_train(stack: Stack, models: Path, tmp_path: Path) -> None:
    """PIPELINE_TRAINER_COMMAND: the example of docs/trainers.md reports, saves a result, and completes a job."""
    example = (
        (REPOSITORY / "docs" / "trainers.md").read_text().partition("```python\n# train.py")[2].partition("```")[0]
    )
    script = tmp_path / "train.py"
    script.write_text("# train.py" + example)
    job = await queue(stack)
    async with trainer(stack, tmp_path / "trainer", models, "--once", TRAINER_COMMAND=f"{sys.executable} {script}"):
        done = await until(stack, job, is_final)
    assert set(await files_of(stack, done)) == {"adapter_model.safetensors", "README.md"}


@pytest.fixture
def gpu() -> None:
    """Skips where there is no GPU, and says so."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU on this machine: QLoRA, NVML and bf16 kernels were not run")


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
async def test_qlora_trains_on_a_gpu(stack: Stack, models: Path, tmp_path: Path) -> None:
    """On a GPU, QLoRA gives an adapter and the peak of memory is measured."""
    job = await queue(stack, method="TRAINING_METHOD_QLORA")
    async with trainer(stack, tmp_path / "trainer", models, "--once"):
        done = await until(stack, job, is_final)
    assert "adapter_model.safetensors" in await files_of(stack, done)
    assert done.measurements.peak_memory_gib > 0

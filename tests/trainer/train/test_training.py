"""Real trainings of the tiny model, from the real queue to the downloaded adapter: `make test-train`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import warnings
from pathlib import Path

import pytest
from pipeline.jobs.v1 import jobs_pb2

from tests.conftest import Stack, metadata
from tests.jobs_service.jobs.test_create_job import ANN
from tests.jobs_service.trainers import get
from tests.trainer.train.trainings import REPOSITORY, STEPS, files_of, is_final, queue, trainer, until

pytestmark = pytest.mark.train


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

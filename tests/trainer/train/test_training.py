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

from deploy.local import train_demo
from tests.conftest import Stack
from tests.jobs_service.trainers import get
from tests.trainer.rows import import_rows
from tests.trainer.train.trainings import REPOSITORY, STEPS, files_of, is_final, losses_of, queue, trainer, until

pytestmark = pytest.mark.train


async def test_a_job_becomes_an_adapter(stack: Stack, models: Path, tmp_path: Path) -> None:
    """The demo's job halves its loss, its adapter loads with PEFT and changes predictions, and it has measurements."""
    hyperparameters, training = (
        {field.name: value for field, value in message.ListFields()}
        for message in (train_demo.HYPERPARAMETERS, train_demo.TRAINING)
    )
    job = await queue(stack, list(train_demo.rows()), hyperparameters=hyperparameters, **training)
    async with trainer(stack, tmp_path / "trainer", models, "--once") as process:
        done = await until(stack, job, is_final)
        assert await process.wait() == 0
    files = await files_of(stack, done)
    expected = {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "training_args.json", "README.md"}
    assert expected <= set(files)
    assert not any(name.endswith((".bin", ".pt", ".pth")) for name in files)
    assert changes_predictions(models / "demo-tiny", tmp_path / "adapter", files)
    loss = [*(await losses_of(stack, job)).values()]
    assert len(loss) == job.total_steps
    assert loss[0] > 7.5
    assert max(loss[-20:]) < 4
    assert [*(await losses_of(stack, job, "eval_loss")).values()][-1] < 3.5
    assert (done.current_step, done.simulated) == (job.total_steps, False)
    measured = done.measurements
    assert (measured.stack.attention, measured.trained_tokens > job.total_steps * 8 * 10) == ("sdpa", True)
    assert done.final_cost >= 0.5
    card = files["README.md"].decode()
    assert "What is" not in card
    assert "US dollars" in card
    # It is of no repository, so that nobody is sent to one.
    assert "huggingface.co" not in card
    assert 'from_pretrained("path/to/demo-tiny")' in card
    assert json.loads(files["adapter_config.json"])["r"] == hyperparameters["rank"]
    assert json.loads(files["training_args.json"])["max_steps"] == job.total_steps


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
    """Two processes train a job of two GPUs in the estimated steps, and resume from a checkpoint."""
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
    """QLoRA without a GPU fails with the reason before training, without a retry."""
    job = await queue(stack, method="TRAINING_METHOD_QLORA")
    async with trainer(stack, tmp_path / "trainer", models, "--once"):
        failed = await until(stack, job, is_final)
    assert (failed.status, failed.status_reason) == (jobs_pb2.JOB_STATUS_FAILED, jobs_pb2.STATUS_REASON_NOT_SUPPORTED)
    assert "QLoRA needs a GPU" in failed.error_message
    assert failed.attempt == 1


async def test_validation_chooses_the_best_state(stack: Stack, models: Path, tmp_path: Path) -> None:
    """Samples are held out, eval loss is reported after each epoch, and the result has the best step."""
    job = await queue(stack, validation_fraction=0.1)
    assert job.total_steps == 2 * -(-(48 - 20) // 8)
    async with trainer(stack, tmp_path / "trainer", models, "--once"):
        done = await until(stack, job, is_final)
    assert done.status == jobs_pb2.JOB_STATUS_COMPLETED, done.error_message
    losses = await losses_of(stack, job, "eval_loss")
    assert len(losses) == 2
    assert done.result_step == min(losses, key=lambda step: losses[step])


async def test_a_validation_dataset_ends_training_early(stack: Stack, models: Path, tmp_path: Path) -> None:
    """All samples are trained on, and training ends with the best step once the validation loss rises."""
    pairs = [("What is the sum?", f"zq{n} wx{n} vk{n}") for n in range(20)]
    validation = await import_rows(stack, [{"prompt": prompt, "completion": text} for prompt, text in pairs])
    options = {"validation_dataset_id": validation.id, "early_stopping_patience": 1}
    job = await queue(stack, hyperparameters={"epochs": 8, "rank": 64, "alpha": 512.0}, **options)
    assert job.total_steps == 8 * STEPS / 2
    async with trainer(stack, tmp_path / "trainer", models, "--once"):
        done = await until(stack, job, is_final)
    assert done.status == jobs_pb2.JOB_STATUS_COMPLETED, done.error_message
    losses = await losses_of(stack, job, "eval_loss")
    last, best = max(losses), min(losses, key=lambda step: losses[step])
    assert (done.result_step, best < last < job.total_steps) == (best, True)
    assert losses[last] > losses[best]
    assert "| Validation dataset | Rows |" in (await files_of(stack, done))["README.md"].decode()


async def test_any_command_may_train(stack: Stack, models: Path, tmp_path: Path) -> None:
    """The training program in docs/trainers.md reports and completes a job."""
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

"""The supervisor, with test programs as training processes."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pipeline.jobs.v1 import jobs_pb2

from estimator_service.catalogue.model import read_catalogue
from estimator_service.settings import EstimatorSettings
from tests.conftest import Stack, TestDatabase, open_stack, token
from tests.jobs_service.trainers import TRAINER, get, lease
from tests.trainer.train.trainings import REPOSITORY, files_of, is_final, log_of, queue, trainer, until, write_token
from trainer.__main__ import add_arguments, run
from trainer.client import Trainer, TrainerError
from trainer.dispatcher.engine import write_lease
from trainer.settings import TrainerSettings
from trainer.supervisor import supervisor
from trainer.supervisor.gpus import TYPES, type_of

CHILD = """
import json, os, pathlib

task = json.loads(pathlib.Path(os.environ["PIPELINE_TASK"]).read_text())
pipe = open(os.environ["PIPELINE_REPORTS"], "w", buffering=1)
folder = pathlib.Path(task["work_dir"]) / "result"
folder.mkdir()
(folder / "adapter_model.safetensors").write_bytes(b"weights")


def send(line):
    print(line if isinstance(line, str) else json.dumps(line), file=pipe)


"""
NONSENSE = """
for line in (
    "no JSON", "[1, 2]", "{}", '{"values": 3}', '{"values": {"loss": NaN, "big": 1e999}, "step": 1e400}',
    {"checkpoint": {"uri": "s3://" + "u" * 5_000, "step": 1}}, {"checkpoint": {"uri": "s3://c", "step": 2**80}},
    {"checkpoint": 7}, {"result": "none"}, {"result": {"folder": "x", "step": "two", "max_steps": 2}}, {"error": 5},
    {"pid": "none"}, {"pid": 1e999}, {"step": -5, "of": 0, "epoch": -1e300, "lines": "one", "stage": ["x"]},
):
    send(line)
send({"step": 1, "of": 2, "values": {"loss": 1.5}})
send({"result": {
    "folder": str(folder), "step": 2, "max_steps": 2, "result_step": -4,
    "values": {"train_loss": float("inf"), "score": 0.5},
    "measurements": {
        "tokens_per_second": 0, "trained_tokens": 2**80, "load_seconds": -1, "train_seconds": "long", "eval_seconds": 1e300,
        "peak_memory_gib": float("nan"), "longest_sequence": 1.5, "stack": {"torch": "x" * 65}, "invented": 1,
        "checkpoint_seconds": 2.5,
    },
}})
"""


NVML_NAMES = {
    "NVIDIA A100-SXM4-80GB": "A100-80GB",
    "NVIDIA A100 80GB PCIe": "A100-80GB",
    "NVIDIA A100-PCIE-40GB": "A100-40GB",
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H200": "H200",
    "NVIDIA B200": "B200",
    "Tesla V100-SXM2-32GB": "V100-32GB",
    "NVIDIA L4": "L4",
    "NVIDIA L40S": "L40S",
    "NVIDIA A10G": "A10G",
    "NVIDIA GeForce RTX 4090": "RTX-4090",
    **dict.fromkeys(
        ["NVIDIA GH200 480GB", "NVIDIA GB200", "NVIDIA GeForce RTX 4090 Laptop GPU", "Tesla V100-SXM2-16GB", "Tesla T4"]
    ),
}


@pytest.mark.parametrize("name", NVML_NAMES)
def test_gpus_are_offered_as_the_catalogue_names_them(name: str) -> None:
    """NVML's names map to the catalogue's types, and those of other GPUs to none."""
    catalogue = read_catalogue(EstimatorSettings.model_fields["catalogue_file"].default)
    assert type_of(name) == NVML_NAMES[name]
    assert NVML_NAMES[name] in (None, *catalogue.by_type_for_models)


def test_every_type_of_the_catalogue_is_detected() -> None:
    """The names that GPUs are offered by are the catalogue's, all of them and no others."""
    catalogue = read_catalogue(EstimatorSettings.model_fields["catalogue_file"].default)
    assert {type_ for _, type_ in TYPES} == set(catalogue.by_type_for_models)


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path, jobs_overrides: dict[str, Any]) -> AsyncIterator[Stack]:
    """The services over gRPC."""
    async with open_stack("grpc", database.url, tmp_path, **jobs_overrides) as opened:
        yield opened


def child(folder: Path, code: str) -> tuple[Path, str]:
    """A folder of base models, and the command of a training process that runs `code`."""
    model = folder / "models" / "demo-tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (folder / "child.py").write_text(CHILD + textwrap.dedent(code))
    return model.parent, f"{sys.executable} {folder / 'child.py'}"


async def test_nothing_that_a_training_process_sends_costs_its_result(stack: Stack, tmp_path: Path) -> None:
    """Cases 40, 44: invalid messages and values are logged or left out, and the job completes."""
    models, command = child(tmp_path, NONSENSE)
    job = await queue(stack)
    async with trainer(stack, tmp_path / "trainer", models, "--once", TRAINER_COMMAND=command) as process:
        done = await until(stack, job, is_final)
        assert await process.wait() == 0
    assert set(await files_of(stack, done)) == {"adapter_model.safetensors"}
    assert done.measurements.checkpoint_seconds == 2.5
    assert [field.name for field, _ in done.measurements.ListFields()] == ["checkpoint_seconds"]
    assert not done.HasField("result_step")
    assert (done.current_metrics["loss"], done.current_metrics["score"]) == (1.5, 0.5)
    lines = await log_of(stack, job)
    assert {"no JSON", "loss is nan", "one"} <= set(lines)
    assert sum("a checkpoint is not recorded" in line for line in lines) == 2


def test_a_command_that_is_not_there_is_named_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer whose training command does not exist leases no job."""
    monkeypatch.setenv("PIPELINE_TRAINER_COMMAND", "no-such-program --flag")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(TrainerError, match="no program no-such-program here"):
        run(parser.parse_args(["--address", "localhost:1", "--token-file", str(write_token(tmp_path))]))


def test_a_malformed_lease_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer with a malformed PIPELINE_TRAINER_LEASE ends with a line that does not contain it."""
    monkeypatch.setenv("PIPELINE_TRAINER_COMMAND", "true")
    monkeypatch.setenv("PIPELINE_TRAINER_LEASE", '{"job_id": "s3cret')
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(["--address", "localhost:1", "--token-file", str(write_token(tmp_path))])
    with pytest.raises(TrainerError, match="PIPELINE_TRAINER_LEASE is malformed") as caught:
        run(arguments)
    assert "s3cret" not in str(caught.value)


@pytest.mark.slow
async def test_files_of_killed_trainers_are_removed(stack: Stack, tmp_path: Path) -> None:
    """A trainer removes the files of killed trainers, and not those of running ones."""
    models, hangs = child(tmp_path / "hangs", "send({'step': 1, 'of': 2})\nos.read(os.pipe()[0], 1)")
    _, completes = child(tmp_path / "completes", "send({'result': {'folder': str(folder), 'step': 1, 'max_steps': 1}})")
    work = tmp_path / "work"

    def folders() -> set[Path]:
        return {each for each in work.iterdir() if each.is_dir()}

    async def hanging(name: str) -> asyncio.subprocess.Process:
        job = await queue(stack)
        options = {"TRAINER_COMMAND": hangs, "TRAINER_WORK_DIR": work}
        process = await opened.enter_async_context(trainer(stack, tmp_path / name, models, **options))
        await until(stack, job, lambda job: job.current_step > 0)
        return process

    async with AsyncExitStack() as opened:
        await hanging("living")
        kept = folders()
        killed = await hanging("killed")
        killed.kill()
        await killed.wait()
        assert len(folders() - kept) == 1
        job = await queue(stack)
        (leased,) = await lease(stack)
        options = {"TRAINER_COMMAND": completes, "TRAINER_WORK_DIR": work, "TRAINER_LEASE": write_lease(leased)}
        async with trainer(stack, tmp_path / "third", models, **options) as process:
            assert await process.wait() == 0
        assert (await get(stack, job.id)).status == jobs_pb2.JOB_STATUS_COMPLETED
        assert folders() == kept


@pytest.mark.slow
async def test_a_result_that_is_not_there_fails_its_job_alone(stack: Stack, tmp_path: Path) -> None:
    """The attempt fails with the folder's name, and the trainer leases the next job."""
    code = """
    send({"result": {"folder": "/nowhere", "step": 1, "max_steps": 1}})
    """
    models, command = child(tmp_path, code)
    job = await queue(stack)
    async with trainer(stack, tmp_path / "trainer", models, TRAINER_COMMAND=command):
        failed = await until(stack, job, is_final)
    assert (failed.status, failed.attempt) == (jobs_pb2.JOB_STATUS_FAILED, 3)
    assert failed.error_message == "The training's result is missing: /nowhere."
    assert (await get(stack, job.id)).current_cost < 1


async def test_a_result_waits_for_no_process_that_does_not_end(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training process that continues after its result, as torchrun does for a lost node, is killed."""
    monkeypatch.setattr(supervisor, "END_SECONDS", 0.1)
    code = """
    send({"result": {"folder": str(folder), "step": 1, "max_steps": 1}})
    os.read(os.pipe()[0], 1)
    """
    models, command = child(tmp_path, code)
    job = await queue(stack)
    (leased,) = await lease(stack)
    settings = TrainerSettings(trainer_command=command, models_dir=models, trainer_work_dir=tmp_path / "work")
    with Trainer(stack.jobs_address, token(TRAINER, role="worker"), gpus={}, name="tests") as client:
        training = supervisor.Supervisor(client, settings, lambda *_: None)
        await asyncio.to_thread(training.run_one, client.resume(leased))
    assert (await get(stack, job.id)).status == jobs_pb2.JOB_STATUS_COMPLETED


@pytest.mark.slow
async def test_a_training_process_has_no_token(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable with a token or a lease reaches the training process, not even Ray's copy."""
    for name in ("PIPELINE_TRAINER_TOKEN", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.setenv(name, "s3cret of " + name)
    code = """
    send({"step": 1, "of": 1, "lines": ["environment", *(value for value in os.environ.values() if "s3cret" in value)]})
    send({"result": {"folder": str(folder), "step": 1, "max_steps": 1}})
    """
    models, command = child(tmp_path, code)
    job = await queue(stack)
    async with trainer(stack, tmp_path / "trainer", models, "--once", TRAINER_COMMAND=command):
        await until(stack, job, is_final)
    lines = await log_of(stack, job)
    assert "environment" in lines
    assert not [line for line in lines if "s3cret" in line]


@pytest.mark.slow
@pytest.mark.parametrize("jobs_overrides", [{"max_artifact_bytes": 6}])
async def test_a_result_that_is_too_large_fails_its_job_at_once(stack: Stack, tmp_path: Path) -> None:
    """A result above the service's limit fails its job without a retry."""
    code = """
    send({"step": 1, "of": 1})
    send({"result": {"folder": str(folder), "step": 1, "max_steps": 1}})
    """
    models, command = child(tmp_path, code)
    job = await queue(stack)
    async with trainer(stack, tmp_path / "trainer", models, TRAINER_COMMAND=command):
        failed = await until(stack, job, is_final)
    assert (failed.status, failed.attempt) == (jobs_pb2.JOB_STATUS_FAILED, 1)
    assert "ARTIFACT_TOO_LARGE" in failed.error_message


@pytest.mark.slow
async def test_a_checkpoint_url_with_a_password_stops_the_start() -> None:
    """A checkpoint URL with a password is refused at start, in a line without the password."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trainer", "--simulate",
        env={**os.environ, "PIPELINE_CHECKPOINT_URL": "sftp://pipeline:s3cret@files/checkpoints"},
        cwd=REPOSITORY, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, output = await process.communicate()
    assert process.returncode == 2
    assert output.startswith(b"configuration: PIPELINE_CHECKPOINT_URL: it has a password")
    assert b"s3cret" not in output

"""`make train-demo`: queues a small job on the tiny model in the running stack, and trains it for real on this machine."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import orjson
from pipeline.estimator.v1 import estimator_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.jobs.v1.jobs_pb2_grpc import JobsServiceStub

from deploy.importing import import_file
from deploy.local.processes import SetupError
from deploy.local.running import Running, read
from deploy.local.trainer import run
from deploy.settings import LocalSettings
from rpc.process.settings import load
from trainer.__main__ import add_arguments

NAME = "Demo of a real training"
# Sums of two numbers below LARGEST: short and so regular that a tiny model learns to write them in a minute.
SAMPLES, LARGEST = 400, 40
GPU = "A100-80GB"
HYPERPARAMETERS = estimator_pb2.Hyperparameters(
    batch_size=8, epochs=3, learning_rate=1e-3, rank=64, alpha=256.0, dropout=0.05
)
TRAINING = estimator_pb2.TrainingOptions(
    validation_fraction=0.1, target_modules=["all-linear"], activation_checkpointing=False
)
CALL_SECONDS = 30.0


def main() -> int:
    """Returns the exit code: 2 for an error that the caller has to fix."""
    settings = load(LocalSettings)
    models = settings.local_dir / "models"
    try:
        running = read(settings.local_dir)
        if running is None or running.issuer is None:
            raise SetupError("no stack with the development issuer is running: start one with `make up`")
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        issuer = running.issuer
        if not (models / "demo-tiny" / "config.json").exists():
            run(parser.parse_args(["--demo-model", str(models)]), running, lambda: issuer)
        job_id = asyncio.run(queue_job(running, settings.local_dir))
        print(
            f"Watch it train and download the result (Ctrl-C ends the trainer): {running.gateway}/training/jobs/{job_id}"
        )
        run(parser.parse_args(["--models", str(models), "--gpus", f"{GPU}=1"]), running, lambda: issuer)
    except SetupError as error:
        print(f"train-demo: {error}", file=sys.stderr)
        return 2
    return 0


def rows() -> Iterator[dict[str, Any]]:
    """Yields the samples: sums in a fixed, random order."""
    pairs = list(itertools.product(range(LARGEST), repeat=2))
    for one, other in random.Random(0).sample(pairs, SAMPLES):  # noqa: S311 - no secret
        question, answer = f"What is {one} plus {other}?", f"{one} plus {other} is {one + other}."
        yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


async def queue_job(running: Running, folder: Path) -> str:
    """Imports a small dataset for the demo user and queues a job on it; returns the job's id. Raises SetupError."""
    assert running.issuer is not None
    token = running.issuer.open().token(seconds=300)
    file = folder / "train-demo.jsonl"
    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows()))
    dataset = await import_file(running.jobs, token, file, name=NAME)
    request = jobs_pb2.CreateJobRequest(
        dataset_id=dataset.id,
        preset_id=estimator_pb2.PRESET_ID_CUSTOM,
        gpu_config=estimator_pb2.GpuConfig(type=GPU, count=1),
        hyperparameters=HYPERPARAMETERS,
        base_model="demo-tiny",
        training=TRAINING,
    )
    try:
        async with grpc.aio.insecure_channel(running.jobs) as channel:
            metadata = [("authorization", f"Bearer {token}")]
            response = await JobsServiceStub(channel).CreateJob(request, metadata=metadata, timeout=CALL_SECONDS)
            return response.job.id
    except grpc.aio.AioRpcError as error:
        raise SetupError(f"the Jobs service at {running.jobs} says {error.code().name}: {error.details()}") from error


if __name__ == "__main__":
    sys.exit(main())

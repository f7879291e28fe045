"""Makes the task of a training process from a lease."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.estimator.v1 import estimator_pb2
from pipeline.workers.v1 import workers_pb2

from trainer.settings import TrainerSettings
from trainer.task import Options, Task

HUB = "huggingface.co/"


class UnsupportedJob(Exception):
    """A job that the contract allows and this trainer cannot train."""


def options_of(lease: workers_pb2.Lease) -> Options:
    """Returns the options of the estimated plan, with the hyperparameters of the job."""
    plan, hyperparameters = lease.plan, lease.hyperparameters
    training = plan.training

    def enum_name(enum: object, value: int, prefix: str) -> str:
        return str(enum.Name(value)).removeprefix(prefix).lower()  # type: ignore[attr-defined] # a generated enum

    defaults = Options()
    return Options(
        method=enum_name(estimator_pb2.TrainingMethod, training.method, "TRAINING_METHOD_")
        if training.method
        else "lora",
        sequence_length=training.sequence_length or None,
        gradient_accumulation=training.gradient_accumulation or 1,
        precision=enum_name(estimator_pb2.Precision, training.precision, "PRECISION_")
        if training.precision
        else "bf16",
        activation_checkpointing=training.activation_checkpointing
        if training.HasField("activation_checkpointing")
        else True,
        packing=training.packing,
        target_modules=tuple(training.target_modules) or defaults.target_modules,
        fused_kernels=training.stack == estimator_pb2.SOFTWARE_STACK_TUNED,
        validation_fraction=training.validation_fraction,
        early_stopping_patience=training.early_stopping_patience or None,
        seed=training.seed if training.HasField("seed") else defaults.seed,
        learning_rate=hyperparameters.learning_rate,
        epochs=hyperparameters.epochs,
        batch_size=plan.batch_size or hyperparameters.batch_size,
        rank=hyperparameters.rank,
        alpha=hyperparameters.alpha or 2.0 * hyperparameters.rank,
        dropout=hyperparameters.dropout,
    )


def task_of(
    lease: workers_pb2.Lease, settings: TrainerSettings, work_dir: Path, dataset: Path, validation: Path | None
) -> Task:
    """Returns the task of a lease. `dataset` and `validation`: the downloaded files. Raises UnsupportedJob."""
    plan = lease.plan
    if not plan.base_model:
        raise UnsupportedJob("The job's estimate does not say which base model to train; create it again.")
    checkpoints = f"{settings.checkpoint_url.rstrip('/')}/{lease.job_id}"
    return Task(
        job_id=lease.job_id,
        attempt=lease.attempt,
        dataset_name=lease.dataset.name,
        dataset_file=str(dataset),
        dataset_sha256=_sha256(dataset),
        total_pairs=lease.dataset.total_training_pairs or None,
        total_tokens=lease.dataset.total_tokens or None,
        base_model=plan.base_model,
        model=find_model(plan, settings),
        options=options_of(lease),
        total_steps=lease.total_steps,
        is_reference=not lease.base_model,
        gpu_type=lease.gpu_config.type,
        gpu_count=lease.gpu_config.count,
        checkpoint_url=checkpoints,
        checkpoint_seconds=settings.checkpoint_seconds,
        work_dir=str(work_dir),
        checkpoint=lease.checkpoint.uri if lease.HasField("checkpoint") else None,
        may_download=settings.trainer_download,
        source=plan.source.removeprefix(HUB) if plan.source.startswith(HUB) else "",
        validation_file=str(validation) if validation else None,
        validation_name=lease.validation_dataset.name,
        validation_sha256=_sha256(validation) if validation else None,
        validation_pairs=lease.validation_dataset.total_training_pairs or None,
        validation_tokens=lease.validation_dataset.total_tokens or None,
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def find_model(plan: estimator_pb2.TrainingPlan, settings: TrainerSettings) -> str:
    """Returns the model's folder in `PIPELINE_MODELS_DIR`, else its repository on the hub. Raises UnsupportedJob."""
    if settings.models_dir is not None and (settings.models_dir / plan.base_model / "config.json").exists():
        return str((settings.models_dir / plan.base_model).absolute())
    if not plan.source.startswith(HUB):
        raise UnsupportedJob(
            f"This trainer has no base model {plan.base_model}: make it with `pipeline trainer --demo-model DIR`, "
            "and start the trainer with `--models DIR`."
        )
    return plan.source.removeprefix(HUB)

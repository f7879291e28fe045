"""The task of a training process: a JSON file that the supervisor writes and the training process reads. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

# Environment variables of a training process.
TASK_VARIABLE, REPORTS_VARIABLE = "PIPELINE_TASK", "PIPELINE_REPORTS"

METHODS = ("lora", "qlora", "full")
PRECISIONS = ("bf16", "fp16", "fp8")
# Modules of an attention layer, by the names that most model families use.
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Options:
    """How a base model is trained, with all defaults filled in. `sequence_length` None: samples are not cut."""

    method: str = "lora"
    sequence_length: int | None = None
    gradient_accumulation: int = 1
    precision: str = "bf16"
    activation_checkpointing: bool = True
    packing: bool = False
    target_modules: tuple[str, ...] = ATTENTION
    fused_kernels: bool = False
    validation_fraction: float = 0.0
    early_stopping_patience: int | None = None
    seed: int = 42
    learning_rate: float = 5e-5
    epochs: int = 1
    batch_size: int = 1
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0


@dataclass(frozen=True)
class Task:
    """One attempt at a job.

    `model` is a folder or a repository of the Hugging Face hub. `total_steps`: optimizer steps of the job; with `is_reference`
    those of the reference estimate, to which the training's own steps are mapped. `checkpoint_url` is the fsspec URL of the
    job's checkpoints, `checkpoint` the newest one that an earlier attempt reported. `source` is the base model's repository on
    the hub; empty without one. `validation_file` and `validation_name`: the dataset to validate with.
    """

    job_id: str
    attempt: int
    dataset_name: str
    dataset_file: str
    dataset_sha256: str
    total_pairs: int | None
    total_tokens: int | None
    base_model: str
    model: str
    options: Options
    total_steps: int
    is_reference: bool
    gpu_type: str
    gpu_count: int
    checkpoint_url: str
    checkpoint_seconds: float
    work_dir: str
    checkpoint: str | None = None
    may_download: bool = False
    source: str = ""
    validation_file: str | None = None
    validation_name: str = ""
    validation_sha256: str | None = None
    validation_pairs: int | None = None
    validation_tokens: int | None = None

    def write(self, file: Path) -> None:
        """Writes the task as JSON."""
        file.write_bytes(TASK.dump_json(self, indent=2))

    @staticmethod
    def read(file: Path) -> Task:
        """Reads a task that `write` wrote."""
        return TASK.validate_json(file.read_bytes())

    @property
    def identity(self) -> dict[str, Any]:
        """Properties that a checkpoint must have to be resumed from."""
        return {
            "base_model": self.base_model,
            "dataset_sha256": self.dataset_sha256,
            "validation_sha256": self.validation_sha256,
            "rank": self.options.rank if self.options.method != "full" else None,
            "world_size": self.gpu_count,
            "options": json.loads(json.dumps(asdict(self.options))),
        }

    @property
    def result_dir(self) -> Path:
        """The folder of the result's files."""
        return Path(self.work_dir) / "result"


TASK = TypeAdapter(Task)

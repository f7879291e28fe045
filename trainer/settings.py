"""Settings of a trainer, from `PIPELINE_…` variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, FilePath, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class TrainerSettings(BaseSettings):
    """What `pipeline trainer` and `python -m trainer` read. Flags of the command line come first."""

    model_config = SettingsConfigDict(env_prefix="PIPELINE_", frozen=True, extra="ignore")

    jobs_address: str = Field("", description="Where a trainer reaches the Jobs service: HOST:PORT.")
    trainer_token_file: Path | None = Field(
        None, description="File with a trainer's token of the role `worker`, read again for each call."
    )
    trainer_token: SecretStr | None = Field(None, description="A trainer's token itself, where there is no file.")
    trainer_name: str = Field("", max_length=100, description="Name of a trainer, for people. Default: the host's.")
    trainer_command: str = Field(
        "", description="Command that trains in place of ours: see docs/trainers.md. Split as a shell would."
    )
    trainer_download: bool = Field(
        False, description="Whether a trainer may download base models from the Hugging Face hub."
    )
    trainer_work_dir: Path = Field(
        Path(".pipeline/trainer"), description="Where a trainer keeps the files of the job that it trains."
    )
    trainer_stall_seconds: float = Field(
        1_800, ge=1, description="Time without a message after which a training process counts as hanging, seconds."
    )
    trainer_stop_seconds: float = Field(
        300, ge=1, description="Time that a training process gets at SIGTERM to save a checkpoint, seconds."
    )
    trainer_transfer_seconds: float = Field(
        1_800, ge=1, description="Time that the transfer of a dataset or of a result's file is repeated for, seconds."
    )
    models_dir: Path | None = Field(
        None, description="Folder with a base model in each folder, named as the catalogue does."
    )
    checkpoint_url: str = Field(
        "file://.pipeline/checkpoints",
        pattern="^[a-z0-9]+://",
        description="Where trainers keep checkpoints: an fsspec URL, the same for all trainers that share jobs.",
    )
    checkpoint_seconds: float = Field(
        60, ge=0, description="Time between checkpoints, at least, seconds; and never less than 2 % of the training."
    )
    tls_ca_file: FilePath | None = Field(
        None, description="Whose certificates are believed, PEM. With it, the Jobs service is reached over TLS."
    )

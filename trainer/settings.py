"""Settings of a trainer, from `PIPELINE_…` variables."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rpc.process.settings import ProcessSettings, TlsSettings

LEASE_VARIABLE = "PIPELINE_TRAINER_LEASE"


class TrainerSettings(TlsSettings):
    """Settings of `pipeline trainer` and `python -m trainer`. Command-line options take precedence."""

    jobs_address: str = Field("", description="Where a trainer reaches the Jobs service: HOST:PORT.")
    trainer_token_file: Path | None = Field(
        None, description="File with a trainer's token of the role `worker`, read again for each call."
    )
    trainer_token: SecretStr | None = Field(None, description="A trainer's token itself, where there is no file.")
    trainer_lease: SecretStr | None = Field(
        None, description="A lease as JSON, set by a dispatcher: the trainer trains this one and ends."
    )
    trainer_name: str = Field("", max_length=100, description="Display name of a trainer. Default: the host's name.")
    trainer_command: str = Field(
        "", description="Command that trains instead of `trainer.train`: see docs/trainers.md. Split as a shell would."
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
        1_800,
        ge=1,
        description="Time for which a failed transfer of a dataset or of a result's file is repeated, seconds.",
    )
    models_dir: Path | None = Field(
        None, description="Folder with a folder for each base model, of its name in the catalogue."
    )
    checkpoint_url: str = Field(
        "file://.pipeline/checkpoints",
        pattern="^[a-z0-9]+://",
        description="Where trainers keep checkpoints: an fsspec URL, the same for all trainers that share jobs.",
    )
    checkpoint_seconds: float = Field(
        60, ge=0, description="Smallest time between checkpoints, seconds; it is also at least 2 % of the training."
    )

    @property
    def token(self) -> Path | str | None:
        """The file with the trainer's token, or the token itself; None if neither is set."""
        secret = self.trainer_token.get_secret_value() if self.trainer_token is not None else None
        return self.trainer_token_file or secret

    @field_validator("checkpoint_url")
    @classmethod
    def _no_password(cls, url: str) -> str:
        if urlsplit(url).password is not None:
            raise ValueError(
                "it has a password, which errors and leases would show: give it to fsspec by itself, "
                "as FSSPEC_SFTP_PASSWORD for example"
            )
        return url


class NodeSettings(BaseSettings):
    """Number of nodes of a training and of this node, which Kubeflow Trainer sets for torchrun: `PET_…` variables."""

    model_config = SettingsConfigDict(env_prefix="PET_", frozen=True, extra="ignore")

    nnodes: int = Field(1, ge=1, description="Nodes of the training whose lease this trainer was given.")
    node_rank: int = Field(0, ge=0, description="Number of this node, from 0. Only node 0 reports.")


class DispatcherSettings(TrainerSettings, ProcessSettings):
    """Settings of `pipeline dispatcher`, in addition to those of a trainer."""

    dispatcher_name: str = Field(
        "pipeline",
        pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Name of a dispatcher: two that share a namespace or a Ray cluster need two names.",
    )
    dispatcher_poll_seconds: float = Field(
        5, ge=0.05, le=60, description="Seconds between a dispatcher's passes over the cluster."
    )
    dispatcher_start_seconds: float = Field(
        1_200,
        ge=1,
        description="Time from placement on the cluster to the first report, including the pull of the image, seconds.",
    )
    dispatcher_gpu_types: dict[str, str] = Field(
        {},
        description='GPU types by the cluster\'s names for them (values of labels), as JSON: {"a100-spot": "A100-80GB"}.',
    )
    kubernetes_namespace: str = Field(
        "", max_length=63, description="Namespace of TrainJobs. Default: the dispatcher's own, or the context's."
    )
    kubernetes_queue: str = Field(
        "",
        max_length=63,
        description="Kueue's LocalQueue for TrainJobs. Empty: without Kueue, by the nodes' free GPUs.",
    )
    kubernetes_runtime: str = Field(
        "pipeline-trainer", max_length=63, description="ClusterTrainingRuntime that TrainJobs refer to."
    )
    kubernetes_gpus_per_node: int = Field(
        8,
        ge=1,
        le=16,
        description="Assumed GPUs of a node if the cluster has none of the type yet, as with an autoscaler.",
    )
    kubernetes_nodes_per_job: int = Field(
        8, ge=1, le=16, description="Most nodes of a job. It gets the fewest nodes that have its GPUs."
    )
    ray_variables: dict[str, str] = Field(
        {},
        description="Environment of trainings on a Ray cluster, as JSON. Every user of the cluster can read it.",
    )

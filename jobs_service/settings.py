"""Settings of the Jobs process, from `PIPELINE_…` variables."""

from __future__ import annotations

from pydantic import Field, SecretStr

from rpc.settings import CommonSettings, DatabaseSettings


class JobsSettings(CommonSettings, DatabaseSettings):
    """What `python -m jobs_service` needs."""

    jobs_port: int = Field(50052, ge=0, le=65535, description="Port of the Jobs server. 0: any free one.")
    estimator_address: str = Field("127.0.0.1:50051", min_length=1, description="Where the Estimator listens.")
    storage_url: str = Field(
        "file://.pipeline/storage", pattern="^[a-z0-9]+://", description="Where datasets are kept: an fsspec URL."
    )
    max_dataset_bytes: int = Field(1 << 30, ge=1, description="Largest file that ImportDataset takes, bytes.")


class MigrateSettings(DatabaseSettings):
    """What `python -m jobs_service migrate` needs. Its database URL is an administrator's."""

    service_password: SecretStr = Field(min_length=12, description="Password that `pipeline_service` gets.")

"""Settings of the Jobs process, from `PIPELINE_…` variables."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator

from rpc.settings import CommonSettings, DatabaseSettings


class JobsSettings(CommonSettings, DatabaseSettings):
    """What `python -m jobs_service` needs."""

    jobs_port: int = Field(50052, ge=0, le=65535, description="Port of the Jobs server. 0: any free one.")
    estimator_address: str = Field("127.0.0.1:50051", min_length=1, description="Where the Estimator listens.")
    storage_url: str = Field(
        "file://.pipeline/storage", pattern="^[a-z0-9]+://", description="Where datasets are kept: an fsspec URL."
    )
    lease_ms: int = Field(30_000, ge=50, le=3_600_000, description="Milliseconds that a lease lasts after each report.")
    renew_ms: int = Field(10_000, ge=10, le=1_200_000, description="Milliseconds after which a trainer reports again.")
    max_attempts: int = Field(3, ge=1, le=20, description="Attempts after which a job fails.")
    sweep_ms: int = Field(
        1_000, ge=10, le=60_000, description="Milliseconds between looks for lost trainers and limits."
    )
    max_open_jobs: int = Field(1_000, ge=1, le=1_000_000, description="Jobs of a user that are not final, at most.")
    watch_poll_ms: int = Field(100, ge=10, le=10_000, description="Milliseconds between looks for new events.")
    watch_ping_ms: int = Field(15_000, ge=50, le=60_000, description="Milliseconds between pings of a quiet watch.")
    event_retention_hours: int = Field(168, ge=1, le=87_600, description="Hours that reports of progress are kept.")
    max_dataset_bytes: int = Field(1 << 30, ge=1, description="Largest file that ImportDataset takes, bytes.")

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.renew_ms >= self.lease_ms:
            raise ValueError("PIPELINE_RENEW_MS must be less than PIPELINE_LEASE_MS")
        return self


class MigrateSettings(DatabaseSettings):
    """What `python -m jobs_service migrate` needs. Its database URL is an administrator's."""

    service_password: SecretStr = Field(min_length=12, description="Password that `pipeline_service` gets.")

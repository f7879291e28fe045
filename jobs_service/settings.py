"""Settings of the Jobs process, from `PIPELINE_…` variables."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from rpc.process.settings import CommonSettings, DatabaseSettings, PipelineSettings, ProcessSettings


def _ascii(password: SecretStr) -> SecretStr:
    # Other letters have several spellings, and Postgres and its clients must agree on one.
    if not password.get_secret_value().isascii():
        raise ValueError("must be ASCII")
    return password


# Logins of the database, without the prefix `pipeline_`.
Login = Literal["service", "estimator", "jobs", "webhooks"]
LoginPassword = Annotated[SecretStr, AfterValidator(_ascii)]


class WebhookAddressSettings(PipelineSettings):
    """Addresses that webhooks may have."""

    webhook_ports: frozenset[Annotated[int, Field(ge=1, le=65535)]] = Field(
        frozenset({443, 8443}), min_length=1, description="Ports that webhooks may go to, as JSON."
    )
    webhook_refused_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (),
        description='Networks that webhooks never go to beside all that are not public, as JSON: ["198.51.100.0/24"].',
    )
    webhook_allow_private: bool = Field(
        False,
        description="Lets webhooks go to any address and port, over http as well. For development, never for users.",
    )


class WebhookSenderSettings(ProcessSettings, DatabaseSettings, WebhookAddressSettings):
    """What `python -m jobs_service webhooks` needs: the database, and how requests are sent."""

    webhook_timeout_ms: int = Field(15_000, ge=50, le=60_000, description="Time that a webhook's receiver may take.")
    webhook_concurrency: int = Field(256, ge=2, le=10_000, description="Webhooks that a process sends at once.")
    webhook_poll_ms: int = Field(500, ge=10, le=60_000, description="Milliseconds between looks for webhooks to send.")
    webhook_back_off_seconds: tuple[Annotated[float, Field(ge=0.01, le=604_800)], ...] = Field(
        # The schedule that the Standard Webhooks specification gives as its example: a little over three days.
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        max_length=50,
        description="Seconds after which a webhook's delivery is tried again, each time, before it has failed; as JSON.",
    )
    webhook_disable_after_hours: float = Field(
        120, gt=0, le=8_760, description="Hours after which a webhook that always failed is disabled."
    )
    webhook_retention_hours: int = Field(720, ge=1, le=87_600, description="Hours that deliveries are kept.")


class JobsSettings(CommonSettings, DatabaseSettings, WebhookAddressSettings):
    """What `python -m jobs_service` needs."""

    jobs_port: int = Field(50052, ge=0, le=65535, description="Port of the Jobs server. 0: any free one.")
    estimator_address: str = Field("127.0.0.1:50051", min_length=1, description="Where the Estimator listens.")
    storage_url: str = Field(
        "file://.pipeline/storage",
        pattern="^[a-z0-9]+://",
        description="Where datasets and results are kept: an fsspec URL.",
    )
    signed_url_seconds: int = Field(
        300,
        ge=0,
        le=604_800,
        description="Seconds that signed URLs of results and datasets are valid, where the storage is S3. "
        "0: none are signed, for a storage that browsers and trainers cannot reach.",
    )
    lease_ms: int = Field(30_000, ge=50, le=3_600_000, description="Milliseconds that a lease lasts after each report.")
    renew_ms: int = Field(10_000, ge=10, le=1_200_000, description="Milliseconds after which a trainer reports again.")
    max_attempts: int = Field(3, ge=1, le=20, description="Attempts after which a job fails.")
    sweep_ms: int = Field(
        1_000, ge=10, le=60_000, description="Milliseconds between looks for lost trainers and limits."
    )
    gauges_ms: int = Field(
        10_000, ge=10, le=600_000, description="Milliseconds between readings of the queue's metrics."
    )
    max_open_jobs: int = Field(1_000, ge=1, le=1_000_000, description="Jobs of a user that are not final, at most.")
    watch_poll_ms: int = Field(100, ge=10, le=10_000, description="Milliseconds between looks for new events.")
    watch_ping_ms: int = Field(2_000, ge=50, le=60_000, description="Milliseconds between pings of a quiet watch.")
    event_retention_hours: int = Field(168, ge=1, le=87_600, description="Hours that reports of progress are kept.")
    max_artifact_bytes: int = Field(
        50 << 30, ge=1, description="Bytes that the files of a job's result may have together."
    )
    artifact_retention_days: int | None = Field(
        None, ge=1, le=36_500, description="Days after which the files of a result are deleted. Default: never."
    )
    max_dataset_bytes: int = Field(
        1 << 30, ge=1, description="Largest file that ImportDataset takes, bytes; decompressed too."
    )
    max_uploads: int = Field(64, ge=4, le=10_000, description="Uploads of datasets at once, at most.")
    max_uploads_per_user: int = Field(8, ge=1, le=1_000, description="Uploads of a user at once, at most.")
    upload_silence_ms: int = Field(
        60_000, ge=50, le=600_000, description="Milliseconds that an upload may send nothing before it is ended."
    )
    max_datasets_per_user: int = Field(1_000, ge=1, le=1_000_000, description="Datasets of a user, at most.")
    max_storage_bytes_per_user: int = Field(100 << 30, ge=1, description="Bytes of a user's dataset files, at most.")
    notification_retention_days: int = Field(365, ge=1, le=36_500, description="Days that notifications are kept.")
    max_api_keys_per_user: int = Field(20, ge=1, le=1_000, description="API keys of a user, at most.")
    webhook_max_per_user: int = Field(5, ge=1, le=100, description="Webhooks of a user, at most.")
    webhook_uses_per_hour: int = Field(
        300,
        ge=1,
        le=1_000_000,
        description="Webhooks that a user creates, changes, tests and redelivers in an hour, at most.",
    )

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.renew_ms >= self.lease_ms:
            raise ValueError("PIPELINE_RENEW_MS must be less than PIPELINE_LEASE_MS")
        return self


class MigrateSettings(DatabaseSettings):
    """What `python -m jobs_service migrate` needs. Its database URL is an administrator's."""

    estimator_password: LoginPassword | None = Field(
        None, min_length=12, description="Password that the Estimator's login `pipeline_estimator` gets, in ASCII."
    )
    jobs_password: LoginPassword | None = Field(
        None, min_length=12, description="Password that the Jobs server's login `pipeline_jobs` gets, in ASCII."
    )
    webhooks_password: LoginPassword | None = Field(
        None, min_length=12, description="Password that the login `pipeline_webhooks` gets, the sender's, in ASCII."
    )
    service_password: LoginPassword | None = Field(
        None,
        min_length=12,
        description="Password that `pipeline_service` gets, the login of `pipeline serve`, in ASCII.",
    )

    @model_validator(mode="after")
    def _some_login(self) -> Self:
        if not self.passwords:
            raise ValueError(
                "set PIPELINE_ESTIMATOR_PASSWORD, PIPELINE_JOBS_PASSWORD and PIPELINE_WEBHOOKS_PASSWORD, "
                "or PIPELINE_SERVICE_PASSWORD for `pipeline serve`"
            )
        return self

    @property
    def passwords(self) -> Mapping[Login, str]:
        """The passwords by login."""
        by_login: Mapping[Login, SecretStr | None] = {
            "estimator": self.estimator_password,
            "jobs": self.jobs_password,
            "webhooks": self.webhooks_password,
            "service": self.service_password,
        }
        return {login: password.get_secret_value() for login, password in by_login.items() if password is not None}

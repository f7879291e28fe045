"""Settings of the `pipeline` command, from `PIPELINE_…` variables, and the environment of the servers that it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from estimator_service.settings import EstimatorSettings
from gateway.settings import GatewaySettings
from jobs_service.settings import JobsSettings, WebhookSenderSettings
from rpc.process.logs import LogFormat
from rpc.process.settings import DatabaseSecret, PipelineSettings


class LocalSettings(PipelineSettings):
    """What every `pipeline` command reads: the local folder and the issuer of tokens."""

    local_dir: Path = Field(
        Path(".pipeline"), description="Folder of `pipeline up` for data, logs and generated secrets."
    )
    dev_issuer: bool = Field(
        False, description="Whether tokens are issued for any user without authentication. For development only."
    )
    jwt_secret: SecretStr | None = Field(None, description="Secret of an HS256 issuer; generated with the dev issuer.")
    jwt_issuer: str = Field("pipeline-dev", min_length=1, description="`iss` that tokens must have.")
    jwt_audience: str = Field("authenticated", min_length=1, description="`aud` that tokens must have.")


class UpSettings(LocalSettings):
    """What `pipeline up` needs: an issuer of tokens, or the development issuer."""

    host: str = Field("127.0.0.1", description="Address that servers listen on.")
    gateway_port: int = Field(8080, ge=0, le=65535, description="Port of the gateway. 0: any free one.")
    estimator_port: int = Field(50051, ge=0, le=65535, description="Port of the Estimator server. 0: any free one.")
    jobs_port: int = Field(50052, ge=0, le=65535, description="Port of the Jobs server. 0: any free one.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error.")
    log_format: LogFormat = Field("pretty", description="Format of the servers' logs: json or pretty.")
    database_url: DatabaseSecret | None = Field(
        None, description="Administrator's URL of a database to use instead of the embedded one."
    )
    storage_url: str | None = Field(
        None, description="Where datasets are kept. Default: `storage` in the local folder."
    )
    jwks_url: str | None = Field(None, description="Address of the key set of an issuer.")
    simulated_trainer: bool = Field(
        True, description="Whether `pipeline up` runs a simulated trainer, where the dev issuer is on."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.dev_issuer and not (self.jwt_secret or self.jwks_url):
            raise ValueError(
                "set PIPELINE_JWT_SECRET or PIPELINE_JWKS_URL, with PIPELINE_JWT_ISSUER, "
                "or PIPELINE_DEV_ISSUER=1 for development (`make up` sets it)"
            )
        return self


class DoctorSettings(LocalSettings):
    """What `pipeline doctor` reads. Without them it looks at the running stack."""

    database_url: SecretStr | None = Field(None, description="Administrator's URL of the database.")
    storage_url: str | None = Field(None, description="Where datasets and results are kept: an fsspec URL.")
    jwks_url: str | None = Field(None, description="Address of the key set of an issuer.")
    catalogue_file: Path = Field(EstimatorSettings.model_fields["catalogue_file"].default, description="GPU prices.")
    tls_certificate_file: Path | None = Field(None, description="Our certificate, PEM.")
    tls_ca_file: Path | None = Field(None, description="CA certificates, PEM.")


class CatalogueSettings(LocalSettings):
    """What `pipeline trainer` needs in addition to a trainer's own settings."""

    catalogue_file: Path = Field(
        EstimatorSettings.model_fields["catalogue_file"].default, description="GPU types that a trainer may offer."
    )


class ServeSettings(EstimatorSettings, JobsSettings, WebhookSenderSettings, GatewaySettings):
    """What `pipeline serve` needs: the settings of all servers and of the sender of webhooks."""


def plain(secret: SecretStr | None) -> str | None:
    """Returns the secret as text, None if there is none."""
    return None if secret is None else secret.get_secret_value()


def environment(**settings: object) -> Mapping[str, str]:
    """Returns the environment of this process with `settings` added, for a child process."""
    return os.environ | {f"PIPELINE_{name.upper()}": str(value) for name, value in settings.items()}

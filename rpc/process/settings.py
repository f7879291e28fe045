"""Settings that several processes share. `settings.py` of each process adds its own."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rpc.process.database_url import DatabaseUrl
from rpc.process.logs import LogFormat

# HS256 takes its strength from the secret: RFC 7518 §3.2 asks for at least the hash's 256 bits.
MIN_SECRET_BYTES = 32


def _database_url(url: SecretStr) -> SecretStr:
    DatabaseUrl.parse(url.get_secret_value())
    return url


# The URL of a database. It is secret because of its password.
DatabaseSecret = Annotated[SecretStr, AfterValidator(_database_url)]


class PipelineSettings(BaseSettings):
    """Settings that are read from variables which begin with PIPELINE_."""

    model_config = SettingsConfigDict(env_prefix="PIPELINE_", frozen=True, extra="ignore")


class LogSettings(PipelineSettings):
    """How a process logs."""

    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error.")
    log_format: LogFormat = Field("auto", description="auto, json or pretty.")


class TelemetrySettings(PipelineSettings):
    """Where a process serves metrics and sends traces."""

    metrics_host: str = Field("127.0.0.1", description="Address of /metrics; for Prometheus only, it needs no token.")
    metrics_port: int = Field(
        0, ge=-1, le=65_535, description="Port of /metrics; 0: any free one, which the log has; -1: none; +1 a worker."
    )
    otlp_endpoint: str | None = Field(
        None, pattern="^https?://", description="Where traces are sent, OTLP over gRPC; needs the extra `otel`."
    )
    trace_sample_ratio: float = Field(1.0, ge=0, le=1, description="Share of traces that begin here and are recorded.")


class ProcessSettings(LogSettings, TelemetrySettings):
    """Settings of every process: logs, metrics and traces."""


class TlsSettings(PipelineSettings):
    """Certificates, and the authorities that are trusted."""

    tls_certificate_file: FilePath | None = Field(
        None,
        description="Certificate, PEM with its chain: of gRPC servers, and of gRPC clients for servers that require one.",
    )
    tls_key_file: FilePath | None = Field(None, description="The key of that certificate, PEM.")
    tls_ca_file: FilePath | None = Field(
        None, description="Trusted certificate authorities, PEM. With it, gRPC clients use TLS."
    )

    @model_validator(mode="after")
    def _whole_key_pair(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("set both of PIPELINE_TLS_CERTIFICATE_FILE and PIPELINE_TLS_KEY_FILE, or none")
        if self.tls_certificate_file is not None and self.tls_key_file is not None:
            check_key_pair(self.tls_certificate_file, self.tls_key_file)
        return self


class CommonSettings(ProcessSettings, TlsSettings):
    """Settings of every server: the issuer of tokens, and limits."""

    host: str = Field("127.0.0.1", description="Address that servers listen on.")
    jwt_secret: SecretStr | None = Field(None, description="Secret of an HS256 issuer, at least 32 bytes.")
    jwt_previous_secret: SecretStr | None = Field(
        None, description="Previous secret, whose tokens are valid, too, while the secret is rotated."
    )
    jwks_url: str | None = Field(
        None, pattern="^https?://", description="Address of the key set of an RS256, ES256 or EdDSA issuer."
    )
    jwt_issuer: str = Field(min_length=1, description="`iss` that tokens must have.")
    jwt_audience: str = Field("authenticated", min_length=1, description="`aud` that tokens must have.")
    jwt_map_subjects: bool = Field(
        False,
        description="Whether a user's id is a UUID made from issuer and `sub` (version 5), for issuers such as Auth0, Okta "
        "and Entra, whose `sub` is not a UUID. Changing it changes the id of every user.",
    )
    max_connection_age_seconds: int = Field(
        300, ge=1, le=86_400, description="Age at which a gRPC server ends a connection; open calls are finished first."
    )
    max_concurrent_calls: int = Field(
        256,
        ge=1,
        le=100_000,
        description="Concurrent calls of a server; a user may have as many as are free for others.",
    )
    user_calls_per_second: float = Field(
        5_000, gt=0, description="Calls of a user that a server accepts a second; bursts may have twice as many."
    )
    max_watches: int = Field(
        2_000,
        ge=1,
        le=100_000,
        description="Open streams of all users in a server; a user may have as many as are free.",
    )
    max_watches_per_user: int = Field(50, ge=1, le=100_000, description="Open streams of a user in a server.")
    max_worker_watches: int = Field(
        2_000, ge=1, le=100_000, description="Open streams and waits of all trainers in a server."
    )
    default_timeout_ms: int = Field(
        10_000, ge=1, le=600_000, description="Longest deadline of a short call, and its default."
    )
    drain_seconds: float = Field(10.0, ge=0, le=20, description="Time that open calls have to finish after SIGTERM.")
    reflection: bool = Field(True, description="Whether gRPC servers offer reflection.")
    tls_require_client: bool = Field(
        False, description="Whether gRPC servers refuse clients without a certificate signed by PIPELINE_TLS_CA_FILE."
    )

    @model_validator(mode="after")
    def _one_issuer(self) -> Self:
        if (self.jwt_secret is None) == (self.jwks_url is None):
            raise ValueError("set one of PIPELINE_JWT_SECRET and PIPELINE_JWKS_URL")
        for secret in (self.jwt_secret, self.jwt_previous_secret):
            if secret is not None and len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
                name = "PIPELINE_JWT_SECRET" if secret is self.jwt_secret else "PIPELINE_JWT_PREVIOUS_SECRET"
                raise ValueError(f"{name} must be at least {MIN_SECRET_BYTES} bytes")
        if self.jwt_previous_secret is not None and self.jwt_secret is None:
            raise ValueError("PIPELINE_JWT_PREVIOUS_SECRET needs PIPELINE_JWT_SECRET")
        return self

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        if self.tls_require_client and (self.tls_certificate_file is None or self.tls_ca_file is None):
            raise ValueError("PIPELINE_TLS_REQUIRE_CLIENT needs a certificate, its key, and PIPELINE_TLS_CA_FILE")
        return self


class DatabaseSettings(PipelineSettings):
    """The database of a service."""

    database_url: DatabaseSecret = Field(description="URL of the database, as the service's own login.")
    database_pool_size: int = Field(10, ge=1, le=100, description="Largest number of connections of a process.")


def check_key_pair(certificate: Path, key: Path) -> None:
    """Raises ValueError unless the two files are a certificate and its key."""
    try:
        # A server cannot prompt for a passphrase.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{certificate} and {key} are not a certificate and its key: {error}") from None


Settings = TypeVar("Settings", bound=BaseSettings)


def load(settings: type[Settings]) -> Settings:
    """Reads settings from the environment. Prints all that are invalid in one line and exits with code 2."""
    try:
        return settings()
    except ValidationError as error:
        prefix = str(settings.model_config.get("env_prefix", ""))
        faults = [
            # The value itself stays out of the line: it may be a secret.
            f"{(prefix + '_'.join(map(str, fault['loc'])).upper() + ': ') if fault['loc'] else ''}"
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        print("configuration: " + "; ".join(faults), file=sys.stderr)  # noqa: T201 - logging is not set up yet
        raise SystemExit(2) from None

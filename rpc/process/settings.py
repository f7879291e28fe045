"""Settings that every process shares. Each process's own `settings.py` adds to them."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rpc.process.database_url import DatabaseUrl
from rpc.process.logs import LogFormat

# HS256 takes its strength from the secret: RFC 7518 §3.2 asks for at least the hash's 256 bits.
MIN_SECRET_BYTES = 32


class LogSettings(BaseSettings):
    """How a process logs."""

    model_config = SettingsConfigDict(env_prefix="PIPELINE_", frozen=True, extra="ignore")

    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error.")
    log_format: LogFormat = Field("auto", description="auto, json or pretty.")


class TelemetrySettings(BaseSettings):
    """Where a process shows its metrics and sends its traces."""

    model_config = SettingsConfigDict(env_prefix="PIPELINE_", frozen=True, extra="ignore")

    metrics_host: str = Field("127.0.0.1", description="Address of /metrics; for Prometheus only, it needs no token.")
    metrics_port: int = Field(
        0, ge=-1, le=65_535, description="Port of /metrics; 0: any free one, which the log has; -1: none; +1 a worker."
    )
    otlp_endpoint: str | None = Field(
        None, pattern="^https?://", description="Where traces are sent, OTLP over gRPC; needs the extra `otel`."
    )
    trace_sample_ratio: float = Field(1.0, ge=0, le=1, description="Share of traces that begin here and are recorded.")


class ProcessSettings(LogSettings, TelemetrySettings):
    """What every process of ours reads: how to log, and what to show of itself."""


class TlsSettings(BaseSettings):
    """Certificates, and whose are believed."""

    model_config = SettingsConfigDict(env_prefix="PIPELINE_", frozen=True, extra="ignore")

    tls_certificate_file: FilePath | None = Field(
        None,
        description="Our certificate, PEM with its chain: gRPC servers answer with it, calls show it to servers that ask.",
    )
    tls_key_file: FilePath | None = Field(None, description="The key of that certificate, PEM.")
    tls_ca_file: FilePath | None = Field(
        None, description="Whose certificates are believed, PEM. With it, calls to other services are made over TLS."
    )

    @model_validator(mode="after")
    def _whole_key_pair(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("set both of PIPELINE_TLS_CERTIFICATE_FILE and PIPELINE_TLS_KEY_FILE, or none")
        if self.tls_certificate_file is not None and self.tls_key_file is not None:
            check_key_pair(self.tls_certificate_file, self.tls_key_file)
        return self


class CommonSettings(ProcessSettings, TlsSettings):
    """Who issues tokens, how to log, and what a server takes at most."""

    host: str = Field("127.0.0.1", description="Address that servers listen on.")
    jwt_secret: SecretStr | None = Field(None, description="Secret of an HS256 issuer, at least 32 bytes.")
    jwt_previous_secret: SecretStr | None = Field(
        None, description="The secret before it: its tokens are valid too while the secret is rotated."
    )
    jwks_url: str | None = Field(
        None, pattern="^https?://", description="Address of the key set of an RS256, ES256 or EdDSA issuer."
    )
    jwt_issuer: str = Field(min_length=1, description="`iss` that tokens must have.")
    jwt_audience: str = Field("authenticated", min_length=1, description="`aud` that tokens must have.")
    jwt_map_subjects: bool = Field(
        False,
        description="Whether a user's id is a UUID made from issuer and `sub` (version 5), for issuers such as Auth0, Okta "
        "and Entra, whose `sub` is no UUID. To change it later makes every user another one.",
    )
    max_connection_age_seconds: int = Field(
        300, ge=1, le=86_400, description="Age at which a gRPC server asks a client to connect again; open calls go on."
    )
    max_concurrent_calls: int = Field(
        256, ge=1, le=100_000, description="Calls at work at once; a user may have as many as are free."
    )
    user_calls_per_second: float = Field(
        5_000, gt=0, description="Calls of a user that a server takes a second; twice as many may come at once."
    )
    max_watches: int = Field(
        2_000, ge=1, le=100_000, description="Streams of users a server has open at once; a user may have what is free."
    )
    max_watches_per_user: int = Field(50, ge=1, le=100_000, description="Streams a user has open at once in a server.")
    max_worker_watches: int = Field(
        2_000, ge=1, le=100_000, description="Streams and waits of trainers a server has open at once, beside users'."
    )
    default_timeout_ms: int = Field(10_000, ge=1, le=600_000, description="Deadline of a call that names none.")
    drain_seconds: float = Field(10.0, ge=0, le=20, description="Time that calls get to finish at SIGTERM.")
    reflection: bool = Field(True, description="Whether gRPC reflection answers.")
    tls_require_client: bool = Field(
        False, description="Whether gRPC servers refuse callers without a certificate that PIPELINE_TLS_CA_FILE signed."
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


class DatabaseSettings(BaseSettings):
    """How a service reaches Postgres."""

    model_config = SettingsConfigDict(env_prefix="PIPELINE_", frozen=True, extra="ignore")

    database_url: SecretStr = Field(description="URL of the database, as the service's own login.")
    database_pool_size: int = Field(10, ge=1, le=100, description="Connections a process opens at most.")

    @model_validator(mode="after")
    def _is_postgres(self) -> Self:
        check_database_url(self.database_url)
        return self


def check_database_url(url: SecretStr) -> None:
    """Raises ValueError where a database's URL is none. Its text stays out of the message: it may hold a password."""
    text = url.get_secret_value()
    if not text.startswith(("postgres://", "postgresql://")):
        raise ValueError("PIPELINE_DATABASE_URL must start with postgresql://")
    try:
        _ = urlsplit(text).port
    except ValueError:
        raise ValueError("PIPELINE_DATABASE_URL is no URL: percent-encode its password (/ is %2F, # is %23)") from None
    try:
        DatabaseUrl.parse(text)
    except ValueError as error:
        raise ValueError(f"PIPELINE_DATABASE_URL: {error}") from None


def check_key_pair(certificate: Path, key: Path) -> None:
    """Raises ValueError where the two are no certificate and its key."""
    try:
        # A server cannot prompt for a passphrase.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{certificate} and {key} are no certificate and its key: {error}") from None


Settings = TypeVar("Settings", bound=BaseSettings)


def load(settings: type[Settings]) -> Settings:
    """Reads settings from the environment. Tells all that is wrong in one line and exits with code 2."""
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

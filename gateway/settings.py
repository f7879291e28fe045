"""Settings of the gateway, from `PIPELINE_…` variables."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from rpc.process.settings import CommonSettings


class GatewaySettings(CommonSettings):
    """Settings of `python -m gateway`."""

    gateway_port: int = Field(8080, ge=0, le=65535, description="Port of the gateway. 0: any free one.")
    estimator_address: str = Field("127.0.0.1:50051", min_length=1, description="Estimator, as a gRPC target.")
    jobs_address: str = Field("127.0.0.1:50052", min_length=1, description="Jobs service, as a gRPC target.")
    cors_origins: frozenset[str] = Field(
        frozenset(), description='Origins whose pages may call with a bearer token, as JSON: ["https://app.example"].'
    )
    cors_headers: frozenset[str] = Field(
        frozenset(),
        description='Request headers that these pages may send beside the usual ones, as JSON: ["x-tenant"].',
    )
    public_origin: str | None = Field(
        None,
        pattern="^https?://[^/]+$",
        description="Origin of the page as browsers see it, behind a proxy that ends TLS: https://pipeline.example. By default"
        " scheme and host of each request.",
    )
    ui_dir: Path = Field(Path(__file__).parent / "ui" / "dist", description="Folder of the built page.")
    session_cookie: str = Field("pipeline_session", pattern="^[A-Za-z0-9_-]+$", description="Cookie with the token.")
    dev_issuer: bool = Field(
        False, description="Lets every visitor sign in as the demo user. For a first start, never in production."
    )
    failed_sign_ins_per_second: float = Field(
        100,
        gt=0,
        description="Calls with a missing or invalid token that an address may make per second; further ones get 429.",
    )
    trusted_proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="Number of proxies in front of the gateway that add to X-Forwarded-For; the client's address is what the"
        " first of them saw. Set it only if every request comes through that many: otherwise clients choose their address.",
    )
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Largest JSON body, bytes.")
    max_buffered_bytes: int = Field(
        64 << 20, ge=1 << 20, description="Memory for the JSON bodies that are being received, bytes."
    )
    max_uploads: int = Field(64, ge=4, le=10_000, description="Datasets that may be uploaded at once.")
    max_uploads_per_user: int = Field(8, ge=1, le=1_000, description="Datasets that a user may upload at once.")
    body_timeout_ms: int = Field(
        10_000,
        ge=10,
        le=600_000,
        description="Time that a JSON body, or the next chunk of an upload, may take to arrive, ms.",
    )

    @model_validator(mode="after")
    def _body_fits(self) -> Self:
        if self.max_body_bytes > self.max_buffered_bytes:
            raise ValueError("PIPELINE_MAX_BUFFERED_BYTES must be at least PIPELINE_MAX_BODY_BYTES")
        return self

    @model_validator(mode="after")
    def _dev_issuer_has_a_secret(self) -> Self:
        if self.dev_issuer and self.jwt_secret is None:
            raise ValueError("PIPELINE_DEV_ISSUER signs with PIPELINE_JWT_SECRET: set it")
        return self

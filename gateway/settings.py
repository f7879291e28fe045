"""Settings of the gateway process, from `PIPELINE_…` variables."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from rpc.process.settings import CommonSettings


class GatewaySettings(CommonSettings):
    """What `python -m gateway` needs."""

    gateway_port: int = Field(8080, ge=0, le=65535, description="Port of the gateway. 0: any free one.")
    estimator_address: str = Field("127.0.0.1:50051", min_length=1, description="Estimator, as a gRPC target.")
    jobs_address: str = Field("127.0.0.1:50052", min_length=1, description="Jobs service, as a gRPC target.")
    cors_origins: frozenset[str] = Field(
        frozenset(), description='Origins whose pages may call with a bearer token, as JSON: ["https://app.example"].'
    )
    public_origin: str | None = Field(
        None,
        pattern="^https?://[^/]+$",
        description="What browsers call us, behind a proxy that ends TLS: https://pipeline.example. Else: as asked for.",
    )
    ui_dir: Path = Field(Path(__file__).parent / "ui" / "dist", description="Folder of the built page.")
    session_cookie: str = Field("pipeline_session", pattern="^[A-Za-z0-9_-]+$", description="Cookie with the token.")
    dev_issuer: bool = Field(
        False, description="Makes tokens for anybody who asks. For a first start, never for users."
    )
    failed_sign_ins_per_second: float = Field(
        100,
        gt=0,
        description="Calls without a token that holds that are told so, of an address a second; the rest get 429.",
    )
    trusted_proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="Proxies on the way to us that add to X-Forwarded-For: what the first of them saw is the address. The"
        " gateway must be reachable through that many only: the header is else the caller's own word.",
    )
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Largest JSON body, bytes.")
    body_timeout_ms: int = Field(
        10_000, ge=10, le=600_000, description="Time that a JSON body, or the next piece of an upload, may take."
    )

    @model_validator(mode="after")
    def _dev_issuer_has_a_secret(self) -> Self:
        if self.dev_issuer and self.jwt_secret is None:
            raise ValueError("PIPELINE_DEV_ISSUER signs with PIPELINE_JWT_SECRET: set it")
        return self

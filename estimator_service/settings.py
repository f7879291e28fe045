"""Settings of the Estimator, from `PIPELINE_…` variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rpc.process.settings import CommonSettings, DatabaseSettings


class EstimatorSettings(CommonSettings, DatabaseSettings):
    """Settings of `python -m estimator_service`."""

    estimator_port: int = Field(50051, ge=0, le=65535, description="Port of the Estimator server. 0: any free one.")
    catalogue_file: Path = Field(
        Path(__file__).parent / "catalogue" / "catalogue.toml",
        description="GPU types, prices and presets; read again on SIGHUP.",
    )


class LessonsSettings(DatabaseSettings):
    """Settings of `python -m estimator_service lessons`. Its database URL is an administrator's."""

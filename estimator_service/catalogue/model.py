"""The catalogue: GPU types with prices, presets, and what forms and estimates assume. Read from TOML and checked.

`catalogue.toml` is the default file. GPU types have their physics in `gpus.toml`, and base models are in `base_models.toml`.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from estimator_service.catalogue import base_models, gpus
from estimator_service.reference import Assumptions
from rpc.errors import OperatorError

Name = Annotated[str, Field(min_length=1, max_length=200)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PresetName = Literal["fast", "balanced", "quality"]


class CatalogueError(OperatorError):
    """A catalogue file that is missing or not valid."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GpuPrice(_Data):
    """The price of one GPU, US dollars an hour, with the day on which and the source where it was read."""

    price_usd_per_hour: Positive
    price_date: date
    price_source: Name


class Offer(GpuPrice):
    """A provider's price of one GPU."""

    provider: Annotated[str, Field(min_length=1, max_length=100)]


class ModelGpuType(GpuPrice):
    """A GPU type for jobs that name a base model."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    name: Name
    memory_gb: Positive | None = None  # None: gpus.toml has it
    note: Name
    offers: tuple[Offer, ...] = Field((), max_length=50)

    def price(self, provider: str = "") -> GpuPrice | None:
        """Returns a provider's price, or the catalogue's own without a provider. None: the provider has no offer."""
        return next((offer for offer in self.offers if offer.provider == provider), None) if provider else self


class GpuType(ModelGpuType):
    """A GPU type for every job. The throughput is that of one GPU, in training tokens per second."""

    tokens_per_second: Positive


class PresetValues(_Data):
    """The hyperparameters of a preset. Their limits are in the contract, and `catalogue/wire.py` checks them."""

    learning_rate: float
    batch_size: int
    epochs: int
    rank: int
    alpha: float
    dropout: float


class Preset(_Data):
    """A named set of hyperparameters."""

    id: PresetName
    name: Name
    description: Name
    hyperparameters: PresetValues


class Slider(_Data):
    """The range of a slider in a form."""

    field: Name
    min: float
    max: float
    step: Positive

    @model_validator(mode="after")
    def _min_is_below_max(self) -> Self:
        if self.min >= self.max:
            raise ValueError("min must be below max")
        return self


class GpuConfig(_Data):
    """The GPUs of a job."""

    type: Name
    count: int = Field(ge=1)


class Defaults(_Data):
    """The choices that a form starts with."""

    preset_id: PresetName
    gpu_config: GpuConfig


class ForecastDefaults(_Data):
    """The time that a forecast adds to training: seconds, and GB per second."""

    startup_seconds: float = Field(ge=0, allow_inf_nan=False)
    startup_p10_seconds: float = Field(ge=0, allow_inf_nan=False)
    startup_p90_seconds: float = Field(ge=0, allow_inf_nan=False)
    load_gb_per_second: Positive
    save_seconds: float = Field(ge=0, allow_inf_nan=False)
    save_gb_per_second: Positive


class JobDefaults(ForecastDefaults):
    """What a forecast assumes for every job: the above, storage in US dollars, and the size of a dataset without statistics."""

    storage_usd: float
    default_pairs: int
    default_tokens_per_pair: int


class LearningRateLimit(_Data):
    """The learning rate above which an estimate warns, for these methods and models of at least this size."""

    methods: tuple[Literal["lora", "qlora", "full"], ...]
    min_params_b: float = Field(ge=0)
    max: Positive
    recipe: Name
    source: Name


class QuoteLimits(_Data):
    """How long a quote is valid, and how many unexpired quotes a user may have."""

    valid_seconds: int = Field(ge=1, le=31_536_000)
    max_unexpired_per_user: int = Field(ge=1)


class Catalogue(_Data):
    """One version of the catalogue."""

    effective_at: AwareDatetime
    default_base_model: str
    gpu_types: tuple[GpuType, ...] = Field(min_length=1, max_length=100)
    model_gpu_types: tuple[ModelGpuType, ...] = Field((), max_length=100)
    presets: tuple[Preset, ...] = Field(min_length=1)
    sliders: tuple[Slider, ...]
    defaults: Defaults
    reference: Assumptions
    forecast: ForecastDefaults
    learning_rates: tuple[LearningRateLimit, ...] = ()
    quotes: QuoteLimits

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        ids: dict[str, list[str]] = {
            "gpu_types": [gpu.type for gpu in (*self.gpu_types, *self.model_gpu_types)],
            "presets": [preset.id for preset in self.presets],
            "sliders": [slider.field for slider in self.sliders],
        }
        for table, names in ids.items():
            repeated = {name for name in names if names.count(name) > 1}
            if repeated:
                raise ValueError(f"{table}: {', '.join(sorted(repeated))} is repeated")
        for gpu in self.model_gpu_types:
            if gpu.type not in gpus.all_gpus():
                raise ValueError(f"model_gpu_types: gpus.toml does not have {gpu.type}")
        for gpu in (*self.gpu_types, *self.model_gpu_types):
            known = gpus.all_gpus().get(gpu.type)
            if known is None and gpu.memory_gb is None:
                raise ValueError(
                    f"{gpu.type}: gpus.toml does not have it; with memory_gb here, jobs without a base model can use it"
                )
            if known is not None and gpu.memory_gb not in (None, known.memory_gb):
                raise ValueError(f"{gpu.type}: memory_gb: gpus.toml has {known.memory_gb:g}; remove it here")
            providers = [offer.provider for offer in gpu.offers]
            if len(set(providers)) < len(providers):
                raise ValueError(f"{gpu.type}: offers: a provider is repeated")
        startup = self.forecast
        if not startup.startup_p10_seconds <= startup.startup_seconds <= startup.startup_p90_seconds:
            raise ValueError("forecast: startup_seconds must lie between startup_p10_seconds and startup_p90_seconds")
        if self.defaults.gpu_config.type not in self.by_type:
            raise ValueError(f"defaults.gpu_config.type: {self.defaults.gpu_config.type} is not in gpu_types")
        if self.default_base_model not in base_models.all_models():
            raise ValueError(f"default_base_model: base_models.toml does not have {self.default_base_model}")
        if self.defaults.preset_id not in [preset.id for preset in self.presets]:
            raise ValueError(f"defaults.preset_id: {self.defaults.preset_id} is not in presets")
        return self

    @cached_property
    def by_type(self) -> Mapping[str, GpuType]:
        """GPU types for every job, by their id."""
        return {gpu.type: gpu for gpu in self.gpu_types}

    @cached_property
    def oldest_price_date(self) -> date:
        """The day on which the oldest of the catalogue's own prices was read."""
        return min(gpu.price_date for gpu in self.gpu_types)

    @cached_property
    def by_type_for_models(self) -> Mapping[str, ModelGpuType]:
        """GPU types for jobs that name a base model, by their id: those in `gpus.toml`."""
        known = gpus.all_gpus()
        return {gpu.type: gpu for gpu in (*self.gpu_types, *self.model_gpu_types) if gpu.type in known}

    @cached_property
    def version(self) -> str:
        """Twelve hex digits of a hash of all data."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @cached_property
    def job_defaults(self) -> JobDefaults:
        """What a forecast with a base model assumes for every job."""
        reference = self.reference
        return JobDefaults(
            **self.forecast.model_dump(),
            storage_usd=reference.storage_usd,
            default_pairs=reference.default_pairs,
            default_tokens_per_pair=reference.default_tokens_per_pair,
        )


def read_catalogue(path: Path) -> Catalogue:
    """Reads and checks a catalogue file. Raises CatalogueError."""
    try:
        return Catalogue.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogueError(f"catalogue {path}: {error}") from error
    except ValidationError as error:
        messages = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ").replace("Value error, ", "")
            for each in error.errors(include_url=False)
        ]
        raise CatalogueError(f"catalogue {path}: {'; '.join(messages)}") from error

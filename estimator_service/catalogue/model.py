"""GPU types, presets and what goes with them: data from a TOML file, checked when it is read."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class JobDefaults:
    """What a forecast assumes of every job: seconds, GB per second, shares, US dollars."""

    startup_seconds: float
    load_gb_per_second: float
    save_seconds: float
    save_gb_per_second: float
    storage_usd: float
    default_pairs: int
    default_tokens_per_pair: int
    startup_p10_seconds: float
    startup_p90_seconds: float


class CatalogueError(OperatorError):
    """A catalogue file that cannot be used."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Dated(_Data):
    """A price of one GPU, US dollars an hour, with its day and where it was read: without them it is no price."""

    price_usd_per_hour: Positive
    price_date: date
    price_source: Name


class Offer(Dated):
    """What a provider asks for one GPU."""

    provider: Annotated[str, Field(min_length=1, max_length=100)]


class ModelGpuType(Dated):
    """One kind of GPU, for jobs that name a base model."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    name: Name
    memory_gb: Positive
    note: Name
    offers: tuple[Offer, ...] = Field((), max_length=50)

    def price(self, provider: str = "") -> Dated | None:
        """The price of a provider, or this catalogue's own; None: no such offer."""
        return next((offer for offer in self.offers if offer.provider == provider), None) if provider else self


class GpuType(ModelGpuType):
    """One kind of GPU for every job; throughput in training tokens per second of one GPU."""

    tokens_per_second: Positive


class PresetValues(_Data):
    """The hyperparameters that a preset sets. Their limits are the contract's, and checked where it is known."""

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
    """Range of one slider on a page."""

    field: Name
    min: float
    max: float
    step: Positive

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.min >= self.max:
            raise ValueError("min must be below max")
        return self


class GpuConfig(_Data):
    """GPUs of a job."""

    type: Name
    count: int = Field(ge=1)


class Defaults(_Data):
    """What a form starts on."""

    preset_id: PresetName
    gpu_config: GpuConfig


class Reference(_Data):
    """The reference estimate's assumptions; see `reference.Assumptions`."""

    startup_seconds: float = Field(ge=0, allow_inf_nan=False)
    validation_seconds_per_epoch: float = Field(ge=0, allow_inf_nan=False)
    save_seconds: float = Field(ge=0, allow_inf_nan=False)
    storage_usd: float = Field(ge=0, allow_inf_nan=False)
    default_pairs: int = Field(ge=1)
    default_tokens_per_pair: int = Field(ge=1)


class Forecasts(_Data):
    """What a forecast with a base model adds to training itself; see `JobDefaults`."""

    startup_seconds: float = Field(ge=0, allow_inf_nan=False)
    startup_p10_seconds: float = Field(ge=0, allow_inf_nan=False)
    startup_p90_seconds: float = Field(ge=0, allow_inf_nan=False)
    load_gb_per_second: Positive
    save_seconds: float = Field(ge=0, allow_inf_nan=False)
    save_gb_per_second: Positive


class LearningRateLimit(_Data):
    """Learning rate above which an estimate warns, for some methods and for models of some size and more."""

    methods: tuple[Literal["lora", "qlora", "full"], ...]
    min_params_b: float = Field(ge=0)
    max: Positive
    recipe: Name
    source: Name


class QuoteLimits(_Data):
    """How long a quote holds, and how many unexpired ones a person may hold."""

    valid_seconds: int = Field(ge=1, le=31_536_000)
    most: int = Field(ge=1)


class Catalogue(_Data):
    """Everything a job can be configured with, as of one version."""

    effective_at: AwareDatetime
    default_base_model: str
    gpu_types: tuple[GpuType, ...] = Field(min_length=1, max_length=100)
    model_gpu_types: tuple[ModelGpuType, ...] = Field((), max_length=100)
    presets: tuple[Preset, ...] = Field(min_length=1)
    sliders: tuple[Slider, ...]
    defaults: Defaults
    reference: Reference
    forecast: Forecasts
    learning_rates: tuple[LearningRateLimit, ...] = ()
    quotes: QuoteLimits

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        ids: dict[str, list[str]] = {
            "gpu_types": [gpu.type for gpu in (*self.gpu_types, *self.model_gpu_types)],
            "presets": [preset.id for preset in self.presets],
            "sliders": [slider.field for slider in self.sliders],
        }
        for what, names in ids.items():
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{what}: {', '.join(sorted(twice))} is there twice")
        for gpu in self.model_gpu_types:
            if gpu.type not in gpus.all_gpus():
                raise ValueError(f"model_gpu_types: gpus.toml does not know {gpu.type}")
        for gpu in (*self.gpu_types, *self.model_gpu_types):
            providers = [offer.provider for offer in gpu.offers]
            if len(set(providers)) < len(providers):
                raise ValueError(f"{gpu.type}: offers: a provider is there twice")
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
        """GPU types that every job can use, by their id."""
        return {gpu.type: gpu for gpu in self.gpu_types}

    @cached_property
    def oldest_price_date(self) -> date:
        """The day of the price that was read longest ago, of those that jobs are charged."""
        return min(gpu.price_date for gpu in self.gpu_types)

    @cached_property
    def by_type_for_models(self) -> Mapping[str, ModelGpuType]:
        """GPU types for jobs that name a base model, by their id: those whose physics are known."""
        known = gpus.all_gpus()
        return {gpu.type: gpu for gpu in (*self.gpu_types, *self.model_gpu_types) if gpu.type in known}

    @cached_property
    def version(self) -> str:
        """Twelve hex digits that change whenever any of the data does."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @cached_property
    def assumptions(self) -> Assumptions:
        """What the reference estimate takes for granted."""
        return Assumptions(**self.reference.model_dump())

    @cached_property
    def job_defaults(self) -> JobDefaults:
        """What a forecast with a base model takes for granted."""
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
        faults = [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ").replace("Value error, ", "")
            for fault in error.errors(include_url=False)
        ]
        raise CatalogueError(f"catalogue {path}: {'; '.join(faults)}") from error

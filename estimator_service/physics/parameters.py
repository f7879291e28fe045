"""The fitted parameters of the time and the memory model: fitted.toml, read once and checked."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, PositiveFloat

from estimator_service.physics.memory import MemoryParameters
from estimator_service.physics.step_time import TimeParameters


class Spread(BaseModel):
    """Errors of predictions, as factors and their logs. Each is from a fit without the rows of the source that it predicts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unseen_gpu: PositiveFloat  # width of the range, times this, for a GPU type that no measured run used
    unseen_family: PositiveFloat
    unseen_stack: PositiveFloat
    source_sd: PositiveFloat  # log spread of what makes all of a source's runs faster or slower
    looseness: PositiveFloat  # log spread of a source's parameters, relative to that of their priors
    run_sd: PositiveFloat  # log spread of a run measured again
    alike_sd: PositiveFloat  # log spread of the error that similar runs share and the model does not explain
    misfit_sd: PositiveFloat  # log spread that remains with any number of runs of a source
    alone: float  # factor of the noise that is added if there is a single run
    memory_margin: PositiveFloat  # share by which memory may be over-estimated before a job that runs is refused


class Width(BaseModel):
    """Half width of P10 to P90 of one class of runs, and the evidence behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: PositiveFloat  # log distance from P50
    sources: int  # independent publishers whose runs were predicted without them
    runs: int


class Evidence(BaseModel):
    """Range of the measured runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    sources: int
    gpus: frozenset[str]
    families: frozenset[str]
    stacks: frozenset[str]
    precisions: frozenset[str]


class Parameters(NamedTuple):
    """All fitted parameters."""

    time: TimeParameters
    memory: MemoryParameters
    spread: Spread
    widths: Mapping[str, Width]  # by class of run
    evidence: Evidence
    time_sd: tuple[float, ...]  # prior standard deviation of the log of each time parameter
    version: str  # twelve hex digits that change with anything here


@cache
def fitted() -> Parameters:
    """The parameters that the service uses."""
    return parse(files(__package__).joinpath("fitted.toml").read_text())


def parse(text: str) -> Parameters:
    """Parameters from the text of fitted.toml. Raises ValueError where it is incomplete."""
    data = tomllib.loads(text)
    return Parameters(
        TimeParameters(**{name: entry["value"] for name, entry in data["time"].items()}),
        MemoryParameters(**{name: entry["value"] for name, entry in data["memory"].items()}),
        Spread.model_validate(data["spread"]),
        {name: Width.model_validate(entry) for name, entry in data["widths"].items()},
        Evidence.model_validate(data["evidence"]),
        tuple(entry["prior_sd"] for entry in data["time"].values()),
        hashlib.sha256(text.encode()).hexdigest()[:12],
    )

"""Fits the model's parameters to measured runs and writes fitted.toml: `python -m estimator_service fit MEASURED.csv`.

Robust, regularised least squares on log tokens per second. Every parameter has a prior from physics; sources count alike
up to a bound, so that one source with many rows does not decide alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from estimator_service.calibration import evaluate, published
from estimator_service.calibration.observations import (
    Array,
    Observations,
    Peaks,
    observe,
    observe_memory,
    predicted,
    predicted_memory,
    select,
)
from estimator_service.calibration.published import Run
from estimator_service.physics.evidence import RUN_CLASSES, run_class, widening
from estimator_service.physics.memory import MemoryParameters
from estimator_service.physics.parameters import Evidence, Parameters, Spread, parse
from estimator_service.physics.step_time import TimeParameters

NOISE = 0.12  # log residual that counts as one standard deviation: published repeats differ by 7 to 13 %
ROWS_OF_A_GROUP = 25  # beyond so many, rows of one group only share their weight
AUXILIARY = 0.5  # weight of groups that state no token lengths: they tell ratios only
PRIOR_WEIGHT = 1.5
INSIDE = 0.8  # share of runs between P10 and P90
ENOUGH_SOURCES = 3
MEMORY_MARGIN = 0.05


class Prior(NamedTuple):
    """A value, the standard deviation of its log, and the reason."""

    value: float
    sd: float
    why: str


def priors(model: str) -> dict[str, Prior]:
    """Priors of the "time" or the "memory" model by parameter."""
    text = files(__package__).joinpath("priors.toml").read_text()
    return {name: Prior(**entry) for name, entry in tomllib.loads(text)[model].items()}


def weights(groups: Sequence[str]) -> Array:
    """Weight of each row, so that a group counts as ROWS_OF_A_GROUP rows at most."""
    rows = np.array([groups.count(group) for group in groups])
    weight: Array = np.sqrt(np.minimum(rows, ROWS_OF_A_GROUP) / rows)
    return weight


def fit_time(data: Observations) -> tuple[TimeParameters, Array]:
    """Parameters, and how much each narrowed against its prior (0: evidence says nothing, 1: all)."""
    size = len(TimeParameters._fields)
    weight = weights([run.source for run in data.runs]) * np.where(data.lengths < 0, 1.0, AUXILIARY)

    def residuals(z: Array) -> Array:
        log_length = np.append(z[size:], 0.0)[data.lengths]
        miss = predicted(data, TimeParameters(*np.exp(z[:size]))) + log_length - data.log_tokens_per_s
        weighted: Array = weight * miss / NOISE
        return weighted

    best, narrowed = _regularised(residuals, priors("time"), TimeParameters._fields, data.length_spreads)
    return TimeParameters(*best.tolist()), narrowed


def fit_memory(data: Peaks) -> tuple[MemoryParameters, Array]:
    """The same for memory, on allocated and reserved peaks together."""
    weight = weights([run.source for run in data.runs])

    def residuals(z: Array) -> Array:
        used, peak = predicted_memory(data, MemoryParameters(*np.exp(z)))
        misses = np.concatenate([weight * (used - data.log_allocated), weight * (peak - data.log_peak)]) / NOISE
        measured: Array = misses[np.isfinite(misses)]
        return measured

    best, narrowed = _regularised(residuals, priors("memory"), MemoryParameters._fields, np.zeros(0))
    return MemoryParameters(*best.tolist()), narrowed


def _regularised(
    misses: Callable[[Array], Array], prior: dict[str, Prior], names: Sequence[str], free: Array
) -> tuple[Array, Array]:
    """Best values of `names`, fitted as logs beside offsets of spread `free`, and how far each narrowed.

    Data residuals have the soft-L1 loss, prior residuals the plain square.
    """
    centre = np.log([prior[name].value for name in names])
    spread = np.array([prior[name].sd for name in names]) / PRIOR_WEIGHT
    size, offsets = len(centre), len(free)

    def residuals(z: Array) -> Array:
        return np.concatenate([misses(z), (z[:size] - centre) / spread, z[size:] / free])

    def loss(squares: Array) -> Array:
        data, rest = squares[: len(squares) - size - offsets], np.ones(size + offsets)
        root = np.sqrt(1.0 + data)
        value = np.concatenate([2.0 * (root - 1.0), squares[len(data) :]])
        slope = np.concatenate([1.0 / root, rest])
        curvature = np.concatenate([-0.5 / root**3, 0.0 * rest])
        return np.array([value, slope, curvature])

    start = np.concatenate([centre, np.zeros(offsets)])
    best = least_squares(residuals, start, loss=loss, x_scale=np.concatenate([spread, free]), xtol=1e-6, ftol=1e-7)
    covariance = np.linalg.inv(best.jac.T @ best.jac)
    return np.exp(best.x[:size]), 1.0 - np.sqrt(np.diag(covariance)[:size]) / spread


def leave_out(data: Observations, labels: NDArray[Any]) -> Array:
    """Log error (predicted over measured speed) of every row, by a fit that saw no row with the same label."""
    error = np.full(len(data.runs), np.nan)
    for label in sorted(set(labels)):
        left_out = labels == label
        if np.any(left_out & (data.lengths < 0)):
            parameters, _ = fit_time(select(data, ~left_out))
            error[left_out] = (predicted(data, parameters) - data.log_tokens_per_s)[left_out]
    error[data.lengths >= 0] = np.nan
    return error


def load(path: Path) -> list[Run]:
    """The usable runs of a file."""
    return [run for run in published.read(path) if isinstance(run, Run)]


def widths_of(data: Observations) -> dict[str, tuple[float, int, int]]:
    """(half width of P10 to P90 as a log, sources, runs) of each class, from runs predicted without their source.

    Sources count alike: a width is the one inside which, averaged over sources, `INSIDE` of the runs lie once it is widened
    for what each run does not state or no other source has. Few sources say little of the next one, so below `ENOUGH_SOURCES`
    the width of all classes together counts as the others.
    """
    error = np.abs(leave_out(data, data.sources)) / _widening(data)
    classes = np.array([run_class(run.workload, run.gpu, run.count) for run in data.runs])
    measured = np.isfinite(error)
    pooled = _width(error[measured], data.sources[measured])
    widths = {}
    for name in RUN_CLASSES:
        member = (classes == name) & measured
        sources = len(set(data.sources[member]))
        own = _width(error[member], data.sources[member]) if sources else 0.0
        others = max(0, ENOUGH_SOURCES - sources)
        square = (sources * own**2 + others * pooled**2) / (sources + others)
        widths[name] = (square**0.5, sources, int(np.sum(member)))
    return widths


def _widening(data: Observations) -> Array:
    """How much wider the range of each run is where its source was left out of the fit."""
    factors = np.ones(len(data.runs))
    spread = Spread(**{name: value for name, (value, _) in SPREAD.items()})
    for source in set(data.sources):
        evidence = evidence_of([run for run in data.runs if run.source != source])
        for index in np.flatnonzero(data.sources == source):
            run = data.runs[index]
            factors[index] = run.widening * widening(run.workload, run.gpu, evidence, spread)
    return factors


def evidence_of(runs: Sequence[Run]) -> Evidence:
    """Range of runs. Stacks and precisions are those of runs whose speed is known."""
    timed = [run for run in runs if run.tokens_per_s]
    return Evidence(
        rows=len(timed),
        sources=len({run.source for run in timed}),
        gpus=frozenset(run.gpu.id for run in runs),
        families=frozenset(run.workload.model.family for run in runs),
        stacks=frozenset(str(run.workload.stack) for run in timed),
        precisions=frozenset(str(run.workload.precision) for run in timed),
    )


def _width(error: Array, sources: NDArray[np.str_]) -> float:
    """The smallest error at which the share of smaller ones, averaged over sources, reaches `INSIDE`."""
    order = np.argsort(error)
    names, counts = np.unique(sources, return_counts=True)
    weight = 1.0 / counts[np.searchsorted(names, sources[order])] / len(names)
    return float(error[order][np.searchsorted(np.cumsum(weight), INSIDE)])


SPREAD = {
    "unseen_gpu": (1.3, "prior: a power limit or a clock unknown by 20 % on top"),
    "unseen_family": (1.1, "prior: kernels for an unusual shape unknown by 10 % on top"),
    "unseen_stack": (1.15, "prior: kernels unknown by 15 % on top"),
    "source_sd": (0.05, "prior: a provider's clocks and disks; 0.05 or 0.1, see docs/forecasts.md, Learning"),
    "looseness": (0.6, "of 0.6, 1, 1.3 by nested cross-validation; see docs/forecasts.md, Learning"),
    "run_sd": (0.1, "published repeats differ by 7 to 13 %"),
    "alike_sd": (0.25, "as far as fits miss runs that they have not seen; see docs/forecasts.md, Learning"),
    "misfit_sd": (0.3, "P10 to P90 covers after three runs what it covers before, source held out"),
    "alone": (4.0, "prior: one run that no other confirms counts as five times as noisy"),
    "memory_margin": (MEMORY_MARGIN, "prior: see docs/forecasts.md, Memory"),
}


def render(runs: Sequence[Run], digest: str) -> str:
    """The text of fitted.toml."""
    data, peaks = observe(runs), observe_memory(runs)
    lines = [
        "# Written by `python -m estimator_service fit`; do not edit. `narrowed`: how much the measured runs narrowed a",
        "# parameter against its prior (0: not at all).",
        "",
        "[provenance]",
        f'sha256_of_measured_runs = "{digest}"',
        "",
    ]
    fits: dict[str, tuple[TimeParameters | MemoryParameters, Array]] = {
        "time": fit_time(data),
        "memory": fit_memory(peaks),
    }
    for model, (parameters, narrowed) in fits.items():
        prior = priors(model)
        lines.append(f"[{model}]")
        for (name, value), share in zip(parameters._asdict().items(), narrowed, strict=True):
            entry = prior[name]
            lines.append(
                f"{name} = {{ value = {value:.4g}, prior = {entry.value:g}, prior_sd = {entry.sd:g}, "
                f'narrowed = {max(0.0, share):.2f}, why = "{entry.why}" }}'
            )
        lines.append("")
    lines.append("[spread]")
    lines += [f"{name} = {value:.4g} # {why}" for name, (value, why) in SPREAD.items()]
    lines += ["", "# Half widths of P10 to P90 as logs, by class of run: see `widths_of`.", "[widths]"]
    lines += [
        f"{name} = {{ width = {width:.4g}, sources = {sources}, runs = {rows} }}"
        for name, (width, sources, rows) in widths_of(data).items()
    ]
    evidence = evidence_of(data.runs)
    lines += ["", "[evidence]", f"rows = {evidence.rows}", f"sources = {evidence.sources}"]
    for name in ("gpus", "families", "stacks", "precisions"):
        lines.append(f"{name} = [{', '.join(json.dumps(value) for value in sorted(getattr(evidence, name)))}]")
    return "\n".join(lines) + "\n"


def held_out(runs: Sequence[Run]) -> dict[str, Parameters]:
    """Parameters for each source, from fits that saw none of its rows."""
    parameters = {}
    for name in sorted({run.source for run in runs}):
        others = [run for run in runs if run.source != name]
        parameters[name] = parse(render(others, "cross-validation"))
    return parameters


def main(argv: Sequence[str]) -> int:
    """Writes fitted.toml, or prints it, or prints how well each source is predicted without it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m estimator_service fit", description=__doc__)
    parser.add_argument("file", type=Path, metavar="MEASURED.csv")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--print", action="store_true", help="print instead of writing fitted.toml")
    action.add_argument("--cross-validate", action="store_true", help="predict each source by a fit on the others")
    parser.add_argument("--calibrate-with", type=int, default=0, metavar="K", help="as `evaluate` has it")
    arguments = parser.parse_args(argv)
    try:
        runs, digest = load(arguments.file), hashlib.sha256(arguments.file.read_bytes()).hexdigest()
        if arguments.cross_validate:
            report = evaluate.evaluate(arguments.file, arguments.calibrate_with, held_out(runs))
            print(evaluate.text(report))
            return 0
    except (OSError, UnicodeDecodeError) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 2
    text = render(runs, digest)
    if arguments.print:
        print(text, end="")
    else:
        Path(str(files("estimator_service.physics").joinpath("fitted.toml"))).write_text(text)
    return 0

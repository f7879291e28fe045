"""Compares predictions with published runs: `python -m estimator_service evaluate FILE.csv [--json] [--calibrate-with K]`.

Nothing is fitted on the file. With K, the first look at a source is K of its runs drawn at random (fixed seed, many draws);
the others are then predicted as the service would after as many finished jobs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimator_service.calibration import published
from estimator_service.calibration.published import Run
from estimator_service.learning.corrections import Prior, memory_prior, posterior, speed_prior
from estimator_service.physics import memory
from estimator_service.physics.evidence import run_class
from estimator_service.physics.forecast import KINDS, POSITIONS, VERDICTS, Numbers, Point, features_table, table
from estimator_service.physics.parameters import Parameters, fitted

DRAWS = 200
SEED = 20_26
DOES_NOT_FIT = VERDICTS.index("does_not_fit")


class Scored(NamedTuple):
    """Runs and their predictions: logs of predicted ÷ measured (NaN: not measured), and the half width of P10 to P90."""

    runs: list[Run]
    speed: NDArray[np.float64]
    width: NDArray[np.float64]
    peak: NDArray[np.float64]
    refused: NDArray[np.bool_]
    features: NDArray[np.float64]  # a row for each run
    parameters: Parameters


def score(runs: Sequence[Run], parameters: Parameters | None = None) -> Scored:
    """Predicts every run."""
    p = parameters or fitted()
    points = [Point(run.workload, run.gpu, run.count, range_correction=run.widening) for run in runs]
    numbers = table(points, p)
    lean = table([Point(run.lean, run.gpu, run.count) for run in runs], p)
    measured = np.array([run.tokens_per_s or math.nan for run in runs])
    peaks = np.array([_peak(run, numbers, index, p) for index, run in enumerate(runs)])
    return Scored(
        runs=list(runs),
        speed=np.log(numbers.tokens_per_s / measured),
        width=np.log(numbers.step_p90 / numbers.step),
        peak=peaks,
        refused=lean.verdict == DOES_NOT_FIT,
        features=features_table(points, p),
        parameters=p,
    )


def _peak(run: Run, numbers: Numbers, index: int, p: Parameters) -> float:
    """Log of predicted ÷ measured memory, like with like: reserved where that is stated, else allocated."""
    peak = float(np.asarray(numbers.peak.total)[index])
    if run.peak_gib:
        return math.log(peak / memory.GIB / run.peak_gib)
    if run.allocated_gib:
        return math.log(float(np.asarray(numbers.allocated)[index]) / memory.GIB / run.allocated_gib)
    return math.nan


def summary(scored: Scored, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of the chosen rows; None where nothing was measured."""
    speed = scored.speed[rows]
    timed = np.isfinite(speed)
    ran = np.array([not run.ran_out_of_memory for run in scored.runs])[rows]
    refused = scored.refused[rows]
    peak = scored.peak[rows]
    return {
        "n": int(np.sum(rows)),
        "time": _errors(speed[timed], scored.width[rows][timed]),
        "memory": _errors(peak[np.isfinite(peak)], None),
        "ran": int(np.sum(ran)),
        "called_does_not_fit": _share(refused[ran]),
        "out_of_memory": int(np.sum(~ran)),
        "out_of_memory_caught": _share(refused[~ran]),
    }


def _share(flags: NDArray[np.bool_]) -> float | None:
    return float(np.mean(flags)) if len(flags) else None


def _errors(logs: NDArray[np.float64], width: NDArray[np.float64] | None) -> dict[str, float] | None:
    if not len(logs):
        return None
    absolute = np.abs(np.expm1(logs))
    figures = {
        "n": len(logs),
        "median": float(np.median(absolute)),
        "mean": float(np.mean(absolute)),
        "p90": float(np.quantile(absolute, 0.9)),
        "bias": float(np.expm1(np.median(logs))),
        "within_2x": float(np.mean(np.abs(logs) <= math.log(2))),
    }
    if width is not None:
        figures["inside_p10_p90"] = float(np.mean(np.abs(logs) <= width))
        figures["p90_over_p10"] = float(np.exp(2 * np.median(width)))
    return figures


def calibrated(scored: Scored, k: int) -> dict[str, dict[str, float] | None]:
    """Errors of time and of memory of one source's other runs after K of them; None where there are too few."""
    p, positions = scored.parameters, scored.features[:, -POSITIONS - KINDS :]
    return {
        "calibrated": _calibrated(scored.speed, scored.features, scored.width, speed_prior(p), k),
        "memory_calibrated": _calibrated(scored.peak, positions, None, memory_prior(p), k),
    }


def _calibrated(
    logs: NDArray[np.float64], features: NDArray[np.float64], width: NDArray[np.float64] | None, prior: Prior, k: int
) -> dict[str, float] | None:
    measured = np.isfinite(logs)
    logs, features = logs[measured], features[measured]
    if len(logs) <= k:
        return None
    random = np.random.default_rng(SEED)
    errors, widths = [], []
    for _ in range(DRAWS):
        learned = random.permutation(len(logs)) < k
        factor, narrowing = posterior((-logs[learned]).tolist(), features[learned], prior).apply(features[~learned])
        errors.append(logs[~learned] + np.log(factor))
        if width is not None:
            widths.append(width[measured][~learned] * np.array(narrowing))
    figures = _errors(np.concatenate(errors), np.concatenate(widths) if widths else None)
    if figures:
        figures["n"] = len(logs) - k
    return figures


def averaged(parts: Sequence[dict[str, Any] | None]) -> dict[str, float] | None:
    """Mean over sources of every figure; `n` is their sum."""
    measured = [part for part in parts if part]
    if not measured:
        return None
    return {name: (sum if name == "n" else np.mean)([part[name] for part in measured]) for name in measured[0]}


def evaluate(path: Path, calibrate_with: int = 0, others: Mapping[str, Parameters] | None = None) -> dict[str, Any]:
    """The report as plain data; `others` holds parameters that were fitted without a source, by its name."""
    rows = list(published.read(path))
    runs = [row for row in rows if isinstance(row, Run)]
    unusable = Counter(str(row) for row in rows if not isinstance(row, Run))
    untimed = sum(run.tokens_per_s is None for run in runs)
    report: dict[str, Any] = {
        "rows": len(rows), "usable": len(runs), "unusable": dict(unusable), "without_speed": untimed, "sources": {},
    }  # fmt: skip
    names = sorted({run.source for run in runs})
    scored = [score([run for run in runs if run.source == name], (others or {}).get(name)) for name in names]
    for name, part in zip(names, scored, strict=True):
        everything = np.ones(len(part.runs), dtype=bool)
        single = np.array([run.count == 1 for run in part.runs])
        source = summary(part, everything)
        source["one_gpu"] = summary(part, single)["time"]
        source |= calibrated(part, calibrate_with) if calibrate_with else {}
        report["sources"][name] = source
    sources = list(report["sources"].values())
    report["by_source"] = {key: averaged([source.get(key) for source in sources]) for key in TITLES}
    if scored:
        joined = Scored(
            runs=[run for part in scored for run in part.runs],
            speed=np.concatenate([part.speed for part in scored]),
            width=np.concatenate([part.width for part in scored]),
            peak=np.concatenate([part.peak for part in scored]),
            refused=np.concatenate([part.refused for part in scored]),
            features=np.concatenate([part.features for part in scored]),
            parameters=scored[0].parameters,
        )
        report["overall"] = summary(joined, np.ones(len(joined.runs), dtype=bool))
        report["classes"] = _classes(joined)
    return report


def _classes(scored: Scored) -> dict[str, dict[str, Any]]:
    """Errors of time by class of run; figures are means over the sources of a class, which `sources` counts."""
    by_class: dict[str, dict[str, list[int]]] = {}
    for index, run in enumerate(scored.runs):
        if np.isfinite(scored.speed[index]):
            names = [run_class(run.workload, run.gpu, run.count)] + ["qlora"] * run.workload.quantised
            for name in names:
                by_class.setdefault(name, {}).setdefault(run.source, []).append(index)
    report: dict[str, dict[str, Any]] = {}
    for name, sources in sorted(by_class.items()):
        parts = [_errors(scored.speed[rows], scored.width[rows]) for rows in sources.values()]
        pooled = _errors(*(values[np.concatenate(list(sources.values()))] for values in (scored.speed, scored.width)))
        report[name] = {
            **(averaged(parts) or {}),
            "sources": len(sources),
            "all_rows_median": pooled["median"] if pooled else None,
        }
    return report


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 2 when the file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m estimator_service evaluate", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.csv")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--calibrate-with", type=int, default=0, metavar="K", help="runs of each source to learn from")
    arguments = parser.parse_args(argv)
    if arguments.calibrate_with < 0:
        parser.error("K is 0 or more")
    try:
        report = evaluate(arguments.file, arguments.calibrate_with)
    except (OSError, UnicodeDecodeError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2) if arguments.json else text(report))
    return 0


def text(report: dict[str, Any]) -> str:
    """The report as tables for people."""
    lines = [f"{report['rows']} rows, {report['usable']} usable, {report['without_speed']} of them without a speed"]
    lines += [f"  unusable: {count} × {reason}" for reason, count in report["unusable"].items()]
    for key, title in TITLES.items():
        sources = {name: source.get(key) for name, source in report["sources"].items()}
        total = {"by source, averaged": report.get("by_source", {}).get(key), "all rows": _overall(report, key)}
        figures = {name: part for name, part in (sources | total).items() if part}
        if any(sources.values()):
            lines += ["", title, _row("", HEADINGS)]
            lines += [_row(name, [_cell(part, column) for column in COLUMNS]) for name, part in figures.items()]
    if report.get("classes"):
        lines += ["", "Time by class, averaged over sources", _row("", ("sources", "all rows", *HEADINGS))]
        for name, part in report["classes"].items():
            cells = [
                str(part["sources"]),
                _number(part["all_rows_median"]),
                *(_cell(part, column) for column in COLUMNS),
            ]
            lines.append(_row(name, cells))
    overall = report.get("overall")
    if overall:
        lines += ["", "Verdicts", _row("", ("ran", "refused", "OOM", "caught"))]
        for name, source in [*report["sources"].items(), ("all rows", overall)]:
            names = ("ran", "called_does_not_fit", "out_of_memory", "out_of_memory_caught")
            lines.append(_row(name, [_number(source[column]) for column in names]))
    return "\n".join(lines)


TITLES = {
    "time": "Time (tokens/s)", "one_gpu": "Time on one GPU", "calibrated": "Time after K runs of the source",
    "memory": "Peak memory", "memory_calibrated": "Peak memory after K runs of the source",
}  # fmt: skip
COLUMNS = ("n", "median", "mean", "p90", "bias", "within_2x", "inside_p10_p90", "p90_over_p10")
HEADINGS = ("n", "median", "mean", "p90", "bias", "in 2x", "P10-P90", "P90/P10")


def _overall(report: dict[str, Any], key: str) -> Any:
    return report.get("overall", {}).get(key)


def _cell(part: dict[str, Any], column: str) -> str:
    value = part.get(column)
    return f"{value:.2f}x" if column == "p90_over_p10" and value else _number(value)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{100 * value:.1f} %"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name[:44]:44s}" + "".join(f"{cell:>9s}" for cell in cells)

"""BENCHMARKS.md, written from the last three runs in `history.json`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from tests.bench.programs import HERE
from tests.bench.rows import ROWS, Measured, Target, ratio

REPORT = HERE.parents[1] / "BENCHMARKS.md"
HISTORY, NOTES = HERE / "history.json", HERE / "notes.md"
KEPT_RUNS = 3
MEASURES = {"rate": "throughput", "cpu": "processor time"}


def entry(name: str, results: Mapping[str, Measured]) -> dict[str, Any]:
    """Returns a row's results as the history keeps them."""
    sides = {
        side: {
            "rate": round(measured.rate()),
            "cpu_ms": {process: round(median(spent), 3) for process, spent in measured.cpu_ms.items()},
        }
        for side, measured in results.items()
    }
    return {"sides": sides, "ratios": [round(ratio(target, results), 2) for target in ROWS[name].targets]}


def lines(name: str, row: Mapping[str, Any]) -> list[str]:
    """Returns a row's part of the report: its programs, then its ratios."""
    text = ["| program | requests/s | processor time, ms a request | of which |", "|---|---|---|---|"]
    for side, measured in row["sides"].items():
        parts = ", ".join(f"{process} {spent:.3f}" for process, spent in measured["cpu_ms"].items())
        text.append(f"| {side} | {measured['rate']:,} | {sum(measured['cpu_ms'].values()):.3f} | {parts} |")
    text += ["", *(_target(*pair) for pair in zip(ROWS[name].targets, row["ratios"], strict=True))]
    return text


def _target(target: Target, value: float) -> str:
    text = f"- {MEASURES[target.measure]}, {target.side} ÷ {target.over}: **{value:.2f}**"
    if target.least is not None:
        return f"{text}, target ≥ {target.least}" + ("" if value >= target.least else ", **missed**")
    if target.most is not None:
        return f"{text}, target ≤ {target.most}" + ("" if value <= target.most else ", **missed**")
    return text


def remember(rows: Mapping[str, Any], rounds: int) -> None:
    """Adds a run to the history, keeps the last ones, and writes the report."""
    run = {
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end",
        "software": f"Python {platform.python_version()}, grpcio {grpc.__version__}, {platform.system()} {platform.release()}",
        "rounds": rounds,
        "rows": rows,
    }
    runs = [*(json.loads(HISTORY.read_text()) if HISTORY.exists() else []), run][-KEPT_RUNS:]
    HISTORY.write_text(json.dumps(runs, indent=1) + "\n")
    REPORT.write_text(report(runs, NOTES))


def report(runs: list[Mapping[str, Any]], notes: Path) -> str:
    """Returns the last run in full, and what requests to our own programs cost in each run."""
    run = runs[-1]
    text = [
        "# Benchmarks",
        "",
        "Written by `make bench`; `make bench ARGS=list` prints one row. The programs of a row take turns, with 16 requests at",
        f"once; figures are medians of {run['rounds']} rounds, ratios are medians of the rounds' ratios. Compare processor",
        "time, of servers and of PostgreSQL: other work on the machine changes it little, and throughput much.",
        "`serve` is `pipeline serve`, one process; `apart` is gateway, Jobs and Estimator, as `make up` runs them.",
        "",
        f"- {run['at']} UTC, {run['machine']}",
        f"- {run['software']}",
        "",
    ]
    for name, row in run["rows"].items():
        text += [f"## {name}", "", *ROWS[name].about.split("\n"), "", *lines(name, row), ""]
    text += ["## The last runs", "", "Processor time of our programs, ms a request.", ""]
    text += [f"| row | {' | '.join(each['at'] for each in runs)} |", "|---" * (len(runs) + 1) + "|"]
    for name in run["rows"]:
        for side in run["rows"][name]["sides"]:
            if side not in ("fastapi", "fastify", "echo", "pgbench"):
                cells = [_cost(each["rows"].get(name, {}).get("sides", {}).get(side)) for each in runs]
                text.append(f"| {name}, {side} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n" + (f"\n{notes.read_text()}" if notes.exists() else "")


def _cost(measured: Mapping[str, Any] | None) -> str:
    return f"{sum(measured['cpu_ms'].values()):.3f}" if measured else ""

"""The dashboard and alerts use exported metrics, which are documented."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rpc.telemetry.metrics import LABELS
from tests import debian
from tests.deploy.processes import Stack, stack, wait_for

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in RULES for rule in group["rules"] if "alert" in rule}
PANELS = json.loads((ROOT / "deploy" / "grafana" / "pipeline.json").read_text())["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
QUERIES = [*EXPRESSIONS, *(rule["expr"] for group in RULES for rule in group["rules"])]
# Names of Prometheus' own, and labels that its configuration adds.
OTHERS = {"up", "ALERTS"}
with_prometheus = debian.needs("promtool", "prometheus")


def named_metrics(expression: str) -> set[str]:
    """Returns the metrics in an expression: words with an underscore that are neither labels nor functions."""
    without_strings = re.sub(r'"[^"]*"', "", expression)
    words = re.findall(r"(?<![\w:$])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w:(])", without_strings)
    return {word for word in words if word not in LABELS}


@pytest.fixture(scope="module")
def up(shared_folder: Path) -> Iterator[Stack]:
    """A running stack."""
    with stack(shared_folder) as started:
        yield started


def exported(url: str) -> set[str]:
    """Returns the names of samples that a process exports or will export."""
    with urlopen(url, timeout=5) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}


def test_panels_of_the_dashboard_have_places_of_their_own() -> None:
    """Panels have different ids, and no two of them overlap."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells = [
        (column, row)
        for place in (panel["gridPos"] for panel in PANELS)
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24


def test_names_of_metrics_are_found_in_expressions() -> None:
    """Metrics are distinguished from labels, functions and strings."""
    expression = (
        'sum by (le, gpu_type) (rate(pipeline_a_total{http_route="not_a_metric"}[5m])) / on(rpc_method) db_b_count'
    )
    assert named_metrics(expression) == {"pipeline_a_total", "db_b_count"}


@pytest.mark.slow
def test_every_metric_that_is_looked_at_is_exported(up: Stack) -> None:
    """A metric that a dashboard or a rule names is exported by a process of the stack."""
    exports = set().union(*map(exported, up.running.metrics.values()))
    named = set().union(*map(named_metrics, QUERIES))
    assert len(named) > 30
    assert named - exports - OTHERS == set()


@pytest.mark.slow
def test_every_metric_that_is_exported_is_documented(up: Stack) -> None:
    """docs/operating.md lists each metric."""
    text = (ROOT / "docs" / "operating.md").read_text()
    exports = set().union(*map(exported, up.running.metrics.values()))
    ours = {
        re.sub("_(bucket|sum|count)$", "", name) for name in exports if name.startswith(("pipeline_", "rpc_", "http_"))
    }
    missing = {name for name in ours if name not in text}
    assert missing == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_to_do(alert: str) -> None:
    """Each alert has a severity, waits for a while, and has a section in the runbook that it names."""
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["for"]
    assert rule["annotations"]["runbook"] == f"docs/operating.md#{alert.lower()}"
    assert re.search(rf"^### {alert}$", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE)
    assert alert.removeprefix("Pipeline") in (PROMETHEUS / "rules_test.yaml").read_text()


@pytest.mark.slow
@with_prometheus
def test_alerts_fire_when_they_should() -> None:
    """Prometheus accepts the rules, and each alert fires for the values of its test."""
    for command in (["check", "config", "prometheus.yaml"], ["test", "rules", "rules_test.yaml"]):
        result = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@with_prometheus
def test_prometheus_answers_every_query_of_the_dashboard(up: Stack, tmp_path: Path) -> None:
    """A real Prometheus scrapes the stack, evaluates the rules, and answers each panel's queries."""
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(PROMETHEUS / "rules.yaml")],
        "scrape_configs": [
            {
                "job_name": "pipeline",
                "static_configs": [
                    {"targets": [url.split("/")[2]], "labels": {"process": name}}
                    for name, url in up.running.metrics.items()
                ],
            }
        ],
    }
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={tmp_path}",
        f"--web.listen-address={address}",
    ]

    def ask(path: str, **query: str) -> Any:
        with urlopen(f"http://{address}/api/v1/{path}?{urlencode(query)}", timeout=5) as response:
            return json.load(response)["data"]

    def are_scraped() -> bool:
        try:
            return {each["health"] for each in ask("targets")["activeTargets"]} == {"up"} and all(
                rule["health"] == "ok" for group in ask("rules")["groups"] for rule in group["rules"]
            )
        except OSError:
            return False

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(are_scraped, 60)
            answers = {}
            for expression in EXPRESSIONS:
                query = expression.replace("$job", "pipeline").replace("$__rate_interval", "1m")
                answers[expression] = ask("query", query=query)["result"]
            assert len(answers['sum by (process) (up{job="$job"})']) == len(up.running.metrics)
            assert answers['max(pipeline_database_size_bytes{job="$job"})']
        finally:
            process.terminate()

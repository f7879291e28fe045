"""Writes `pipeline.json`, the dashboard, from the panels below: `make dashboard`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("pipeline.json")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# The grid of a Grafana dashboard is 24 wide: three panels stand beside one another.
WIDTH, HEIGHT, COLUMNS = 8, 7, 3


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph. `queries`: PromQL and the legend of its series. `unit` is one of Grafana's."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    description: str = ""


def series(metric: str, labels: str = "") -> str:
    """Returns the series of a metric of the suite. `labels`: further matchers."""
    return f'{metric}{{job="$job"{labels and ", " + labels}}}'


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


def rate(metric: str, labels: str = "", *, by: str = "", over: str = "$__rate_interval") -> str:
    """Returns the rate of a counter, added up over processes."""
    return f"sum{_by(by)}(rate({series(metric, labels)}[{over}]))"


def quantile(q: float, metric: str, labels: str = "", *, by: str = "", over: str = "$__rate_interval") -> str:
    """Returns a quantile of a histogram over all processes."""
    buckets = rate(f"{metric}_bucket", labels, by=f"le, {by}".rstrip(", "), over=over)
    return f"histogram_quantile({q}, {buckets})"


def figure(metric: str, labels: str = "", *, by: str = "") -> str:
    """Returns what every Jobs process shows alike."""
    return f"max{_by(by)}({series(metric, labels)})"


CALLS, REQUESTS = "rpc_server_call_duration_seconds", "http_server_request_duration_seconds"
FAILED = 'http_response_status_code=~"5.."'
# Requests whose duration is not their client's choice.
SHORT = 'http_route=~"/api/.*", http_route!~".*(events|artifact|export|datasets).*"'

ROWS: dict[str, Sequence[Panel]] = {
    "Overview": [
        Panel(
            "Processes",
            "short",
            [(f"sum by (process) ({series('up')})", "{{process}}")],
            "Processes that Prometheus reaches.",
        ),
        Panel(
            "Requests that failed",
            "percentunit",
            [
                (
                    f"{rate(f'{REQUESTS}_count', FAILED)} / {rate(f'{REQUESTS}_count')}",
                    "of HTTP requests",
                )
            ],
            "Share of HTTP requests that ended with a status of 500 or more.",
        ),
        Panel(
            "Requests",
            "reqps",
            [(rate(f"{REQUESTS}_count", by="http_response_status_code"), "{{http_response_status_code}}")],
        ),
        Panel(
            "Jobs that wait",
            "short",
            [(figure("pipeline_jobs_count", 'state="queued"', by="gpu_type"), "{{gpu_type}}")],
        ),
        Panel(
            "Jobs that train",
            "short",
            [(figure("pipeline_jobs_count", 'state="running"', by="gpu_type"), "{{gpu_type}}")],
        ),
        Panel(
            "Event loop lag, 99th percentile",
            "s",
            [(quantile(0.99, "pipeline_event_loop_lag_seconds", by="process"), "{{process}}")],
            "How late a process runs what is due. Above 0.1 s it has too much to do.",
        ),
        Panel("Processor time", "percentunit", [(rate("process_cpu_seconds_total", by="process"), "{{process}}")]),
        Panel("Memory", "bytes", [(f"max by (process) ({series('process_resident_memory_bytes')})", "{{process}}")]),
        Panel("Open files", "short", [(f"max by (process) ({series('process_open_fds')})", "{{process}}")]),
    ],
    "RPCs and HTTP": [
        Panel("Calls by RPC", "reqps", [(rate(f"{CALLS}_count", by="rpc_method"), "{{rpc_method}}")]),
        Panel(
            "Calls by status",
            "reqps",
            [(rate(f"{CALLS}_count", by="rpc_response_status_code"), "{{rpc_response_status_code}}")],
        ),
        Panel(
            "Refused calls by reason",
            "reqps",
            [(rate("pipeline_calls_refused_total", by="error_type"), "{{error_type}}")],
        ),
        Panel(
            "Duration of unary RPCs, 99th percentile",
            "s",
            [
                (
                    quantile(
                        0.99,
                        CALLS,
                        'rpc_method!~".*/(Watch.*|LeaseJobs|ImportDataset|Download.*|Upload.*)"',
                        by="rpc_method",
                    ),
                    "{{rpc_method}}",
                )
            ],
        ),
        Panel(
            "Duration of HTTP requests, 99th percentile",
            "s",
            [(quantile(0.99, REQUESTS, SHORT, by="http_route"), "{{http_route}}")],
        ),
        Panel("HTTP requests by route", "reqps", [(rate(f"{REQUESTS}_count", by="http_route"), "{{http_route}}")]),
        Panel(
            "Calls at work",
            "short",
            [
                (f"sum by (service) ({series('pipeline_calls_at_work_count')})", "{{service}}"),
                (f"sum by (service) ({series('pipeline_calls_receiving_count')})", "{{service}}, receiving"),
            ],
        ),
        Panel(
            "Open streams",
            "short",
            [(f"sum by (service, role) ({series('pipeline_open_streams_count')})", "{{service}} {{role}}")],
        ),
        Panel(
            "Tokens",
            "short",
            [
                (f"sum by (process) ({series('pipeline_token_cache_count')})", "{{process}}: verified"),
                (f"max by (process) ({series('pipeline_jwks_age_seconds')})", "{{process}}: age of the keys, s"),
            ],
        ),
    ],
    "Queue": [
        Panel(
            "Open jobs by state",
            "short",
            [(f"sum by (state) ({figure('pipeline_jobs_count', by='gpu_type, state')})", "{{state}}")],
        ),
        Panel("Oldest queued job", "s", [(figure("pipeline_queue_age_seconds", by="gpu_type"), "{{gpu_type}}")]),
        Panel(
            "Time to the first lease",
            "s",
            [(quantile(q, "pipeline_queue_wait_seconds"), f"p{q * 100:.0f}") for q in (0.5, 0.95)],
        ),
        Panel("Jobs that became final", "cps", [(rate("pipeline_jobs_finished_total", by="state"), "{{state}}")]),
        Panel(
            "Final cost, by what jobs were created with",
            "currencyUSD",
            [
                (
                    f"sum by (credential) (increase({series('pipeline_final_cost_usd_total')}[1h]))",
                    "{{credential}}, last hour",
                )
            ],
        ),
        Panel(
            "Events behind",
            "s",
            [
                (f"max by (instance) ({series('pipeline_events_lag_seconds')})", "{{instance}}"),
                (figure("pipeline_events_held_back_seconds"), "held back by an open transaction"),
            ],
        ),
        Panel(
            "Imports",
            "Bps",
            [
                (rate("pipeline_import_bytes_total"), "bytes"),
                (rate("pipeline_import_rejected_lines_total"), "errors in rows"),
            ],
        ),
        Panel(
            "Imports by outcome", "cps", [(rate("pipeline_import_duration_seconds_count", by="outcome"), "{{outcome}}")]
        ),
    ],
    "Trainers": [
        Panel("Trainers", "short", [(figure("pipeline_trainers_count", by="gpu_type"), "{{gpu_type}}")]),
        Panel(
            "GPUs",
            "short",
            [
                (figure("pipeline_busy_gpus_count", by="gpu_type"), "{{gpu_type}} in use"),
                (figure("pipeline_free_gpus_count", by="gpu_type"), "{{gpu_type}} free"),
            ],
        ),
        Panel(
            "Jobs that wait for a cluster's scheduler",
            "short",
            [(figure("pipeline_starting_jobs_count", by="gpu_type"), "{{gpu_type}}")],
        ),
        Panel(
            "Jobs that no trainer can take",
            "short",
            [(figure("pipeline_unserved_jobs_count", by="gpu_type"), "{{gpu_type}}")],
            "They need more GPUs of the type than any trainer offers or has leased.",
        ),
        Panel("Leases", "cps", [(rate("pipeline_leases_total", by="gpu_type"), "{{gpu_type}}")]),
        Panel("Leases that ended", "cps", [(rate("pipeline_leases_ended_total", by="outcome"), "{{outcome}}")]),
        Panel(
            "Refused reports",
            "cps",
            [
                (
                    rate("pipeline_calls_refused_total", 'rpc_method=~".*WorkerService/.*"', by="error_type"),
                    "{{error_type}}",
                )
            ],
        ),
    ],
    "Webhooks": [
        Panel("Deliveries that are not final", "short", [(figure("pipeline_webhook_outbox_count"), "deliveries")]),
        Panel("Overdue", "s", [(figure("pipeline_webhook_overdue_seconds"), "oldest delivery that nobody sends")]),
        Panel(
            "Requests by outcome",
            "reqps",
            [(rate("pipeline_webhook_attempt_duration_seconds_count", by="outcome"), "{{outcome}}")],
        ),
        Panel(
            "Duration of requests, 95th percentile",
            "s",
            [(quantile(0.95, "pipeline_webhook_attempt_duration_seconds", by="outcome"), "{{outcome}}")],
        ),
    ],
    "Estimates": [
        Panel("Estimates by kind", "reqps", [(rate("pipeline_estimates_total", by="kind"), "{{kind}}")]),
        Panel(
            "Duration of EstimateCost",
            "s",
            [(quantile(q, CALLS, 'rpc_method=~".*/EstimateCost"'), f"p{q * 100:.0f}") for q in (0.5, 0.99)],
        ),
        Panel("Age of the oldest price", "s", [(figure("pipeline_price_book_age_seconds"), "oldest price")]),
        Panel(
            "Actual time divided by the forecast's median, 7 days",
            "percentunit",
            [(quantile(q, "pipeline_forecast_duration_ratio", over="7d"), f"p{q * 100:.0f}") for q in (0.1, 0.5, 0.9)],
            "Of jobs that trained in one go. 100 %: as forecast.",
        ),
    ],
    "Postgres": [
        Panel(
            "Connections of the pools",
            "short",
            [
                (
                    f"sum by (process, db_client_connection_state) ({series('db_client_connection_count')})",
                    "{{process}} {{db_client_connection_state}}",
                )
            ],
        ),
        Panel(
            "Calls that wait for a connection",
            "short",
            [(f"sum by (process) ({series('db_client_connection_pending_requests')})", "{{process}}")],
        ),
        Panel("Database answers", "short", [(f"min by (process) ({series('pipeline_database_up')})", "{{process}}")]),
        Panel(
            "Connections of the database",
            "short",
            [
                (figure("pipeline_database_connections_count"), "open"),
                (figure("pipeline_database_max_connections_count"), "most"),
            ],
        ),
        Panel("Size", "bytes", [(figure("pipeline_database_size_bytes"), "database")]),
    ],
}


def expressions() -> Iterator[str]:
    """Yields the PromQL of every panel."""
    for panels in ROWS.values():
        for panel in panels:
            for expression, _ in panel.queries:
                yield expression


def dashboard() -> dict[str, Any]:
    """Returns the dashboard as Grafana imports it."""
    return {
        "uid": "pipeline",
        "title": "PIPELINE",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "job",
                    "label": "Job",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": "label_values(pipeline_token_cache_count, job)",
                    "refresh": 1,
                },
            ]
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": top},
            "panels": [],
        }
        top += 1
        for nth, panel in enumerate(panels):
            number += 1
            position = {"h": HEIGHT, "w": WIDTH, "x": nth % COLUMNS * WIDTH, "y": top + nth // COLUMNS * HEIGHT}
            yield _panel(number, panel, position)
        top += -(-len(panels) // COLUMNS) * HEIGHT


def _panel(number: int, panel: Panel, position: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            # Exemplars are links to traces.
            {
                "refId": chr(ord("A") + nth),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "exemplar": True,
            }
            for nth, (expression, legend) in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(dashboard(), indent=2) + "\n")

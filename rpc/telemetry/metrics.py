"""Prometheus metrics of a process, with the names of OpenTelemetry's conventions if there are any."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

# `rpc_`, `http_` and `db_` are OpenTelemetry's own names.
NAME = re.compile(r"(pipeline|rpc|http|db)(_[a-z0-9]+)+")
# Units, the last word of a name: `count` for numbers of things, `up` for 1 and 0.
UNITS = ("seconds", "bytes", "ratio", "count", "requests", "total", "up")
# Labels with few values. No label may contain a user, a job or anything else that clients send.
LABELS = frozenset(
    {
        "rpc_method",
        "rpc_response_status_code",
        "error_type",
        "http_request_method",
        "http_route",
        "http_response_status_code",
        "db_client_connection_state",
        "credential",
        "gpu_type",
        "kind",
        "outcome",
        "role",
        "service",
        "state",
    }
)
CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
LAG_INTERVAL_SECONDS = 0.5

# Values by their labels' values.
Values = Mapping[tuple[str, ...], float]


class Metrics:
    """The metrics of a process; each name is registered once.

    Raises ValueError for a name without our prefix or a unit, and for a label that is not in `LABELS`.
    """

    def __init__(self) -> None:
        # The time at which each series was created is a third of all series, and is not used.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client does not type it
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._calls = self.histograms(
            "rpc_server_call_duration_seconds",
            "Duration of calls and streams.",
            ["rpc_method", "rpc_response_status_code"],
            buckets=CALL_BUCKETS,
        )
        self._refusals = self.counter(
            "pipeline_calls_refused_total",
            "Calls that ended with an error, by its reason.",
            ["rpc_method", "error_type"],
        )

    def observe_call(
        self, method: str, code: str, seconds: float, *, reason: str | None = None, trace_id: str | None = None
    ) -> None:
        """Counts a call of an RPC. `reason`: of its error. `trace_id`: of its recorded trace, the exemplar."""
        self._calls(method, code).observe(seconds, {"trace_id": trace_id} if trace_id else None)
        if reason:
            self._refusals.labels(method, reason).inc()

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """Registers a counter; its name ends with `_total`."""
        return Counter(_checked(name, labels), documentation, labels, registry=self.registry)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        """Registers a gauge whose value is set."""
        return Gauge(_checked(name, labels), documentation, labels, registry=self.registry)

    def histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS,
    ) -> Histogram:
        """Registers a histogram. `buckets` are upper bounds, in the unit of the name."""
        return Histogram(_checked(name, labels), documentation, labels, buckets=buckets, registry=self.registry)

    def histograms(
        self, name: str, documentation: str, labels: Sequence[str], *, buckets: Sequence[float]
    ) -> Callable[..., Histogram]:
        """Registers a histogram with labels. Returns a function from the labels' values to their histogram.

        It caches histograms: to look one up costs as much as an observation.
        """
        return lru_cache(maxsize=1024)(self.histogram(name, documentation, labels, buckets=buckets).labels)

    def watch(self, name: str, documentation: str, read: Callable[[], float], **labels: str) -> None:
        """Registers a gauge whose value `read` returns when metrics are collected, in another thread; it must not block.

        Several gauges of one name differ in their labels.
        """
        registered = self.registry._names_to_collectors.get(name)  # noqa: SLF001 - there is no public look-up
        gauge = registered if isinstance(registered, Gauge) else self.gauge(name, documentation, list(labels))
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def watch_all(self, name: str, documentation: str, labels: Sequence[str], read: Callable[[], Values]) -> None:
        """Registers a gauge with varying labels; `read` is as in `watch`, and returns the values of all series."""
        self.registry.register(_Readings(_checked(name, labels), documentation, labels, read))

    async def measure_lag(self) -> None:
        """Measures how late the event loop runs a timer, until cancelled."""
        lag = self.histogram(
            "pipeline_event_loop_lag_seconds", "How late the event loop runs what is due.", buckets=LAG_BUCKETS
        )
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL_SECONDS
            await asyncio.sleep(LAG_INTERVAL_SECONDS)
            lag.observe(max(0.0, loop.time() - due))


class _Readings(Collector):
    """The gauge of `Metrics.watch_all`."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], read: Callable[[], Values]) -> None:
        self._arguments = name, documentation
        self._labels = labels
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(*self._arguments, labels=self._labels)
        for labels, value in self._read().items():
            family.add_metric(labels, value)
        yield family


def _checked(name: str, labels: Sequence[str]) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name}: the name of a metric is lower-case words after pipeline_, rpc_, http_ or db_")
    if not name.endswith(UNITS):
        raise ValueError(f"{name}: the name of a metric ends with its unit, one of {', '.join(UNITS)}")
    if unbounded := set(labels) - LABELS:
        raise ValueError(f"{name}: labels {', '.join(sorted(unbounded))} are not in LABELS")
    return name

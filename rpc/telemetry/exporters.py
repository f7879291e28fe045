"""Exports the telemetry of a process: metrics on a port for Prometheus and probes, and spans over OTLP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import structlog

from rpc.errors import OperatorError
from rpc.process.background import background
from rpc.process.settings import TelemetrySettings
from rpc.telemetry.metrics import Metrics
from rpc.telemetry.server import MetricsServer
from rpc.telemetry.traces import RatioTracer

OFF = -1

log = structlog.get_logger()


@dataclass(slots=True)
class Telemetry:
    """Metrics and tracer of a process. Without a tracer, no span is recorded.

    `is_ready` is the result of `/readyz` at the port of the metrics; None: there is no such path.
    """

    metrics: Metrics = field(default_factory=Metrics)
    tracer: RatioTracer | None = None
    is_ready: bool | None = None


@asynccontextmanager
async def open_telemetry(settings: TelemetrySettings, process: str) -> AsyncIterator[Telemetry]:
    """Exports the telemetry of a process while the context is open. Raises OperatorError."""
    with _tracer(settings, process) as tracer:
        telemetry = Telemetry(tracer=tracer)
        stop = serve_metrics(settings, telemetry)
        try:
            async with background({"measure-lag": telemetry.metrics.measure_lag()}):
                yield telemetry
        finally:
            await asyncio.to_thread(stop)


def serve_metrics(settings: TelemetrySettings, telemetry: Telemetry) -> Callable[[], None]:
    """Serves metrics and readiness on a port. Returns the function that stops the server. Raises OperatorError."""
    if settings.metrics_port == OFF:
        return lambda: None
    host, port = settings.metrics_host, settings.metrics_port
    try:
        server = MetricsServer((host, port), telemetry.metrics.registry, lambda: telemetry.is_ready)
    except OSError as error:
        raise OperatorError(f"metrics port {port} on {host}: {error.strerror}; set PIPELINE_METRICS_PORT") from error
    log.info("metrics", address=f"http://{host}:{server.server_port}/metrics")
    server.start()
    return server.stop


@contextmanager
def _tracer(settings: TelemetrySettings, process: str) -> Iterator[RatioTracer | None]:
    if settings.otlp_endpoint is None:
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise OperatorError(f"PIPELINE_OTLP_ENDPOINT needs the extra `otel`: {error}") from error
    provider = TracerProvider(
        resource=Resource.create({"service.name": process, "service.namespace": "pipeline"}),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.otlp_endpoint)))
    try:
        yield RatioTracer(provider.get_tracer("pipeline"), settings.trace_sample_ratio)
    finally:
        provider.shutdown()

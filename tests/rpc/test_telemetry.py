"""Metrics and traces: what a process shows of itself, and under which names."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog.testing
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rpc.boundary import Boundary
from rpc.database.pool import Database
from rpc.identity.model import Identity
from rpc.identity.tokens import SharedSecret, Verifier
from rpc.telemetry import server
from rpc.telemetry.exporters import Telemetry
from rpc.telemetry.metrics import LABELS, NAME, UNITS, Metrics
from rpc.telemetry.traces import RatioTracer
from tests.clients import http_client
from tests.conftest import AUDIENCE, ISSUER, SECRET, TestDatabase, metadata
from tests.door import refused
from tests.processes import environment, running
from tests.rpc.conftest import SERVICE, Servicer
from tests.serving import SETTINGS, serving

CATALOGUE = f"/{SERVICE.full_name}/GetCatalogue"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
# Names that prometheus-client has for Python and the process; they are everybody's.
LIBRARY = ("python_", "process_")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("jobs_count", []),
        ("pipeline_Jobs_count", []),
        ("pipeline_jobs", []),
        ("pipeline_queue_age", []),
        ("pipeline_jobs_count", ["user_id"]),
        ("pipeline_jobs_count", ["state", "dataset"]),
    ],
)
def test_a_metric_has_a_prefix_a_unit_and_bounded_labels(name: str, labels: list[str]) -> None:
    """A name without prefix or unit, and a label that is not on the list, cannot be registered."""
    with pytest.raises(ValueError, match=name):
        Metrics().gauge(name, "A test.", labels)


def exported(text: str) -> dict[tuple[str, ...], float]:
    """Samples by name and label values. Fails for a name or a label against the rules."""
    samples = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith(LIBRARY):
            continue
        assert NAME.fullmatch(family.name), family.name
        assert family.name.endswith(UNITS) or family.type == "counter", family.name
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert set(sample.labels) <= {*LABELS, "le"}, sample
            samples[sample.name, *sample.labels.values()] = sample.value
    return samples


def samples(metrics: Metrics, name: str) -> list[tuple[dict[str, str], float]]:
    """The labels and the value of each sample of a name."""
    families = metrics.registry.collect()
    return [(sample.labels, sample.value) for family in families for sample in family.samples if sample.name == name]


@asynccontextmanager
async def traced(telemetry: Telemetry, servicer: Any) -> AsyncIterator[Any]:
    """A channel to a server with that telemetry."""
    verifier = Verifier(SharedSecret(SECRET), issuer=ISSUER, audience=AUDIENCE)
    boundary = Boundary(SETTINGS, verifier, telemetry)
    async with serving({SERVICE: servicer}, boundary) as address, grpc.aio.insecure_channel(address) as channel:
        yield channel


async def test_calls_are_counted_by_method_and_code() -> None:
    """Each call is one observation of its method and status; what clients make up adds no series."""
    telemetry = Telemetry()
    async with traced(telemetry, Servicer()) as channel:
        for _ in range(3):
            await channel.unary_unary(CATALOGUE)(b"", metadata=metadata())
        await refused(channel.unary_unary(CATALOGUE)(b"", metadata=[]))
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(f"/{SERVICE.full_name}/Nonsense")(b"", metadata=metadata())
    samples = exported(generate_latest(telemetry.metrics.registry).decode())
    counts = {key[1:]: value for key, value in samples.items() if key[0] == "rpc_server_call_duration_seconds_count"}
    assert counts == {(CATALOGUE[1:], "OK"): 3, (CATALOGUE[1:], "UNAUTHENTICATED"): 1}


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """Spans that were recorded."""
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(spans: InMemorySpanExporter) -> Telemetry:
    """Telemetry that records spans."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return Telemetry(tracer=RatioTracer(provider.get_tracer("test")))


def only(spans: InMemorySpanExporter, kind: SpanKind) -> ReadableSpan:
    """The one span of a kind."""
    [span] = [span for span in spans.get_finished_spans() if span.kind == kind]
    return span


async def test_a_call_and_its_statements_continue_the_callers_trace(
    telemetry: Telemetry, spans: InMemorySpanExporter, database: TestDatabase
) -> None:
    """The span of a call is a child of the caller's, statements are its children, and calls that it makes are passed on."""
    passed_on = {}
    async with Database.open(database.url, size=1) as pool:

        async def work(call: Any) -> None:
            passed_on.update(call.forward())
            async with pool.as_caller(Identity(call.identity.user_id, "user", 0)) as transaction:
                await transaction.fetchval("/* count_jobs */ select count(*) from lora_training_jobs")

        async with traced(telemetry, Servicer(work)) as channel:
            with structlog.testing.capture_logs() as lines:
                await channel.unary_unary(CATALOGUE)(b"", metadata=[*metadata(), ("traceparent", TRACEPARENT)])
    call, statement = only(spans, SpanKind.SERVER), only(spans, SpanKind.CLIENT)
    assert call.name == CATALOGUE[1:]
    assert call.parent is not None
    assert (f"{call.context.trace_id:032x}", call.parent.span_id) == (TRACE, 0x00F067AA0BA902B7)
    assert dict(call.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": CATALOGUE[1:],
        "rpc.response.status_code": "OK",
    }
    assert (statement.name, statement.parent) == ("count_jobs", call.context)
    assert (statement.attributes or {})["db.query.summary"] == "count_jobs"
    assert passed_on["traceparent"] == f"00-{TRACE}-{call.context.span_id:016x}-01"
    assert [line["trace_id"] for line in lines if line["event"] == "call"] == [TRACE]


@pytest.mark.parametrize("caller", [None, f"{TRACEPARENT[:-2]}00"])
async def test_a_trace_that_is_not_recorded_is_passed_on(
    telemetry: Telemetry, spans: InMemorySpanExporter, caller: str | None
) -> None:
    """Where neither the caller nor the ratio wants a trace, no span is made; its id is in the log and passed on as such."""
    assert telemetry.tracer is not None
    telemetry.tracer = telemetry.tracer._replace(ratio=0.0)
    passed_on: dict[str, str] = {}

    async def work(call: Any) -> None:
        passed_on.update(call.forward())

    async with traced(telemetry, Servicer(work)) as channel:
        with structlog.testing.capture_logs() as lines:
            more = [("traceparent", caller)] if caller else []
            await channel.unary_unary(CATALOGUE)(b"", metadata=[*metadata(), *more])
    assert spans.get_finished_spans() == ()
    assert passed_on["traceparent"].endswith("-00")
    assert caller in (None, passed_on["traceparent"])
    assert [line["trace_id"] for line in lines if line["event"] == "call"] == [passed_on["traceparent"][3:35]]


async def test_a_servers_error_marks_its_span(telemetry: Telemetry, spans: InMemorySpanExporter) -> None:
    """INTERNAL is an error of the span; a caller's mistake is not."""

    async def work(call: Any) -> None:
        raise ZeroDivisionError

    async with traced(telemetry, Servicer(work)) as channel:
        await refused(channel.unary_unary(CATALOGUE)(b"", metadata=metadata()))
        assert not only(spans, SpanKind.SERVER).status.is_ok
        spans.clear()
        await refused(channel.unary_unary(CATALOGUE)(b"", metadata=[]))
        assert only(spans, SpanKind.SERVER).status.is_unset


@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        TRACEPARENT.upper(),
    ],
)
async def test_a_malformed_traceparent_begins_a_new_trace(
    telemetry: Telemetry, spans: InMemorySpanExporter, value: str
) -> None:
    """M04: what is no traceparent is ignored, and neither logged nor passed on."""
    async with traced(telemetry, Servicer()) as channel:
        await channel.unary_unary(CATALOGUE)(b"", metadata=[*metadata(), ("traceparent", value)])
    span = only(spans, SpanKind.SERVER)
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE


async def test_without_a_tracer_the_trace_is_passed_on_as_it_is() -> None:
    """Nothing is recorded; the id is in the log line, and calls on behalf of this one have the same traceparent."""
    passed_on = {}

    async def work(call: Any) -> None:
        passed_on.update(call.forward())

    async with traced(Telemetry(), Servicer(work)) as channel:
        with structlog.testing.capture_logs() as lines:
            await channel.unary_unary(CATALOGUE)(b"", metadata=[*metadata(), ("traceparent", TRACEPARENT)])
    assert passed_on["traceparent"] == TRACEPARENT
    assert [line["trace_id"] for line in lines if line["event"] == "call"] == [TRACE]


@pytest.mark.slow
async def test_every_process_shows_its_metrics_on_a_port_of_its_own(database: TestDatabase) -> None:
    """Each worker has its own, on loopback and with no setting; their names keep the rules."""
    variables = environment(database.url)
    async with running("estimator_service", variables, "--workers", "2") as server, http_client() as client:
        address = await server.address()
        async with asyncio.timeout(30):
            while len(result := [line["address"] for line in server.lines if line.get("event") == "metrics"]) < 2:
                await asyncio.sleep(0.02)
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.unary_unary(CATALOGUE)(b"", metadata=metadata())
        async with asyncio.timeout(30):
            while True:
                texts = [(await client.get(url)).text for url in result]
                # The first check of the database may still be under way.
                if all("pipeline_database_up 1.0" in text for text in texts):
                    break
                await asyncio.sleep(0.05)
    assert len(set(result)) == 2
    assert all(url.startswith("http://127.0.0.1:") for url in result)
    both = [exported(text) for text in texts]
    assert sum(samples.get(("rpc_server_call_duration_seconds_count", CATALOGUE[1:], "OK"), 0) for samples in both) == 1
    for samples in both:
        assert samples["pipeline_event_loop_lag_seconds_count",] >= 0
        assert samples["pipeline_open_streams_count", "user", "estimator"] == 0
        assert ("db_client_connection_count", "used") in samples
        assert ("pipeline_token_cache_count",) in samples
        assert samples["pipeline_jwks_age_seconds",] == 0


async def test_the_metrics_port_answers_in_a_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that say nothing hold four threads at most, for as long as a client may be silent; then others are served."""
    monkeypatch.setattr(server, "TIMEOUT_SECONDS", 0.2)
    opened = server.MetricsServer(("127.0.0.1", 0), Metrics().registry, lambda: True)
    opened.start()
    silent = [socket.create_connection(("127.0.0.1", opened.server_port)) for _ in range(3 * server.MAX_REQUESTS)]
    try:
        async with http_client() as client:
            answer = await client.get(f"http://127.0.0.1:{opened.server_port}/readyz", timeout=10)
        assert answer.status_code == 200
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("metrics")]
        assert len(threads) == server.MAX_REQUESTS + 1
    finally:
        for each in silent:
            each.close()
        await asyncio.to_thread(opened.stop)


@pytest.mark.slow
async def test_a_metrics_port_in_use_and_one_that_is_off(database: TestDatabase) -> None:
    """A port that is taken is told in one line; -1 opens none."""
    async with running("estimator_service", environment(database.url, PIPELINE_METRICS_PORT="-1")) as server:
        await server.address()
        assert not [line for line in server.lines if line.get("event") == "metrics"]
    blocker = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = str(blocker.sockets[0].getsockname()[1])
    async with running("estimator_service", environment(database.url, PIPELINE_METRICS_PORT=port)) as server:
        async with asyncio.timeout(30):
            assert await server.process.wait() == 2
    blocker.close()
    assert "PIPELINE_METRICS_PORT" in server.text

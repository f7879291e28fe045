"""A trace through every process."""

from __future__ import annotations

import httpx
import pytest
import structlog.testing
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rpc.telemetry.exporters import Telemetry
from rpc.telemetry.traces import RatioTracer
from tests.clients import http_client
from tests.conftest import NewDataset, Stack
from tests.gateway.conftest import bearer, new_request, open_gateway

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_one_trace_leads_through_every_service(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A browser's traceparent is in the log lines of the gateway, of Jobs, and of the Estimator that Jobs calls."""
    job = {**new_request(await new_dataset(me)), "preset_id": "custom", "estimated_cost": 1}
    with structlog.testing.capture_logs() as lines:
        response = await api.post("/api/jobs", json=job, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    assert response.status_code == 201, response.text
    traced = {line.get("rpc") or line["path"] for line in lines if line.get("trace_id") == TRACE}
    assert traced == {
        "/api/jobs",
        "/pipeline.jobs.v1.JobsService/CreateJob",
        "/pipeline.estimator.v1.EstimatorService/EstimateCost",
    }


@pytest.mark.asyncio(loop_scope="session")
async def test_a_request_is_a_span_named_after_its_route(shared_stack: Stack, me: str) -> None:
    """The name has the route's pattern and not the path, which clients make up; a path without a route adds nothing."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracer=RatioTracer(provider.get_tracer("tests")))
    async with open_gateway(shared_stack, telemetry) as url, http_client(url, timeout=10, headers=bearer(me)) as client:
        assert (await client.get(f"/api/jobs/{me}")).status_code == 404
        await client.get("/made/up")
    spans = [span for span in exporter.get_finished_spans() if "http.request.method" in (span.attributes or {})]
    assert [(span.name, dict(span.attributes or {}).get("http.route")) for span in spans] == [
        ("GET /api/jobs/{id}", "/api/jobs/{id}"),
        ("GET", None),
    ]

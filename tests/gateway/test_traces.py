"""A trace through every process."""

from __future__ import annotations

import httpx
import structlog.testing

from tests.conftest import NewDataset
from tests.gateway.conftest import new_request

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

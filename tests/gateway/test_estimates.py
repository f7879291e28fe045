"""Forecasts, comparisons, quotes and accuracy over JSON."""

from __future__ import annotations

import httpx
import pytest

from tests.conftest import NewDataset
from tests.gateway.conftest import new_request

LLAMA = {"base_model": "llama-3.1-8b"}


async def test_a_forecast_has_words_for_what_it_says(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A forecast over JSON has a range, words for confidence and verdict, and null for what it does not know."""
    # Long enough that start-up, which is assumed, is less than half of it.
    hyperparameters = {"batch_size": 4, "epochs": 6, "learning_rate": 5e-5, "rank": 16}
    body = new_request(await new_dataset(me), hyperparameters=hyperparameters, **LLAMA)
    data = (await api.post("/api/jobs/estimate", json=body)).json()["data"]
    assert data["forecast"]["hours"]["p10"] < data["estimated_duration_hours"] < data["forecast"]["hours"]["p90"]
    assert (data["forecast"]["confidence"], data["memory"]["verdict"]) == ("high", "fits")
    assert (data["forecast"]["truncated_share"], data["repairs"]) == (None, [])


async def test_a_repair_is_applied_by_merging(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A job that does not fit is refused with 400; with a repair of its estimate merged in, it is queued."""
    body = new_request(
        await new_dataset(me),
        base_model="llama-3.1-70b",
        preset_id="balanced",
        gpu_config={"type": "H100", "count": 1},
    )
    refused = await api.post("/api/jobs", json=body)
    assert (refused.status_code, refused.json()["reason"]) == (400, "DOES_NOT_FIT")
    estimated = {key: value for key, value in body.items() if key != "preset_id"}
    repairs = (await api.post("/api/jobs/estimate", json=estimated)).json()["data"]["repairs"]
    patch = repairs[0]["patch"]
    for part in ("gpu_config", "hyperparameters", "training"):
        changes = {name: value for name, value in (patch[part] or {}).items() if value not in (None, [])}
        if changes:
            body[part] = {**body.get(part, {}), **changes}
    created = await api.post("/api/jobs", json=body)
    assert created.status_code == 201
    assert created.json()["data"]["estimated_total_cost"] == repairs[0]["estimated_cost"]


async def test_a_quote_is_made_read_and_used(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A quote comes with 201, reads the same from its address, prices its job, and refuses another with what differs."""
    body = new_request(await new_dataset(me), **LLAMA)
    made = await api.post("/api/quotes", json=body)
    assert made.status_code == 201
    quote = made.json()["data"]
    assert (await api.get(f"/api/quotes/{quote['id']}")).json()["data"] == quote
    job = {**body, "preset_id": "balanced", "quote_id": quote["id"]}
    created = (await api.post("/api/jobs", json=job)).json()["data"]
    assert (created["estimated_total_cost"], created["quote"]) == (quote["cost_p50"], quote)
    other = await api.post("/api/jobs", json={**job, "gpu_config": {"type": "A100-80GB", "count": 4}})
    assert (other.status_code, other.json()["reason"]) == (400, "QUOTE_MISMATCH")
    assert "gpu_config.count 2 → 4" in other.json()["details"]


async def test_a_comparison_names_its_best_points(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A comparison over JSON has every point with its verdict, and an index for each goal or null."""
    body = {"dataset_id": await new_dataset(me), **LLAMA, "deadline_hours": 4, "preset_ids": ["fast", "balanced"]}
    data = (await api.post("/api/jobs/compare", json=body)).json()["data"]
    assert len(data["points"]) == 11 * 4 * 2
    best = data["points"][data["cheapest_under_deadline"]]
    assert best["hours_p90"] <= 4
    assert data["fastest_under_budget"] is None
    assert {point["preset_id"] for point in data["points"]} == {"fast", "balanced"}


@pytest.mark.parametrize(
    ("path", "fields", "status", "reason"),
    [
        ("/api/jobs/compare", {"gpu_counts": [0]}, 400, "VALIDATION_FAILED"),
        ("/api/jobs/compare", {"gpu_counts": [1, 1]}, 400, "VALIDATION_FAILED"),
        ("/api/jobs/compare", {"deadline_hours": "4h"}, 400, "VALIDATION_FAILED"),
        ("/api/jobs/compare", {"points": 5}, 400, "VALIDATION_FAILED"),
        ("/api/quotes", {"base_model": "gpt-5"}, 400, "UNKNOWN_BASE_MODEL"),
        ("/api/quotes", {"training": {"method": "LORA"}}, 400, "VALIDATION_FAILED"),
        ("/api/quotes", {"training": {"sequence_length": 2.5}}, 400, "VALIDATION_FAILED"),
        ("/api/quotes", {"provider": "x\u0000"}, 400, "VALIDATION_FAILED"),
    ],
)
async def test_bad_bodies_are_refused(
    api: httpx.AsyncClient,
    new_dataset: NewDataset,
    me: str,
    path: str,
    fields: dict[str, object],
    status: int,
    reason: str,
) -> None:
    """J03, J06 and E04 for the new calls: wrong types, unknown names and values outside the limits are 400."""
    body = {"dataset_id": await new_dataset(me), **LLAMA, **fields}
    if path == "/api/quotes":
        body = {**new_request(body["dataset_id"]), **body}
    answer = await api.post(path, json=body)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


async def test_accuracy_has_no_figure_yet(api: httpx.AsyncClient) -> None:
    """Without finished jobs of five users the accuracy is null, with a sentence for people."""
    data = (await api.get("/api/estimates/accuracy")).json()["data"]
    assert (data["overall"], data["months"]) == (None, [])
    assert data["note"].startswith("No figure yet")

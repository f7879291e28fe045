"""The JSON API, as spec.md says it."""

from __future__ import annotations

import uuid

import httpx
import orjson

from tests.conftest import NewDataset
from tests.gateway.conftest import bearer, new_request

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"


async def test_an_estimate_has_every_figure(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """The estimate over JSON is that of the formula, to the digit, in the shape of the specification."""
    answer = await api.post("/api/jobs/estimate", json=new_request(await new_dataset(me)))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    data = answer.json()["data"]
    assert {name: data[name] for name in list(data)[:5]} == {
        "estimated_cost": 6.03,
        "cost_breakdown": {"compute": 5.53, "storage": 0.5},
        "estimated_duration_hours": 0.79,
        "hourly_rate": 7.0,
        "training_details": {
            "total_steps": 3750,
            "steps_per_epoch": 1250,
            "estimated_throughput_tokens_per_sec": 3600.0,
            "dataset_name": "Questions",
        },
    }
    assert (data["forecast"], data["memory"], data["repairs"], data["quote"]) == (None, None, [], None)


async def test_a_job_is_created_read_and_listed(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A job goes in with 201 and comes back alike from its address and from the list."""
    body = new_request(await new_dataset(me), preset_id="balanced", estimated_cost=6.03)
    created = await api.post("/api/jobs", json=body)
    assert created.status_code == 201
    job = created.json()["data"]
    assert (job["status"], job["current_stage"], job["preset_id"]) == ("queued", "queued", "balanced")
    assert (job["current_metrics"], job["current_cost"], job["started_at"]) == ({}, 0.0, None)
    assert (job["estimated_total_cost"], job["estimate_differs"]) == (6.03, False)
    assert job["queued_at"].endswith("Z")
    assert (await api.get(f"/api/jobs/{job['id']}")).json()["data"] == job
    listed = (await api.get("/api/jobs?page=1&limit=10&status=queued")).json()["data"]
    assert listed == {
        "jobs": [job],
        "pagination": {"page": 1, "limit": 10, "total": 1, "totalPages": 1},
        "status_counts": {"queued": 1},
    }
    assert job["dataset"] == {"name": "Questions", "format": "messages", "total_training_pairs": 5000}


async def test_jobs_are_named_labelled_found_and_deleted_over_http(
    api: httpx.AsyncClient, new_dataset: NewDataset, me: str
) -> None:
    """Name and labels go in with a job and with PUT, lists filter by them and sort, and DELETE takes a final job away."""
    dataset = await new_dataset(me)
    first, second = [
        (
            await api.post("/api/jobs", json=new_request(dataset, preset_id="fast", name=name, labels=["a", "b c"]))
        ).json()["data"]
        for name in ("one", "two")
    ]
    assert (first["name"], first["labels"]) == ("one", ["a", "b c"])
    renamed = await api.put(f"/api/jobs/{first['id']}", json={"name": "zero", "labels": ["a"]})
    assert (renamed.status_code, renamed.json()["data"]["name"]) == (200, "zero")
    for query, expected in (
        ("labels=a&sort=name", ["zero", "two"]),
        ("labels=a&labels=b+c", ["two"]),
        ("search=ZER", ["zero"]),
        ("sort=name&ascending=true&limit=1", ["two"]),
    ):
        listed = (await api.get(f"/api/jobs?{query}")).json()["data"]
        assert [job["name"] for job in listed["jobs"]] == expected, query
    assert (await api.get("/api/jobs?sort=colour")).status_code == 400
    early = await api.delete(f"/api/jobs/{second['id']}")
    assert (early.status_code, early.json()["reason"]) == (400, "INVALID_TRANSITION")
    cancelled = (await api.post(f"/api/jobs/{second['id']}/cancel")).json()["data"]
    assert cancelled["allowed_actions"] == ["delete"]
    assert (await api.delete(f"/api/jobs/{second['id']}")).status_code == 200
    assert (await api.get(f"/api/jobs/{second['id']}")).status_code == 404
    assert (await api.get("/api/jobs")).json()["data"]["status_counts"] == {"queued": 1}


async def test_a_dataset_goes_up_as_its_file(api: httpx.AsyncClient) -> None:
    """A file is imported by posting it; its name and description are query parameters, and it can be found again."""
    line = orjson.dumps({"prompt": "Hello", "completion": "Good day"}) + b"\n"
    answer = await api.post(
        "/api/datasets?name=My+greetings&file_name=greetings.jsonl",
        content=line * 5_000,
        headers={"content-type": "application/jsonl"},
    )
    assert answer.status_code == 201
    dataset = answer.json()["data"]
    assert (dataset["name"], dataset["status"], dataset["format"]) == ("My greetings", "ready", "prompt_completion")
    assert (dataset["total_training_pairs"], dataset["file_size"]) == (5_000, 5_000 * len(line))
    result = (await api.get("/api/datasets?search=greet&status=ready")).json()["data"]
    assert [each["id"] for each in result["datasets"]] == [dataset["id"]]
    assert (await api.get(f"/api/datasets/{dataset['id']}")).json()["data"] == dataset


async def test_notifications_are_listed_and_read(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A new job's notification is unread, is marked as read without a body, and then is not unread any more."""
    job = (await api.post("/api/jobs", json=new_request(await new_dataset(me), preset_id="custom"))).json()["data"]
    unread = (await api.get("/api/notifications?unread=true")).json()["data"]
    (notice,) = unread["notifications"]
    assert notice["metadata"] == {"job_id": job["id"], "dataset_name": "Questions"}
    assert (notice["action_url"], unread["unread_count"]) == (f"/training/jobs/{job['id']}", 1)
    marked = await api.post(f"/api/notifications/{notice['id']}/read")
    assert (marked.status_code, marked.json()["data"]["read"]) == (200, True)
    assert (await api.get("/api/notifications?unread=true")).json()["data"]["notifications"] == []


async def test_the_catalogue_is_there(api: httpx.AsyncClient) -> None:
    """What a form needs comes over the API: types, presets, limits, sliders and defaults."""
    data = (await api.get("/api/catalogue")).json()["data"]
    assert [preset["id"] for preset in data["presets"]] == ["fast", "balanced", "quality"]
    assert data["defaults"] == {"preset_id": "balanced", "gpu_config": {"type": "A100-80GB", "count": 2}}


async def test_anothers_things_are_as_absent_as_none(
    api: httpx.AsyncClient, http: httpx.AsyncClient, new_dataset: NewDataset, me: str
) -> None:
    """Z01: another user's job and no job at all get the same bytes; so do datasets."""
    dataset = await new_dataset(me)
    job = (await api.post("/api/jobs", json=new_request(dataset, preset_id="fast"))).json()["data"]["id"]
    for path, known_names in (("/api/jobs/{}", job), ("/api/datasets/{}", dataset)):
        result = [
            (await http.get(path.format(each), headers=bearer(OTHER) | {"x-request-id": "same"})).content
            for each in (known_names, uuid.uuid4())
        ]
        assert result[0] == result[1]
    for body in (new_request(dataset), new_request(str(uuid.uuid4()))):
        answer = await http.post("/api/jobs/estimate", json=body, headers=bearer(OTHER))
        assert (answer.status_code, answer.json()["error"]) == (404, "Dataset not found or access denied")


async def test_a_dataset_that_is_not_ready_says_so(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A dataset that cannot be trained on gets 400 with its status and readiness in the details."""
    body = new_request(await new_dataset(me, status="validating", training_ready=False))
    answer = await api.post("/api/jobs/estimate", json=body)
    data = answer.json()
    assert (answer.status_code, data["error"], data["reason"]) == (
        400,
        "Dataset not ready for training",
        "DATASET_NOT_READY",
    )
    assert "'validating'" in data["details"]
    assert "training_ready is false" in data["details"]


async def test_idempotency_over_http(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """I01, I02, I04 and I05: the header is the key; again is the same job, other content or a bad key is refused."""
    body = new_request(await new_dataset(me), preset_id="fast")
    key = {"idempotency-key": str(uuid.uuid4())}
    first, again = [(await api.post("/api/jobs", json=body, headers=key)).json()["data"]["id"] for _ in range(2)]
    assert first == again
    other = await api.post("/api/jobs", json={**body, "preset_id": "quality"}, headers=key)
    assert (other.status_code, other.json()["reason"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert first in other.json()["details"]
    bad = await api.post("/api/jobs", json=body, headers={"idempotency-key": "x"})
    assert (bad.status_code, list(bad.json()["details"])) == (400, ["request_id"])
    disagrees = await api.post("/api/jobs", json={**body, "request_id": str(uuid.uuid4())}, headers=key)
    assert (disagrees.status_code, list(disagrees.json()["details"])) == (400, ["request_id"])
    empty = [
        (await api.post("/api/jobs", json={**body, "request_id": ""}, headers={"idempotency-key": ""})).json()
        for _ in range(2)
    ]
    assert empty[0]["data"]["id"] != empty[1]["data"]["id"]


async def test_webhooks_are_kept_over_http(api: httpx.AsyncClient) -> None:
    """A webhook is made, seen without its secret, sent back so, changed, tested and deleted; what is bad is told by field."""
    url = "http://127.0.0.1:9/hook"
    created = await api.post("/api/webhooks", json={"url": url, "event_types": ["job_completed"]})
    assert created.status_code == 201
    webhook = created.json()["data"]["webhook"]
    assert created.json()["data"]["secret"].startswith("whsec_")
    assert (webhook["url"], webhook["enabled"], webhook["disabled_reason"]) == (url, True, None)
    assert (await api.get("/api/webhooks")).json()["data"] == {"webhooks": [webhook]}
    path = f"/api/webhooks/{webhook['id']}"
    assert (await api.get(path)).json()["data"] == webhook
    again = await api.put(path, json=webhook)
    assert (again.status_code, again.json()["data"] | {"updated_at": webhook["updated_at"]}) == (200, webhook)
    for other in (str(uuid.uuid4()), None):
        response = await api.put(path, json={**webhook, "id": other})
        assert (response.status_code, response.json()["details"]) == (400, {"id": ["differs from the path"]})
    test = (await api.post(f"{path}/test")).json()["data"]
    assert (test["type"], test["status"], test["attempts"]) == ("webhook_test", "pending", [])
    listed = (await api.get(f"{path}/deliveries?limit=5")).json()["data"]
    assert ([each["id"] for each in listed["deliveries"]], listed["pagination"]["total"]) == ([test["id"]], 1)
    changed = (await api.put(path, json={"url": url, "description": "Mine", "enabled": False})).json()["data"]
    assert (changed["description"], changed["event_types"], changed["disabled_reason"]) == ("Mine", [], "by_owner")
    rotated = (await api.post(f"{path}/secret")).json()["data"]
    assert rotated["webhook"]["old_secret_until"].endswith("Z")
    bad = await api.post("/api/webhooks", json={"url": "https://me:secret@hook.example/"})
    assert (bad.status_code, bad.json()["reason"], list(bad.json()["details"])) == (400, "WEBHOOK_URL_REFUSED", ["url"])
    bad = await api.post("/api/webhooks", json={"url": url, "event_types": ["job_eaten"]})
    assert (bad.status_code, list(bad.json()["details"])) == (400, ["event_types[0]"])
    assert (await api.delete(path)).json() == {"success": True, "data": {}}
    assert (await api.get(path)).status_code == 404


async def test_datasets_are_deleted_over_http(api: httpx.AsyncClient, me: str, new_dataset: NewDataset) -> None:
    """A dataset in use is kept, with the reason; another is deleted, and then not found."""
    used, unused = await new_dataset(me), await new_dataset(me)
    assert (await api.post("/api/jobs", json=new_request(used, preset_id="balanced"))).status_code == 201
    response = await api.delete(f"/api/datasets/{used}")
    assert (response.status_code, response.json()["reason"]) == (400, "DATASET_IN_USE")
    assert (await api.delete(f"/api/datasets/{unused}")).json() == {"success": True, "data": {}}
    response = await api.delete(f"/api/datasets/{unused}")
    assert (response.status_code, response.json()["reason"]) == (404, "DATASET_NOT_FOUND")


async def test_a_key_that_nothing_holds_is_refused(api: httpx.AsyncClient, me: str, new_dataset: NewDataset) -> None:
    """A call that would act again refuses an idempotency key; one that changes nothing takes no notice of it."""
    key = {"idempotency-key": str(uuid.uuid4())}
    body = new_request(await new_dataset(me))
    upload = await api.post("/api/datasets?name=x", content=b"{}", headers=key | {"content-type": "application/jsonl"})
    assert (upload.status_code, list(upload.json()["details"])) == (400, ["Idempotency-Key"])
    assert (await api.post("/api/jobs/estimate", json=body, headers=key)).status_code == 200

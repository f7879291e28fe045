"""Groups 2 and 3 of the faults: paths, methods and what stands in them."""

from __future__ import annotations

import time
import uuid
from email.utils import parsedate_to_datetime

import httpx
import pytest

from tests.clients import http_client
from tests.conftest import NewDataset, Stack, token
from tests.gateway import raw
from tests.gateway.conftest import ALLOWED, new_request, open_gateway

ID = "aaaaaaaa-0000-4000-8000-00000000000a"
LONG = "a" * 10_240


@pytest.mark.parametrize(
    ("row", "method", "target", "status", "reason"),
    [
        ("R01", "GET", "/nothing", 404, "ROUTE_NOT_FOUND"),
        ("R01", "GET", "/api/nothing", 404, "ROUTE_NOT_FOUND"),
        ("R01", "GET", "/%00", 404, "ROUTE_NOT_FOUND"),
        ("R01", "GET", "/" + "a" * 300, 404, "ROUTE_NOT_FOUND"),
        ("R02", "DELETE", "/api/jobs", 405, "METHOD_NOT_ALLOWED"),
        ("R02", "POST", f"/api/jobs/{ID}", 405, "METHOD_NOT_ALLOWED"),
        ("R02", "GET", "/api/jobs/estimate", 405, "METHOD_NOT_ALLOWED"),
        ("R02", "POST", "/healthz", 405, "METHOD_NOT_ALLOWED"),
        ("R05", "TRACE", "/api/jobs", 405, "METHOD_NOT_ALLOWED"),
        ("R06", "GET", "//api/jobs", 404, "ROUTE_NOT_FOUND"),
        ("R06", "GET", "/api/jobs/", 404, "ROUTE_NOT_FOUND"),
        ("R06", "GET", "/API/jobs", 404, "ROUTE_NOT_FOUND"),
        ("R06", "GET", "/api/./jobs", 404, "ROUTE_NOT_FOUND"),
        ("R06", "GET", "/api/x/../jobs", 404, "ROUTE_NOT_FOUND"),
        ("R08", "POST", "/pipeline.jobs.v1.JobsService/CreateJob", 404, "ROUTE_NOT_FOUND"),
        ("R09", "POST", "/pipeline.workers.v1.WorkerService/LeaseJobs", 404, "ROUTE_NOT_FOUND"),
        ("Q17", "GET", "/api/jobs?" + "&".join(["page=1"] * 1000), 400, "MALFORMED_REQUEST"),
        ("Q17", "GET", "/api/jobs?page=" + "1" * 100_000, 414, "URI_TOO_LONG"),
        ("Q18", "GET", "/api/jobs/", 404, "ROUTE_NOT_FOUND"),
        ("Q18", "GET", f"/api/jobs/{LONG}", 400, "VALIDATION_FAILED"),
        ("Q18", "GET", f"/api/jobs/{{{ID}}}", 400, "VALIDATION_FAILED"),
        ("Q18", "GET", f"/api/jobs/{ID.upper()}", 404, "JOB_NOT_FOUND"),
        ("H09", "GET", f"/{LONG}", 414, "URI_TOO_LONG"),
        ("Q14", "GET", f"/api/jobs/a%2F{ID}", 400, "VALIDATION_FAILED"),
        ("Q14", "GET", "/api/jobs/%2e%2e", 400, "VALIDATION_FAILED"),
        ("Q14", "GET", "/api/jobs/..", 400, "VALIDATION_FAILED"),
        ("Q15", "GET", "/api/jobs/%252F", 400, "VALIDATION_FAILED"),
        *[
            ("Q13", "GET", f"/api/datasets?search={bad}", 400, "MALFORMED_REQUEST")
            for bad in ("%zz", "%", "%ff%fe", "%c0%af")
        ],
        ("Q13", "GET", "/api/datasets?search=%00", 400, "VALIDATION_FAILED"),
        *[("Q13", "GET", f"/api/jobs/{bad}", 400, "MALFORMED_REQUEST") for bad in ("%zz", "%", "%ff%fe", "%c0%af")],
        ("Q16", "GET", "/api/datasets?search=a+b%2Bc", 200, None),
    ],
)
async def test_paths_are_taken_as_they_are(
    gateway_url: str, row: str, method: str, target: str, status: int, reason: str | None, me: str
) -> None:
    """A path is ours to the byte or it is not there; nothing is mended and nobody is sent elsewhere."""
    answer = await raw.send(gateway_url, raw.request(method, target, authorization=f"Bearer {token(me)}"))
    body = answer.json()
    assert (answer.status, body.get("reason")) == (status, reason), row
    assert answer.headers["x-request-id"]
    if status != 200:
        assert set(body) - {"metadata"} == {"error", "details", "code", "reason", "request_id"}
        assert body["request_id"] == answer.headers["x-request-id"]
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("row", "query", "field"),
    [
        ("Q01", "x=1", "x"),
        ("Q02", "id=b", "id"),
        ("Q04", "page=1&page=2", "page"),
        *[("Q05", f"limit={bad}", "limit") for bad in ("", "x", "1.5", "+5", "%205", "5_0", "%D9%A5", "1e3", "05")],
        *[("Q06", f"{name}={bad}", name) for name in ("page", "limit") for bad in (0, -1)],
        *[("Q07", f"limit={bad}", "limit") for bad in (101, 2**31, 2**63)],
        ("Q08", "Limit=1", "Limit"),
        ("Q08", "pageSize=1", "pageSize"),
        *[("Q09", f"status={bad}", "status") for bad in ("QUEUED", "unknown", "0", "99", "", "unspecified")],
        ("A23", "access_token=secret", "access_token"),
    ],
)
async def test_a_query_is_exact_or_refused(api: httpx.AsyncClient, row: str, query: str, field: str) -> None:
    """What is not a value of a parameter that there is gets 400 with the parameter's name, never a default."""
    path = f"/api/jobs/{ID}" if row == "Q02" else "/api/jobs"
    answer = await api.get(f"{path}?{query}")
    body = answer.json()
    assert (answer.status_code, body["error"], list(body["details"])) == (400, "Validation error", [field]), row


@pytest.mark.parametrize("bad", ["1", "TRUE", "", "yes"])
async def test_a_bool_is_true_or_false(api: httpx.AsyncClient, bad: str) -> None:
    """Q10: nothing else counts as a bool."""
    answer = await api.get(f"/api/notifications?unread={bad}")
    assert (answer.status_code, list(answer.json()["details"])) == (400, ["unread"])


async def test_query_and_body_do_not_mix(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """Q03 and Q11: where the body is the message, a field in the query is refused, a message's above all."""
    body = new_request(await new_dataset(me))
    for query in (f"dataset_id={ID}", "gpu_config=x", "gpu_config.type=H100", "gpu_config[type]=H100"):
        answer = await api.post(f"/api/jobs/estimate?{query}", json=body)
        assert (answer.status_code, answer.json()["error"]) == (400, "Validation error"), query


async def test_a_page_past_the_end_is_empty(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """Q07: a page that is not there has no rows, and the true total."""
    await api.post("/api/jobs", json=new_request(await new_dataset(me), preset_id="fast"))
    answer = await api.get("/api/jobs?page=7&limit=100")
    data = answer.json()["data"]
    assert (data["jobs"], data["pagination"]) == ([], {"page": 7, "limit": 100, "total": 1, "totalPages": 1})


async def test_head_has_the_headers_of_get(api: httpx.AsyncClient) -> None:
    """R03: HEAD answers with the headers of the same GET and no body."""
    for path in ("/api/catalogue", "/healthz"):
        got, head = await api.get(path), await api.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length", "content-security-policy", "cache-control"):
            assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("origin", "allowed"), [(ALLOWED, True), ("https://evil.example", False), (f"{ALLOWED}.evil", False)]
)
async def test_cors_is_for_listed_origins(http: httpx.AsyncClient, origin: str, allowed: bool) -> None:
    """R04 and B06: a preflight is answered here, and only a listed origin is let through, without credentials."""
    asks = {"origin": origin, "access-control-request-method": "POST"}
    preflight = await http.options("/api/jobs", headers=asks)
    simple = await http.get("/healthz", headers={"origin": origin})
    assert preflight.status_code == 204
    for answer in (preflight, simple):
        assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert "access-control-allow-credentials" not in answer.headers
    assert ("access-control-allow-headers" in preflight.headers) == allowed


async def test_answers_have_the_servers_time(http: httpx.AsyncClient) -> None:
    """Case 64: each answer has a Date, by which the page corrects a browser's wrong clock."""
    for path in ("/healthz", "/api/jobs", "/nothing"):
        sent = parsedate_to_datetime((await http.get(path)).headers["date"])
        assert abs(sent.timestamp() - time.time()) < 5


async def test_cors_lets_tracing_headers_through(shared_stack: Stack) -> None:
    """Case 67: a preflight allows what tracing libraries send, the headers of the settings, and no others."""
    async with open_gateway(shared_stack, cors_headers=frozenset({"x-tenant"})) as url, http_client(url) as client:
        for header, allowed in (
            ("traceparent, tracestate, baggage, sentry-trace", True),
            ("authorization, last-event-id, idempotency-key", True),
            ("x-tenant", True),
            ("x-other", False),
        ):
            requested = {"access-control-request-method": "GET", "access-control-request-headers": header}
            preflight = await client.options("/api/jobs/events", headers={"origin": ALLOWED, **requested})
            assert ("access-control-allow-headers" in preflight.headers) == allowed, header


async def test_method_overrides_are_ignored(api: httpx.AsyncClient) -> None:
    """R07: the method is the one of the request line."""
    answer = await api.get("/api/jobs", headers={"x-http-method-override": "DELETE"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("accept", "status"),
    [("text/html", 406), ("text/html, */*;q=0.1", 200), ("application/json", 200), ("application/*", 200)],
)
async def test_accept_is_honoured(api: httpx.AsyncClient, accept: str, status: int) -> None:
    """R10: a client that takes no JSON is told so with 406."""
    answer = await api.get("/api/jobs", headers={"accept": accept})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ("R11", {"content-type": ""}),
        ("R11", {"content-type": "text/plain"}),
        ("R11", {"content-type": "application/x-www-form-urlencoded"}),
        ("R11", {"content-type": "multipart/form-data; boundary=x"}),
        ("R12", {"content-type": "application/json; charset=utf-16"}),
        ("H17", {"content-type": "application/json", "content-encoding": "gzip"}),
        ("H17", {"content-type": "application/json", "content-encoding": "br"}),
    ],
)
async def test_only_json_is_taken(api: httpx.AsyncClient, row: str, headers: dict[str, str]) -> None:
    """R11, R12 and H17: a body of another type, charset or encoding gets 415."""
    answer = await api.post("/api/jobs/estimate", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE"), row


async def test_an_upper_case_id_is_the_same(api: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """Q18: a UUID in upper case names the same job."""
    job = (await api.post("/api/jobs", json=new_request(await new_dataset(me), preset_id="fast"))).json()["data"]
    assert (await api.get(f"/api/jobs/{job['id'].upper()}")).json()["data"]["id"] == job["id"]
    assert uuid.UUID(job["id"])

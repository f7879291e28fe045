"""API keys over HTTP: as bearer, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import asyncpg
import httpx
import pytest
import structlog

from rpc.identity import tokens
from rpc.identity.api_keys import new_key
from tests.clients import http_client
from tests.conftest import NewDataset, Stack
from tests.gateway.conftest import bearer, new_request, open_gateway


async def create(http: httpx.AsyncClient, user: str, *scopes: str, **fields: Any) -> dict[str, Any]:
    """A new key of a user."""
    body = {"name": "Script", "scopes": list(scopes or ["read"]), **fields}
    response = await http.post("/api/keys", json=body, headers=bearer(user))
    assert response.status_code == 201, response.text
    return dict(response.json()["data"])


def key_headers(key: str) -> dict[str, str]:
    """Headers of a program with a key."""
    return {"authorization": f"Bearer {key}"}


async def test_a_program_uses_a_key(http: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A key of the page's API creates, lists and cancels a job as curl would; revoked on the page it is gone from the list."""
    made = await create(http, me, "jobs")
    program = key_headers(made["key"])
    dataset = await new_dataset(me)
    created = await http.post("/api/jobs", json=new_request(dataset, preset_id="balanced"), headers=program)
    assert created.status_code == 201, created.text
    job = created.json()["data"]["id"]
    listed = (await http.get("/api/jobs", headers=bearer(me))).json()["data"]["jobs"]
    assert [each["id"] for each in listed] == [job]
    assert (await http.post(f"/api/jobs/{job}/cancel", headers=program)).status_code == 200
    caller = (await http.get("/api/caller", headers=program)).json()["data"]
    assert (caller["user_id"], caller["scopes"]) == (me, ["jobs"])
    (key,) = (await http.get("/api/keys", headers=bearer(me))).json()["data"]["api_keys"]
    assert key["id"] == made["api_key"]["id"]
    assert key["last_used_at"]
    assert (await http.delete(f"/api/keys/{key['id']}", headers=bearer(me))).status_code == 200
    assert (await http.get("/api/keys", headers=bearer(me))).json()["data"]["api_keys"] == []


async def test_a_call_outside_its_scope_is_403(http: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """A reading key reads and estimates; what changes anything is refused with 403 and names the scope."""
    program = key_headers((await create(http, me))["key"])
    dataset = await new_dataset(me)
    assert (await http.get("/api/jobs", headers=program)).status_code == 200
    assert (await http.post("/api/jobs/estimate", json=new_request(dataset), headers=program)).status_code == 200
    for method, path, body in (
        ("POST", "/api/jobs", new_request(dataset)),
        ("POST", "/api/webhooks", {"url": "https://example.com/"}),
        ("POST", "/api/keys", {"name": "More", "scopes": ["read"]}),
        ("GET", "/api/keys", None),
    ):
        refused = await http.request(method, path, json=body, headers=program)
        assert (refused.status_code, refused.json()["reason"]) == (403, "SCOPE_NOT_ALLOWED"), refused.text


async def test_a_key_in_a_url_or_a_cookie_is_none(
    http: httpx.AsyncClient, me: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A key counts in the Authorization header only, and a URL that contains one is not logged with it."""
    key = (await create(http, me, "jobs"))["key"]
    with structlog.testing.capture_logs() as logs:
        for name in ("key", "api_key", "access_token", "authorization", "token"):
            answer = await http.get(f"/api/jobs?{name}={key}")
            assert answer.status_code == 401
            assert key not in answer.text
        assert (await http.get("/api/jobs", headers={"x-api-key": key})).status_code == 401
        for cookie in (f"pipeline_session={key}", f"session={key}", f"token={key}"):
            answer = await http.get("/api/jobs", headers={"cookie": cookie})
            assert answer.status_code == 401
        for scheme in ("Basic", "Token", "ApiKey"):
            assert (await http.get("/api/jobs", headers={"authorization": f"{scheme} {key}"})).status_code == 401
    said = f"{logs}{capfd.readouterr()}"
    assert logs
    assert key[7:] not in said


async def test_a_made_up_key_is_401(http: httpx.AsyncClient, admin: asyncpg.Connection) -> None:
    """Guesses over HTTP are refused as invalid keys."""
    for guess in (new_key(), "pk_", "pk_" + "A" * 43, f"pk_{uuid.uuid4()}"):
        answer = await http.get("/api/jobs", headers=key_headers(guess))
        assert (answer.status_code, answer.json()["reason"]) == (401, "TOKEN_INVALID")


@pytest.mark.asyncio(loop_scope="session")
async def test_a_key_has_the_rates_of_its_user(shared_stack: Stack, me: str) -> None:
    """Calls with keys and with tokens of one user count together; made-up keys count as failed sign-ins of their address."""
    async with (
        open_gateway(shared_stack, user_calls_per_second=2, failed_sign_ins_per_second=2) as url,
        http_client(url) as http,
    ):
        keys = [(await create(http, me))["key"] for _ in range(2)]
        callers = [key_headers(keys[0]), key_headers(keys[1]), bearer(me)]
        answers = [await http.get("/api/catalogue", headers=callers[number % 3]) for number in range(9)]
        assert [each.status_code for each in answers[-3:]] == [429] * 3
        assert {each.json()["reason"] for each in answers[-3:]} == {"RATE_LIMITED"}
        guesses = [(await http.get("/api/catalogue", headers=key_headers(new_key()))).status_code for _ in range(8)]
        assert (guesses[0], guesses[-1]) == (401, 429)
        other = bearer(str(uuid.uuid4()))
        assert (await http.get("/api/catalogue", headers=other)).status_code == 200


@pytest.mark.asyncio(loop_scope="session")
async def test_a_revoked_key_is_refused_over_http(
    shared_stack: Stack, me: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gateway and service remember a key one after the other, together under 30 s; then a revoked key is 401."""
    assert 2 * tokens.KEY_TRUST_SECONDS < 30
    monkeypatch.setattr(tokens, "KEY_TRUST_SECONDS", 0.2)
    async with open_gateway(shared_stack) as url, http_client(url) as http:
        made = await create(http, me)
        program = key_headers(made["key"])
        assert (await http.get("/api/jobs", headers=program)).status_code == 200
        assert (await http.delete(f"/api/keys/{made['api_key']['id']}", headers=bearer(me))).status_code == 200
        async with asyncio.timeout(5):
            while (answer := await http.get("/api/jobs", headers=program)).status_code == 200:
                await asyncio.sleep(0.02)
        assert (answer.status_code, answer.json()["reason"]) == (401, "TOKEN_INVALID")


async def test_the_openapi_document_names_the_scopes(http: httpx.AsyncClient) -> None:
    """The document has the key's routes and its scopes as an enum."""
    text = json.dumps((await http.get("/api/openapi.json")).json())
    for word in ("/api/keys", "/api/caller", "sign_in"):
        assert word in text


async def test_the_audit_log_is_read_and_exported(http: httpx.AsyncClient, new_dataset: NewDataset, me: str) -> None:
    """What a program did with a key is in its user's log with the client's address, as JSON and as JSON lines."""
    key = (await create(http, me, "jobs"))["key"]
    program = key_headers(key)
    body = new_request(await new_dataset(me), preset_id="balanced")
    created = await http.post("/api/jobs", json=body, headers=program | {"x-client-address": "6.6.6.6"})
    page = (await http.get("/api/audit?limit=5", headers=bearer(me))).json()["data"]
    assert [each["action"] for each in page["events"]] == ["job_created", "api_key_used", "api_key_created"]
    newest = page["events"][0]
    assert newest["resource_id"] == created.json()["data"]["id"]
    assert newest["client_address"] == "127.0.0.1"
    assert newest["api_key_id"] == page["events"][2]["resource_id"]
    filtered = (await http.get("/api/audit?action=api_key_created", headers=bearer(me))).json()["data"]
    assert filtered["pagination"]["total"] == 1
    export = await http.get("/api/audit/export", headers=bearer(me))
    assert export.headers["content-type"] == "application/jsonl"
    assert key[7:] not in export.text + str(page)
    lines = [json.loads(line) for line in export.text.splitlines()]
    assert [each["action"] for each in lines] == ["api_key_created", "api_key_used", "job_created"]
    assert lines[2]["resource_id"] == newest["resource_id"]
    assert (await http.get("/api/audit", headers=program)).status_code == 200
    for bad in ("?action=everything", "?page=0", "?limit=101"):
        assert (await http.get(f"/api/audit{bad}", headers=bearer(me))).status_code == 400

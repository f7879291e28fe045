"""Groups 6, 7 and 9 of the faults at the gateway: headers, tokens, cookies and other sites."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable

import asyncpg
import httpx
import pytest

from gateway.__main__ import ESTIMATOR, JOBS, Unconnected
from gateway.api.routes import bindings
from gateway.auth import DEMO_USER
from rpc.methods import methods
from tests.clients import http_client
from tests.conftest import NewDataset, Stack, TestDatabase, token
from tests.gateway import raw
from tests.gateway.conftest import bearer, new_request, open_gateway

ID = "aaaaaaaa-0000-4000-8000-00000000000a"
EVERY_CALL = sorted(
    (binding.verb, re.sub(r"{\w+}", ID, binding.path))
    for service in (*ESTIMATOR, *JOBS)
    for binding in bindings(methods(service), Unconnected())
)


@pytest.mark.parametrize(
    ("row", "held", "status", "reason"),
    [
        ("A01", None, 401, "TOKEN_INVALID"),
        ("A01", "Bearer", 401, "TOKEN_INVALID"),
        ("A01", "Basic x", 401, "TOKEN_INVALID"),
        ("A01", f"bearer {token()}", 200, None),
        ("A03", f"Bearer {token()[:-3]}", 401, "TOKEN_INVALID"),
        ("A04", lambda: f"Bearer {token(exp=int(time.time()) - 1)}", 200, None),
        ("A04", f"Bearer {token(exp=int(time.time()) - 300)}", 401, "TOKEN_EXPIRED"),
        ("A07", f"Bearer {token(aud='other')}", 401, "TOKEN_INVALID"),
        ("A08", f"Bearer {token(iss='other')}", 401, "TOKEN_INVALID"),
        ("A09", f"Bearer {token('nobody')}", 401, "TOKEN_INVALID"),
        ("A14", "Bearer a.b.c.d", 401, "TOKEN_INVALID"),
        ("A14", "Bearer a b", 401, "TOKEN_INVALID"),
        ("A14", f"Bearer {'x' * 7_000}", 401, "TOKEN_INVALID"),
        ("A14", f"Bearer {'x' * 9_000}", 431, "HEADERS_TOO_LARGE"),
        ("A14", f"Bearer {'x' * 100_000}", 431, "HEADERS_TOO_LARGE"),
        ("A15", f"Bearer {token(role='service_role')}", 403, "ROLE_NOT_ALLOWED"),
        ("A15", f"Bearer {token(role=['user'])}", 401, "TOKEN_INVALID"),
        ("Z06", f"Bearer {token(role='worker')}", 403, "ROLE_NOT_ALLOWED"),
        ("M05", "Bearer \xe9\xff", 401, "TOKEN_INVALID"),
    ],
    # The tokens are new in every process that collects these tests.
    ids=[f"{number}" for number in range(19)],
)
async def test_a_token_holds_or_it_does_not(
    gateway_url: str, row: str, held: str | Callable[[], str] | None, status: int, reason: str | None
) -> None:
    """Without a token that holds there is no answer but 401, and a token for something else gets 403."""
    headers = {} if held is None else {"authorization": held() if callable(held) else held}
    answer = await raw.send(gateway_url, raw.request("GET", "/api/jobs", **headers))
    assert (answer.status, answer.json().get("reason")) == (status, reason), row


@pytest.mark.parametrize(("method", "path"), EVERY_CALL)
async def test_every_call_needs_a_token(http: httpx.AsyncClient, method: str, path: str) -> None:
    """Z04: nobody is answered without a token, whatever RPC has a path, and a header that names a user is none (M01)."""
    forged = {"x-user-id": str(uuid.uuid4()), "x-role": "user", "grpc-metadata-authorization": f"Bearer {token()}"}
    answer = await http.request(method, path, headers=forged)
    assert (answer.status_code, answer.json()["reason"]) == (401, "TOKEN_INVALID")


@pytest.mark.asyncio(loop_scope="session")
async def test_who_calls_too_often_waits(shared_stack: Stack) -> None:
    """L01: a user above their rate gets 429 and Retry-After, others do not; nor does who fails at the same address as they."""
    async with (
        open_gateway(shared_stack, user_calls_per_second=2, failed_sign_ins_per_second=2) as url,
        http_client(url) as http,
    ):
        mine, others = bearer(str(uuid.uuid4())), bearer(str(uuid.uuid4()))
        answers = [await http.get("/api/catalogue", headers=mine) for _ in range(8)]
        assert [each.status_code for each in answers[:4]] == [200] * 4
        refused = answers[-1]
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        body = refused.json()
        assert (body["code"], body["reason"]) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        assert "2 calls a second" in body["details"]
        failed = [(await http.get("/api/catalogue", headers={"authorization": "Bearer x"})) for _ in range(8)]
        assert [each.status_code for each in failed[:4]] == [401] * 4
        assert (failed[-1].status_code, failed[-1].headers["retry-after"]) == (429, "1")
        assert (await http.get("/api/catalogue")).status_code == 429
        assert (await http.get("/api/catalogue", headers=others)).status_code == 200
        async with asyncio.timeout(10):
            while (await http.get("/api/catalogue", headers=mine)).status_code != 200:
                await asyncio.sleep(0.1)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    ("proxies", "own", "others", "alike"),
    [
        # Nobody is trusted: all come from where the test does.
        (0, "203.0.113.1", "203.0.113.2", True),
        (1, "203.0.113.1", "203.0.113.2", False),
        (1, "203.0.113.1", "203.0.113.2, 203.0.113.1", True),
        (2, "203.0.113.1, 10.0.0.1", "203.0.113.9, 203.0.113.1, 10.0.0.2", True),
        (2, "203.0.113.1, 10.0.0.1", "203.0.113.2, 10.0.0.1", False),
        # Neither came by two proxies.
        (2, "203.0.113.1", "203.0.113.2", True),
        (1, "x", "y", True),
        (1, "2001:db8::1", "2001:DB8:0::1", True),
        # Ports are not the caller's, and one caller has a whole /64.
        (1, "203.0.113.1:4711", "203.0.113.1", True),
        (1, "203.0.113.1:4711", "203.0.113.2:4711", False),
        (1, "[2001:db8::1]:44", "2001:db8::1", True),
        (1, "[2001:db8::1]", "2001:db8::ffff:0:0:1", True),
        (1, "2001:db8::1", "2001:db8:0:1::1", False),
        (1, "::ffff:203.0.113.1", "203.0.113.1", True),
        (1, "::ffff:203.0.113.1", "::ffff:203.0.113.2", False),
    ],
)
async def test_an_address_is_what_trusted_proxies_say(
    shared_stack: Stack, proxies: int, own: str, others: str, alike: bool
) -> None:
    """M02 and L01: X-Forwarded-For counts as far as proxies are trusted, and what a client wrote there itself does not."""
    async with (
        open_gateway(shared_stack, trusted_proxies=proxies, failed_sign_ins_per_second=0.1) as url,
        http_client(url) as http,
    ):
        statuses = [
            (await http.get("/api/catalogue", headers={"x-forwarded-for": address})).status_code
            for address in (own, own, others)
        ]
    assert statuses == [401, 429, 429 if alike else 401]


async def test_forged_headers_change_nothing(api: httpx.AsyncClient, me: str, new_dataset: NewDataset) -> None:
    """M01 and Z03: who somebody is stands in the token alone; the row belongs to the caller."""
    forged = {"x-user-id": str(uuid.uuid4()), "x-role": "worker", "x-internal-user": "x", "x-foo-bin": "AA=="}
    body = new_request(await new_dataset(me), preset_id="fast")
    assert (await api.post("/api/jobs", json=body, headers=forged)).json()["data"]["user_id"] == me


@pytest.mark.parametrize(
    ("row", "offered", "kept"),
    [
        ("M03", "my-request.1", True),
        ("M03", "x" * 129, False),
        ("M03", "x" * 8_000, False),
        ("M03", "caf\xe9", False),
        ("M03", "a b", False),
        ("M03", "", False),
    ],
)
async def test_a_request_id_is_one_or_is_replaced(gateway_url: str, row: str, offered: str, kept: bool) -> None:
    """M03: a request id that can be printed anywhere is kept, any other is replaced."""
    answer = await raw.send(gateway_url, raw.request("GET", "/api/jobs", x_request_id=offered))
    result = answer.headers["x-request-id"]
    assert (result == offered) is kept, row
    assert answer.json()["request_id"] == result


async def test_two_authorizations_are_refused(gateway_url: str) -> None:
    """M08: a request that says twice who sends it gets 400."""
    data = raw.request("GET", "/api/jobs", authorization="Bearer a").replace(
        b"connection:", b"Authorization: Bearer b\r\nconnection:"
    )
    answer = await raw.send(gateway_url, data)
    assert (answer.status, answer.json()["reason"]) == (400, "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    ("row", "text", "status"),
    [("M06", "100x", 400), ("M06", "-5S", 400), ("M06", "", 400), ("M06", "99999999H", 200), ("M06", "5S", 200)],
)
async def test_a_deadline_is_a_number_and_a_unit(api: httpx.AsyncClient, row: str, text: str, status: int) -> None:
    """M06: a deadline that is none gets 400; one that is too long is cut to what a call may take."""
    assert (await api.get("/api/jobs", headers={"grpc-timeout": text})).status_code == status, row


@pytest.mark.parametrize("value", ["00-abc", "ff-" + "0" * 32 + "-" + "0" * 16 + "-01", "caf\xe9"])
async def test_a_broken_trace_is_dropped(gateway_url: str, me: str, value: str) -> None:
    """M04 and M05: a trace header that is none changes nothing."""
    headers = {"traceparent": value, "authorization": f"Bearer {token(me)}"}
    assert (await raw.send(gateway_url, raw.request("GET", "/api/jobs", **headers))).status == 200


async def test_a_deadline_holds(api: httpx.AsyncClient, shared_database: TestDatabase) -> None:
    """M07: a call that takes longer than its deadline gets 504 about then."""
    connection = await asyncpg.connect(shared_database.admin_url)
    try:
        async with connection.transaction():
            await connection.execute("lock table lora_notifications in access exclusive mode")
            started = time.perf_counter()
            answer = await api.get("/api/notifications", headers={"grpc-timeout": "50m"})
            seconds = time.perf_counter() - started
    finally:
        await connection.close()
    assert (answer.status_code, answer.json()["reason"]) == (504, "DEADLINE_EXCEEDED")
    assert 0.05 <= seconds < 1


async def test_a_closed_tab_ends_the_query(gateway_url: str, me: str, shared_database: TestDatabase) -> None:
    """D01: when the browser goes away, the query ends on Postgres too."""
    connection = await asyncpg.connect(shared_database.admin_url)
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%lora_notif%'"
    watcher = await asyncpg.connect(shared_database.admin_url)
    try:
        async with connection.transaction():
            await connection.execute("lock table lora_notifications in access exclusive mode")
            call = asyncio.create_task(
                raw.send(gateway_url, raw.request("GET", "/api/notifications", authorization=f"Bearer {token(me)}"))
            )
            async with asyncio.timeout(5):
                while not await watcher.fetchval(waiting):
                    await asyncio.sleep(0.01)
                call.cancel()
                while await watcher.fetchval(waiting):
                    await asyncio.sleep(0.01)
    finally:
        await connection.close()
        await watcher.close()


async def signed_in(http: httpx.AsyncClient, url: str) -> None:
    """Signs the client in as the demo user, as its page would."""
    answer = await http.post("/api/session", headers={"origin": url})
    assert (answer.status_code, answer.json()["data"]) == (200, {"user_id": DEMO_USER})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


async def test_a_cookie_signs_in_and_out(http: httpx.AsyncClient, gateway_url: str) -> None:
    """The development issuer's cookie is a session: it is told, used, and gone after signing out."""
    assert (await http.get("/api/session")).json()["data"] == {"user_id": None, "dev_issuer": True}
    await signed_in(http, gateway_url)
    assert (await http.get("/api/session")).json()["data"]["user_id"] == DEMO_USER
    assert (await http.get("/api/jobs")).status_code == 200
    await http.delete("/api/session", headers={"origin": gateway_url})
    assert (await http.get("/api/jobs")).status_code == 401


@pytest.mark.parametrize(
    ("row", "headers", "status"),
    [
        ("ok", {"sec-fetch-site": "same-origin"}, 404),
        ("B01", {"sec-fetch-site": "cross-site"}, 403),
        ("B01", {"sec-fetch-site": "same-site"}, 403),
        ("B01", {"sec-fetch-site": "none"}, 403),
        ("B02", {"origin": "https://evil.example"}, 403),
        ("B02", {"origin": "null"}, 403),
        ("B03", {}, 403),
    ],
)
async def test_a_cookie_counts_for_our_own_page_only(
    http: httpx.AsyncClient, gateway_url: str, row: str, headers: dict[str, str], status: int
) -> None:
    """B01 to B03: what changes things with a cookie must come from our page; a bearer token may come from anywhere."""
    await signed_in(http, gateway_url)
    path = f"/api/notifications/{uuid.uuid4()}/read"
    assert (await http.post(path, headers=headers)).status_code == status, row
    assert (await http.post(path, headers=headers | bearer(str(uuid.uuid4())))).status_code == 404
    assert (await http.post("/api/session", headers=headers)).status_code == (200 if row == "ok" else 403)


@pytest.mark.parametrize(
    ("row", "cookie"),
    [
        ("B04", "pipeline_session=tampered"),
        ("B04", "pipeline_session="),
        ("B04", f"pipeline_session={token(exp=1)}"),
        ("B05", f"pipeline_session={token()}; pipeline_session={token()}"),
    ],
    ids=["tampered", "cleared", "expired", "two"],
)
async def test_a_broken_session_is_none(http: httpx.AsyncClient, row: str, cookie: str) -> None:
    """B04 and B05: a cookie that does not hold, or two of them, is 401."""
    assert (await http.get("/api/jobs", headers={"cookie": cookie})).status_code == 401, row


async def test_a_form_cannot_post_json(http: httpx.AsyncClient, gateway_url: str) -> None:
    """B07: JSON as text/plain, which any page can send, is 415 even from our own."""
    await signed_in(http, gateway_url)
    headers = {"content-type": "text/plain", "origin": gateway_url}
    assert (await http.post("/api/jobs/estimate", content=b"{}", headers=headers)).status_code == 415


async def test_every_answer_has_the_browsers_orders(http: httpx.AsyncClient, gateway_url: str) -> None:
    """B08: no answer, of whatever kind, may be framed, sniffed or run scripts from elsewhere."""
    answers = [await http.get(path) for path in ("/healthz", "/api/jobs", "/nothing", "/api/docs", "/api/openapi.json")]
    answers.append(await http.options("/api/jobs"))
    for headers in [*(each.headers for each in answers), (await raw.send(gateway_url, b"nonsense\r\n\r\n")).headers]:
        script = next(each for each in headers["content-security-policy"].split("; ") if each.startswith("script-src"))
        assert script == "script-src 'self'"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert headers["x-request-id"]

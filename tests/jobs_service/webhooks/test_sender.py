"""The sender of webhooks: bounded answers, fair shares, the receiver's Retry-After, and a process of its own."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pipeline.webhooks.v1 import webhooks_pb2

from jobs_service.webhooks.addresses import AddressGuard
from jobs_service.webhooks.client import MAX_ANSWER_BYTES, WebhookClient
from jobs_service.webhooks.delivery import MAX_RETRY_AFTER, parse_retry_after
from jobs_service.webhooks.outbox import BusyWebhook, ConcurrencyLimits
from rpc.database.pool import Database
from tests.conftest import Stack, TestDatabase, metadata, open_stack
from tests.jobs_service.queue.test_leases import until
from tests.jobs_service.webhooks.receiver import answer, receiver
from tests.jobs_service.webhooks.test_webhooks import ANN, FAST, create, finished, new_outbox, redeliver
from tests.processes import environment, running

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)
INSERT_WEBHOOK = """
insert into webhooks (user_id, url, secret, responsive) values ($1, $2, decode(repeat('00', 32), 'hex'), $3) returning id
"""
INSERT_DELIVERIES = (
    "insert into webhook_deliveries (webhook_id, user_id, type, body)"
    " select $1, $2, 'job_queued', '{}' from generate_series(1, $3)"
)


async def insert(
    admin: asyncpg.Connection, user: str, url: str, *, deliveries: int, responsive: bool = False
) -> uuid.UUID:
    """Inserts a webhook with deliveries that are due."""
    webhook_id: uuid.UUID = await admin.fetchval(INSERT_WEBHOOK, user, url, responsive)
    await admin.execute(INSERT_DELIVERIES, webhook_id, user, deliveries)
    return webhook_id


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Stack]:
    """Receivers on this machine, and back-off short enough to wait for."""
    async with open_stack("grpc", database.url, tmp_path, **FAST) as opened:
        yield opened


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100,
        b"HTTP/1.1 200 OK\r\n" + b"x-header: 1\r\n" * 4000,
        b"HTTP/1.1 200 OK\r\nx-header: " + b"a" * 60_000,
        b"a" * 60_000,
        b"\r\n" * 1000,
    ],
    ids=["continue", "hints", "headers", "header", "line", "empty-lines"],
)
async def test_an_endless_answer_is_cut_off(endless: bytes) -> None:
    """X04: endless interim responses, headers and lines fail at the size limit, before the timeout."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    guard = AddressGuard(resolve, ports={443}, allow_private=True)
    async with receiver() as hostile, WebhookClient.open(guard, timeout_seconds=15, connections=1) as client:
        hostile.endless = endless
        began = time.monotonic(), time.process_time()
        result = await client.post(hostile.url, {}, "{}")
        assert time.monotonic() - began[0] < 5
        assert time.process_time() - began[1] < 1
        assert result.http_status is None
        assert str(result.error).startswith("The connection broke: "), result
        await until(lambda: asyncio.sleep(0, hostile.under_way == 0))


async def test_the_limit_of_an_answer_leaves_room_for_a_usual_one() -> None:
    """An interim answer, some headers and a long body: the status and the beginning of the body come through."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    guard = AddressGuard(resolve, ports={443}, allow_private=True)
    async with receiver() as usual, WebhookClient.open(guard, timeout_seconds=15, connections=1) as client:
        headers = [f"x-header-{n}: {'a' * 100}" for n in range(50)]
        usual.always = b"HTTP/1.1 100 Continue\r\n\r\n" + answer(201, b"b" * 100_000, *headers)
        result = await client.post(usual.url, {}, "{}")
    assert (result.http_status, result.error, result.response) == (201, None, "b" * 1024)
    assert len(usual.always) > MAX_ANSWER_BYTES


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("20", 20),
        (" 20 ", 20),
        ("0", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("\u0662\u0660", None),
        ("86401", 86_400),
        ("9" * 5000, 86_400),
        ("Fri, 27 Nov 2026 12:00:30 GMT", 30),
        ("Friday, 27-Nov-26 12:00:30 GMT", 30),
        ("Fri Nov 27 12:00:30 2026", 30),
        ("Fri, 27 Nov 2026 11:00:00 GMT", None),
        ("Fri, 27 Nov 9999 12:00:00 GMT", 86_400),
        ("Fri, 99 Nov 2026 12:00:30 GMT", None),
        ("Fri, 27 Nov 2026 12:00:30 +9999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: int | None) -> None:
    """Case 50: both forms of Retry-After are read, at most a day; malformed and past values are ignored."""
    pause = parse_retry_after(value, NOW)
    assert pause == (None if seconds is None else timedelta(seconds=seconds))
    assert timedelta(days=1) == MAX_RETRY_AFTER


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_the_next_attempt_waits_for_retry_after(
    stack: Stack, database: TestDatabase, admin: asyncpg.Connection, status: int, form: str
) -> None:
    """Case 50: nothing is sent to the webhook before the receiver's Retry-After, whatever the back-off says."""
    async with receiver() as busy:
        # A date has no fractions of a second.
        value = "1" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        busy.answers = [answer(status, b"", f"Retry-After: {value}")]
        made = (await create(stack, busy.url)).webhook
        await admin.execute(INSERT_DELIVERIES, uuid.UUID(made.id), ANN, 1)
        await until(lambda: asyncio.sleep(0, len(busy.received) == 1))
        # Another event of the same webhook waits as well.
        await admin.execute(INSERT_DELIVERIES, uuid.UUID(made.id), ANN, 1)
        result = await finished(stack, made.id, 2)
        starts = sorted(each.started_at.ToDatetime(UTC) for delivery in result for each in delivery.attempts)
    assert len(starts) == 3
    earliest = (
        starts[0] + timedelta(seconds=1)
        if form == "seconds"
        else datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    )
    assert starts[1] >= earliest


async def test_an_owner_ends_a_pause(stack: Stack, admin: asyncpg.Connection) -> None:
    """A webhook shows the end of its pause; a redelivery is sent at once."""
    async with receiver() as busy:
        busy.answers = [answer(429, b"", "Retry-After: 3600")]
        made = (await create(stack, busy.url)).webhook
        await admin.execute(INSERT_DELIVERIES, uuid.UUID(made.id), ANN, 1)

        async def paused() -> Any:
            request = webhooks_pb2.GetWebhookRequest(id=made.id)
            webhook = (await stack.webhooks.GetWebhook(request, metadata=metadata(ANN))).webhook
            return webhook.paused_until.ToDatetime(UTC) if webhook.HasField("paused_until") else None

        until_then = await until(paused)
        assert timedelta(minutes=59) < until_then - datetime.now(UTC) <= timedelta(hours=1)
        request = webhooks_pb2.ListWebhookDeliveriesRequest(id=made.id)
        (waiting,) = (await stack.webhooks.ListWebhookDeliveries(request, metadata=metadata(ANN))).deliveries
        assert waiting.next_attempt_at.ToDatetime(UTC) >= until_then - timedelta(seconds=1)
        await redeliver(stack, waiting)
        (delivered,) = await finished(stack, made.id)
        assert delivered.status == webhooks_pb2.WEBHOOK_DELIVERY_STATUS_DELIVERED
        assert await paused() is None


async def test_requests_at_once_are_shared_among_users(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """No user has more requests at once than a share, unresponsive webhooks have fewer, and users take turns."""
    greedy, modest, late = (str(uuid.uuid4()) for _ in range(3))
    for number in range(5):
        await insert(admin, greedy, f"https://{number}.example/", deliveries=50, responsive=True)
        await insert(admin, late, f"https://late-{number}.example/", deliveries=50)
    await insert(admin, modest, "https://modest.example/", deliveries=1, responsive=True)
    limits = ConcurrencyLimits(12)
    async with Database.open(database.url, size=1) as pool:
        outbox = new_outbox(pool, limits=limits)
        claimed = await outbox.claim(())
        users = [str(each.user_id) for each in claimed]
        assert {user: users.count(user) for user in users} == {
            greedy: limits.per_user,
            late: limits.unresponsive_per_user,
            modest: 1,
        }
        hooks = [each.webhook_id for each in claimed]
        assert max(map(hooks.count, hooks)) <= limits.per_webhook
        # What is under way counts: nothing more of these users, though one place is free.
        busy = [BusyWebhook(each.webhook_id, each.user_id, each.responsive) for each in claimed]
        assert await outbox.claim(busy) == []
        # Requests that turn out to be slow leave the places of responsive webhooks to others.
        slow = [BusyWebhook(each.webhook_id, each.user_id, False) for each in claimed]
        await insert(admin, str(uuid.uuid4()), "https://new.example/", deliveries=9)
        await insert(admin, str(uuid.uuid4()), "https://quick.example/", deliveries=9, responsive=True)
        (only,) = await outbox.claim(slow)
        assert only.url == "https://quick.example/"


async def test_users_take_turns_for_the_last_places(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """With more users than places, each gets one before any gets two, the longest waiting first."""
    for number in range(4):
        user = f"{number:08x}-0000-4000-8000-000000000000"
        await insert(admin, user, f"https://{number}.example/", deliveries=9, responsive=True)
    async with Database.open(database.url, size=1) as pool:
        claimed = await new_outbox(pool, limits=ConcurrencyLimits(3)).claim(())
    assert sorted(each.url for each in claimed) == [f"https://{number}.example/" for number in range(3)]


async def test_a_new_address_is_not_yet_responsive(stack: Stack, admin: asyncpg.Connection) -> None:
    """An answer within a second makes a webhook responsive; another URL begins anew; so does a failure."""
    async with receiver() as quick:
        made = (await create(stack, quick.url)).webhook
        await admin.execute(INSERT_DELIVERIES, uuid.UUID(made.id), ANN, 1)
        await finished(stack, made.id)
        assert await admin.fetchval("select responsive from webhooks")
        update = webhooks_pb2.UpdateWebhookRequest(id=made.id, url=quick.url + "&again")
        await stack.webhooks.UpdateWebhook(update, metadata=metadata(ANN))
        assert not await admin.fetchval("select responsive from webhooks")
        await admin.execute("update webhooks set responsive = true")
        quick.always = answer(500)
        await admin.execute(INSERT_DELIVERIES, uuid.UUID(made.id), ANN, 1)
        await finished(stack, made.id, 2)
        assert not await admin.fetchval("select responsive from webhooks")


@pytest.mark.slow
async def test_hostile_receivers_delay_nobody_else(
    database: TestDatabase, tmp_path: Path, admin: asyncpg.Connection
) -> None:
    """X04: slow and endless receivers of six users leave others' deliveries and calls below 1 s."""
    settings = environment(database.url, PIPELINE_WEBHOOK_ALLOW_PRIVATE="1")
    async with (
        receiver() as silent,
        receiver() as endless,
        receiver() as quick,
        open_stack("grpc", database.url, tmp_path, webhook_allow_private=True) as stack,
        running("jobs_service", settings, "webhooks") as sender,
    ):
        silent.always, endless.endless = None, b"HTTP/1.1 100 Continue\r\n\r\n"
        await sender.logged("sending_webhooks")
        for number in range(6):
            for hook in range(5):
                user = f"{number:08x}-0000-4000-8000-000000000000"
                # These answered quickly until now.
                await insert(admin, user, silent.url, deliveries=100, responsive=hook % 2 == 0)
        await insert(admin, str(uuid.uuid4()), endless.url, deliveries=100, responsive=True)
        await until(lambda: asyncio.sleep(0, silent.under_way >= 6 and endless.sent > 0))
        waits, calls = [], []
        for _ in range(5):
            user = str(uuid.uuid4())
            made = (await create(stack, quick.url, user)).webhook
            await admin.execute(INSERT_DELIVERIES, uuid.UUID(made.id), user, 1)
            begun = time.monotonic()
            await stack.webhooks.ListWebhooks(webhooks_pb2.ListWebhooksRequest(), metadata=metadata(user))
            calls.append(time.monotonic() - begun)
            (delivered,) = await finished(stack, made.id, user=user)
            assert delivered.status == webhooks_pb2.WEBHOOK_DELIVERY_STATUS_DELIVERED
            waits.append((delivered.finished_at.ToMilliseconds() - delivered.created_at.ToMilliseconds()) / 1000)
        print("seconds to deliver:", waits, "seconds of a call:", calls)
        assert max(waits) < 1
        assert max(calls) < 1


@pytest.mark.slow
async def test_the_sender_is_a_process_of_its_own(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """It needs a database and no issuer, sends what waits, and ends at SIGTERM with nothing under way lost."""
    settings = environment(database.url, PIPELINE_WEBHOOK_ALLOW_PRIVATE="1", PIPELINE_WEBHOOK_TIMEOUT_MS="500")
    for name in ("PIPELINE_JWT_SECRET", "PIPELINE_JWT_ISSUER"):
        del settings[name]
    async with receiver() as slow:
        slow.always = None
        webhook_id = await insert(admin, ANN, slow.url, deliveries=1)
        async with running("jobs_service", settings, "webhooks") as sender:
            await sender.logged("sending_webhooks")
            await until(lambda: asyncio.sleep(0, len(slow.received) == 1))
        assert sender.process.returncode == 0, sender.text
        slow.always = answer(200)
        async with running("jobs_service", settings, "webhooks") as sender:
            await sender.logged("sending_webhooks")
            statement = "select status = 'delivered' from webhook_deliveries where webhook_id = $1"
            await until(lambda: admin.fetchval(statement, webhook_id))
    ids = {each.message_id for each in slow.received}
    assert (len(slow.received), len(ids)) == (2, 1)

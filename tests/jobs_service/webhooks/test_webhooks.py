"""Webhooks: written with the notification, sent at least once, signed, retried, listed, and redelivered."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import structlog
from pipeline.api_keys.v1 import api_keys_pb2
from pipeline.common.v1 import options_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.webhooks.v1 import webhooks_pb2
from standardwebhooks import Webhook as Verifier

from jobs_service.notifications import templates
from jobs_service.settings import WebhookSenderSettings
from jobs_service.webhooks.model import SECRET_PREFIX
from jobs_service.webhooks.outbox import ConcurrencyLimits, Outbox
from rpc.database.pool import Database
from rpc.identity.api_keys import key_hash
from tests.conftest import NewDataset, Stack, TestDatabase, metadata, open_stack
from tests.door import refused
from tests.jobs_service.jobs.test_create_job import new_request
from tests.jobs_service.queue.test_leases import complete, get, lease, queue, report, until
from tests.jobs_service.queue.test_leases import worker as worker_metadata
from tests.jobs_service.webhooks.receiver import Receiver, answer, receiver
from tests.rpc.test_telemetry import samples

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
FAST = {
    "sends_webhooks": True,
    "webhook_allow_private": True,
    "webhook_timeout_ms": 300,
    "webhook_poll_ms": 10,
    "webhook_back_off_seconds": (0.01, 0.02),
}


@pytest.fixture
async def stack(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Stack]:
    """Receivers on this machine, and back-off short enough to wait for."""
    async with open_stack("grpc", database.url, tmp_path, **FAST) as opened:
        yield opened


@pytest.fixture
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that answers 200."""
    async with receiver() as made:
        yield made


async def create(stack: Stack, url: str, user: str = ANN, **fields: Any) -> webhooks_pb2.CreateWebhookResponse:
    """A new webhook."""
    request = webhooks_pb2.CreateWebhookRequest(url=url, **fields)
    return await stack.webhooks.CreateWebhook(request, metadata=metadata(user))


async def deliveries(stack: Stack, webhook_id: str, user: str = ANN, **fields: Any) -> Any:
    """What is on its way to a webhook, newest first."""
    request = webhooks_pb2.ListWebhookDeliveriesRequest(id=webhook_id, limit=100, **fields)
    return (await stack.webhooks.ListWebhookDeliveries(request, metadata=metadata(user))).deliveries


async def finished(stack: Stack, webhook_id: str, count: int = 1, user: str = ANN) -> Any:
    """The deliveries of a webhook once so many are delivered or failed."""

    async def all_finished() -> Any:
        result = await deliveries(stack, webhook_id, user)
        return result if sum(each.HasField("finished_at") for each in result) >= count else None

    return await until(all_finished)


def new_outbox(pool: Database, **settings: Any) -> Outbox:
    """An outbox with usual settings."""
    usual = {
        "limits": ConcurrencyLimits(10),
        "lease_time": timedelta(seconds=9),
        "disable_after": timedelta(days=5),
        "retention": timedelta(days=30),
    }
    return Outbox(pool, **{**usual, **settings})


async def redeliver(stack: Stack, delivery: webhooks_pb2.WebhookDelivery) -> webhooks_pb2.WebhookDelivery:
    """A delivery, sent again."""
    request = webhooks_pb2.RedeliverWebhookRequest(id=delivery.webhook_id, delivery_id=delivery.id)
    return (await stack.webhooks.RedeliverWebhook(request, metadata=metadata(ANN))).delivery


async def test_notifications_reach_the_owners_receiver(
    stack: Stack, receiving: Receiver, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """Each of the user's notifications arrives once, with a signature that the specification's library accepts."""
    made = await create(stack, receiving.url, description="Mine")
    assert made.webhook.enabled
    assert made.secret.startswith(SECRET_PREFIX)
    job = await queue(stack, new_dataset)
    await queue(stack, new_dataset, user=BOB)
    (leased,) = [each for each in await lease(stack, max_jobs=2) if each.job_id == job.id]
    await report(stack, leased)
    await complete(stack, leased)
    result = await finished(stack, made.webhook.id, 3)
    kinds = [webhooks_pb2.WebhookEventType.Name(each.type).removeprefix("WEBHOOK_EVENT_TYPE_") for each in result]
    assert kinds == ["JOB_COMPLETED", "JOB_STARTED", "JOB_QUEUED"]
    assert {each.status for each in result} == {webhooks_pb2.WEBHOOK_DELIVERY_STATUS_DELIVERED}
    assert len(receiving.received) == 3
    for request in receiving.received:
        assert request.line == "POST /hook?from=tests HTTP/1.1"
        assert request.headers["content-type"] == "application/json"
        assert Verifier(made.secret).verify(request.body, request.headers) == orjson.loads(request.body)
    bodies = {each.message_id: each.body.decode() for each in receiving.received}
    assert bodies == {f"msg_{uuid.UUID(each.id).hex}": each.body for each in result}
    queued = orjson.loads(result[-1].body)
    notice = await admin.fetchrow("select * from lora_notifications where type = 'job_queued' and user_id = $1", ANN)
    assert queued["type"] == "job_queued"
    assert queued["timestamp"] == notice["created_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert queued["data"] == {
        "notification_id": str(notice["id"]),
        "user_id": ANN,
        "title": notice["title"],
        "message": notice["message"],
        "priority": "low",
        "action_url": f"/training/jobs/{job.id}",
        "job_id": job.id,
        "dataset_name": "Questions",
    }
    (attempt,) = result[0].attempts
    assert (attempt.number, attempt.http_status, attempt.response, attempt.error) == (1, 200, "ok", "")
    assert attempt.HasField("duration_ms")


async def test_no_delivery_has_an_api_key(stack: Stack, receiving: Receiver, new_dataset: NewDataset) -> None:
    """Webhooks about a job that was created with an API key have no part or hash of the key."""
    made = await create(stack, receiving.url)
    request = api_keys_pb2.CreateApiKeyRequest(name="Script", scopes=[options_pb2.SCOPE_JOBS])
    key = (await stack.api_keys.CreateApiKey(request, metadata=metadata(ANN))).key
    program = [("authorization", f"Bearer {key}")]
    await stack.jobs.CreateJob(new_request(await new_dataset(ANN)), metadata=program)
    await finished(stack, made.webhook.id)
    (sent,) = receiving.received
    for secret in (key, key[:7], key_hash(key).hex()):
        assert secret not in f"{sent.line}{sent.headers}{sent.body.decode()}"


async def test_only_chosen_event_types_are_written(
    stack: Stack, receiving: Receiver, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """Only chosen event types are written, nothing for a disabled webhook or a user without one."""
    some = await create(stack, receiving.url, event_types=[webhooks_pb2.WEBHOOK_EVENT_TYPE_JOB_CANCELLED])
    off = await create(stack, receiving.url)
    update = webhooks_pb2.UpdateWebhookRequest(id=off.webhook.id, url=receiving.url, enabled=False)
    after = (await stack.webhooks.UpdateWebhook(update, metadata=metadata(ANN))).webhook
    assert (after.enabled, after.disabled_reason) == (False, webhooks_pb2.WEBHOOK_DISABLED_REASON_BY_OWNER)
    job = await queue(stack, new_dataset)
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))
    await queue(stack, new_dataset, user=BOB)
    (only,) = await finished(stack, some.webhook.id)
    assert only.type == webhooks_pb2.WEBHOOK_EVENT_TYPE_JOB_CANCELLED
    assert await admin.fetchval("select count(*) from webhook_deliveries") == 1


async def test_failed_deliveries_are_retried_until_the_last_attempt(
    stack: Stack, receiving: Receiver, new_dataset: NewDataset
) -> None:
    """Every attempt has its outcome and the same id; redirects are not followed; the last failure is final."""
    receiving.answers = [answer(302, b"\xff\0" * 3000, f"location: {receiving.url}"), answer(500, b"x" * 5000 + b"\0")]
    receiving.always = None
    made = await create(stack, receiving.url)
    await queue(stack, new_dataset)
    (failed,) = await finished(stack, made.webhook.id)
    assert failed.status == webhooks_pb2.WEBHOOK_DELIVERY_STATUS_FAILED
    third, second, first = failed.attempts
    assert [third.number, second.number, first.number] == [3, 2, 1]
    assert (first.http_status, first.error) == (302, "The receiver answered 302.")
    assert first.response == "\N{REPLACEMENT CHARACTER}" * (1024 // 3)
    assert (second.http_status, second.response) == (500, "x" * 1024)
    assert (third.HasField("http_status"), third.error) == (False, "No answer within 0.3 seconds.")
    assert third.duration_ms >= 300
    assert len({each.message_id for each in receiving.received}) == 1
    assert len(receiving.received) == 3
    hooks = (await stack.webhooks.ListWebhooks(webhooks_pb2.ListWebhooksRequest(), metadata=metadata(ANN))).webhooks
    assert hooks[0].HasField("failing_since")
    receiving.always = answer(204)
    again = await redeliver(stack, failed)
    assert (again.status, again.id) == (webhooks_pb2.WEBHOOK_DELIVERY_STATUS_PENDING, failed.id)
    (delivered,) = await finished(stack, made.webhook.id)
    assert (delivered.status, delivered.attempt_count) == (webhooks_pb2.WEBHOOK_DELIVERY_STATUS_DELIVERED, 4)
    assert {each.message_id for each in receiving.received} == {f"msg_{uuid.UUID(failed.id).hex}"}
    hooks = (await stack.webhooks.ListWebhooks(webhooks_pb2.ListWebhooksRequest(), metadata=metadata(ANN))).webhooks
    assert not hooks[0].HasField("failing_since")
    name = "pipeline_webhook_attempt_duration_seconds_count"
    attempts = {labels["outcome"]: value for labels, value in samples(stack.metrics, name)}
    assert attempts == {"refused": 2, "failed": 1, "delivered": 1}


async def test_a_refused_connection_is_a_failed_attempt(stack: Stack, new_dataset: NewDataset) -> None:
    """A refused connection is an attempt like any other, with its reason in a sentence."""
    async with receiver() as gone:
        made = await create(stack, gone.url)
    request = webhooks_pb2.TestWebhookRequest(id=made.webhook.id)
    test = (await stack.webhooks.TestWebhook(request, metadata=metadata(ANN))).delivery
    assert (test.type, test.status) == (
        webhooks_pb2.WEBHOOK_EVENT_TYPE_WEBHOOK_TEST,
        webhooks_pb2.WEBHOOK_DELIVERY_STATUS_PENDING,
    )
    (failed,) = await finished(stack, made.webhook.id)
    # A test is tried once.
    (attempt,) = failed.attempts
    assert attempt.error.startswith("Could not connect: ")


async def test_a_slow_receiver_delays_nobody(stack: Stack, receiving: Receiver, admin: asyncpg.Connection) -> None:
    """Thousands of deliveries to a hanging receiver delay no other webhook."""
    async with receiver() as slow:
        slow.always = None
        hanging = await create(stack, slow.url, user=BOB)
        await admin.execute(
            "insert into webhook_deliveries (webhook_id, user_id, type, body, created_at)"
            " select $1, $2, 'webhook_test', '{}', now() - interval '1 hour' from generate_series(1, 3000)",
            uuid.UUID(hanging.webhook.id),
            BOB,
        )
        await until(lambda: asyncio.sleep(0, len(slow.received) >= 1))
        made = await create(stack, receiving.url)
        request = webhooks_pb2.TestWebhookRequest(id=made.webhook.id)
        await stack.webhooks.TestWebhook(request, metadata=metadata(ANN))
        (delivered,) = await finished(stack, made.webhook.id)
        waited = delivered.finished_at.ToMilliseconds() - delivered.created_at.ToMilliseconds()
        assert delivered.status == webhooks_pb2.WEBHOOK_DELIVERY_STATUS_DELIVERED
        # Behind all that waits for the slow one it would be a quarter of a minute.
        assert waited < 1000
        assert slow.most_at_once == 1


async def test_a_410_disables_a_webhook(
    stack: Stack, receiving: Receiver, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """410 disables a webhook, notifies its owner and fails pending deliveries; it can be enabled again."""
    receiving.answers = [answer(410)]
    made = await create(stack, receiving.url, description="Old")
    await queue(stack, new_dataset)

    async def is_disabled() -> Any:
        request = webhooks_pb2.GetWebhookRequest(id=made.webhook.id)
        result = (await stack.webhooks.GetWebhook(request, metadata=metadata(ANN))).webhook
        return None if result.enabled else result

    assert (await until(is_disabled)).disabled_reason == webhooks_pb2.WEBHOOK_DISABLED_REASON_GONE
    (ended,) = await finished(stack, made.webhook.id)
    assert ended.status == webhooks_pb2.WEBHOOK_DELIVERY_STATUS_FAILED
    await queue(stack, new_dataset)
    assert len(receiving.received) == len(await deliveries(stack, made.webhook.id)) == 1
    notice = await admin.fetchrow("select * from lora_notifications where type = 'webhook_disabled'")
    assert "its receiver answered 410" in notice["message"]
    assert receiving.url not in str(dict(notice))
    request = webhooks_pb2.TestWebhookRequest(id=made.webhook.id)
    error = await refused(stack.webhooks.TestWebhook(request, metadata=metadata(ANN)))
    assert error.reason == "WEBHOOK_DISABLED"
    again = webhooks_pb2.RedeliverWebhookRequest(id=made.webhook.id, delivery_id=ended.id)
    assert (await refused(stack.webhooks.RedeliverWebhook(again, metadata=metadata(ANN)))).reason == "WEBHOOK_DISABLED"
    update = webhooks_pb2.UpdateWebhookRequest(id=made.webhook.id, url=receiving.url)
    assert (await stack.webhooks.UpdateWebhook(update, metadata=metadata(ANN))).webhook.enabled
    await redeliver(stack, ended)
    (delivered,) = await finished(stack, made.webhook.id)
    assert delivered.status == webhooks_pb2.WEBHOOK_DELIVERY_STATUS_DELIVERED


async def test_a_webhook_that_fails_for_days_is_disabled(
    stack: Stack, receiving: Receiver, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """Five days with only failures disable a webhook, and its owner's other webhooks are notified."""
    receiving.always = answer(503)
    async with receiver() as other:
        made = await create(stack, receiving.url, event_types=[webhooks_pb2.WEBHOOK_EVENT_TYPE_JOB_QUEUED])
        result = await create(stack, other.url, event_types=[webhooks_pb2.WEBHOOK_EVENT_TYPE_WEBHOOK_DISABLED])
        await queue(stack, new_dataset)
        await finished(stack, made.webhook.id)
        days = "update webhooks set failing_since = now() - interval '121 hours' where id = $1"
        await admin.execute(days, uuid.UUID(made.webhook.id))
        await queue(stack, new_dataset)
        (news,) = await finished(stack, result.webhook.id)
        assert orjson.loads(news.body)["data"]["webhook_id"] == made.webhook.id
    hooks = (await stack.webhooks.ListWebhooks(webhooks_pb2.ListWebhooksRequest(), metadata=metadata(ANN))).webhooks
    assert [each.disabled_reason for each in hooks] == [webhooks_pb2.WEBHOOK_DISABLED_REASON_FAILING, 0]


async def test_requests_are_signed_with_both_secrets_after_a_rotation(stack: Stack, receiving: Receiver) -> None:
    """After a rotation a request carries two signatures, so receivers change over without a gap."""
    made = await create(stack, receiving.url)
    rotate = webhooks_pb2.RotateWebhookSecretRequest(id=made.webhook.id)
    rotated = await stack.webhooks.RotateWebhookSecret(rotate, metadata=metadata(ANN))
    assert rotated.secret != made.secret
    assert rotated.webhook.HasField("old_secret_until")
    await stack.webhooks.TestWebhook(webhooks_pb2.TestWebhookRequest(id=made.webhook.id), metadata=metadata(ANN))
    await finished(stack, made.webhook.id)
    (request,) = receiving.received
    for secret in (made.secret, rotated.secret):
        Verifier(secret).verify(request.body, request.headers)


async def test_secrets_are_shown_once(
    stack: Stack, receiving: Receiver, new_dataset: NewDataset, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only the response of the creation has the secret; no log line, notification or column readable by users has it."""
    with structlog.testing.capture_logs() as logs:
        receiving.always = answer(500)
        made = await create(stack, receiving.url)
        await queue(stack, new_dataset)
        result = await finished(stack, made.webhook.id)
        listed = await stack.webhooks.ListWebhooks(webhooks_pb2.ListWebhooksRequest(), metadata=metadata(ANN))
    secret = made.secret.removeprefix(SECRET_PREFIX)
    said = f"{listed} {result} {logs} {capfd.readouterr()}"
    assert "webhook" in said
    assert secret not in said
    assert SECRET_PREFIX not in said


async def test_webhooks_of_other_users_are_not_found(stack: Stack, receiving: Receiver) -> None:
    """Z01: calls on another user's webhook get the same response as on a missing one, and change nothing."""
    made = await create(stack, receiving.url)
    await stack.webhooks.TestWebhook(webhooks_pb2.TestWebhookRequest(id=made.webhook.id), metadata=metadata(ANN))
    (delivery,) = await finished(stack, made.webhook.id)
    bob, none = metadata(BOB), str(uuid.uuid4())
    for webhook_id, delivery_id in ((made.webhook.id, delivery.id), (none, none)):
        hooks = stack.webhooks
        named = {"id": webhook_id}
        for call in (
            hooks.GetWebhook(webhooks_pb2.GetWebhookRequest(**named), metadata=bob),
            hooks.UpdateWebhook(webhooks_pb2.UpdateWebhookRequest(url=receiving.url, **named), metadata=bob),
            hooks.DeleteWebhook(webhooks_pb2.DeleteWebhookRequest(**named), metadata=bob),
            hooks.RotateWebhookSecret(webhooks_pb2.RotateWebhookSecretRequest(**named), metadata=bob),
            hooks.TestWebhook(webhooks_pb2.TestWebhookRequest(**named), metadata=bob),
            hooks.ListWebhookDeliveries(webhooks_pb2.ListWebhookDeliveriesRequest(**named), metadata=bob),
        ):
            error = await refused(call)
            assert (error.code.name, error.reason) == ("NOT_FOUND", "WEBHOOK_NOT_FOUND")
        again = webhooks_pb2.RedeliverWebhookRequest(delivery_id=delivery_id, **named)
        error = await refused(hooks.RedeliverWebhook(again, metadata=bob))
        assert (error.code.name, error.reason) == ("NOT_FOUND", "WEBHOOK_DELIVERY_NOT_FOUND")
    assert (await deliveries(stack, made.webhook.id)) == [delivery]


async def test_trainers_have_no_webhooks(stack: Stack) -> None:
    """A worker's token is refused."""
    call = stack.webhooks.ListWebhooks(webhooks_pb2.ListWebhooksRequest(), metadata=worker_metadata())
    assert (await refused(call)).reason == "ROLE_NOT_ALLOWED"


async def test_a_user_has_a_limit_of_webhooks(stack: Stack, receiving: Receiver) -> None:
    """The limit holds for concurrent creations; deleting a webhook makes room and deletes its deliveries."""
    request = [create(stack, receiving.url) for _ in range(9)]
    made = [each for each in await asyncio.gather(*request, return_exceptions=True) if not isinstance(each, Exception)]
    assert len(made) == 5
    error = await refused(create(stack, receiving.url))
    assert (error.code.name, error.reason, error.metadata["limit"]) == ("RESOURCE_EXHAUSTED", "WEBHOOK_LIMIT", "5")
    delete = webhooks_pb2.DeleteWebhookRequest(id=made[0].webhook.id)
    await stack.webhooks.DeleteWebhook(delete, metadata=metadata(ANN))
    await create(stack, receiving.url)


async def test_a_creation_repeated_is_one_webhook(stack: Stack, receiving: Receiver) -> None:
    """I01, I02: a repeated key creates one webhook and shows its secret once; other content is refused."""
    key = str(uuid.uuid4())
    made = await asyncio.gather(*(create(stack, receiving.url, request_id=key) for _ in range(8)))
    assert len({each.webhook.id for each in made}) == 1
    assert len({each.secret for each in made}) == 2
    assert sorted(each.secret for each in made)[:7] == [""] * 7
    error = await refused(create(stack, receiving.url, request_id=key, description="Another"))
    assert (error.code.name, error.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")
    assert error.metadata["webhook_id"] == made[0].webhook.id
    assert (await create(stack, receiving.url, BOB, request_id=key)).secret
    error = await refused(create(stack, receiving.url, request_id="1"))
    assert list(error.violations) == ["request_id"]


async def test_webhook_calls_have_an_hourly_limit(stack: Stack, receiving: Receiver, admin: asyncpg.Connection) -> None:
    """A user above the hourly limit of webhook calls is refused until the hour ends; others are not."""
    made = await create(stack, receiving.url)
    await admin.execute("update webhook_uses set uses = 299")
    test = webhooks_pb2.TestWebhookRequest(id=made.webhook.id)
    delivery = (await stack.webhooks.TestWebhook(test, metadata=metadata(ANN))).delivery
    update = webhooks_pb2.UpdateWebhookRequest(id=made.webhook.id, url=receiving.url)
    for call in (
        create(stack, receiving.url),
        redeliver(stack, delivery),
        stack.webhooks.TestWebhook(test, metadata=metadata(ANN)),
        stack.webhooks.UpdateWebhook(update, metadata=metadata(ANN)),
    ):
        error = await refused(call)
        assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "WEBHOOK_RATE")
        assert error.metadata["limit"] == "300"
    await create(stack, receiving.url, BOB)
    await admin.execute("update webhook_uses set since = now() - interval '61 minutes'")
    await create(stack, receiving.url)
    assert await admin.fetchval("select uses from webhook_uses where user_id = $1", ANN) == 1


async def test_counters_of_past_hours_are_deleted(
    database: TestDatabase, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters of past hours are deleted in batches; current ones stay."""
    monkeypatch.setattr("jobs_service.webhooks.outbox.BATCH", 2)
    await admin.execute(
        "insert into webhook_uses (user_id, since)"
        " select gen_random_uuid(), now() - n * interval '29 minutes' from generate_series(0, 5) n"
    )
    async with Database.open(database.url, size=1) as pool:
        outbox = new_outbox(pool)
        for left in (4, 3, 3):
            await outbox.prune()
            assert await admin.fetchval("select count(*) from webhook_uses") == left
    assert await admin.fetchval("select min(since) > now() - interval '1 hour' from webhook_uses")


async def test_at_the_limit_no_host_name_is_looked_up(stack: Stack, receiving: Receiver) -> None:
    """At the limit of webhooks no host name is looked up."""
    for _ in range(5):
        await create(stack, receiving.url)
    error = await refused(create(stack, "http://no-such-host.invalid/"))
    assert error.reason == "WEBHOOK_LIMIT"


async def test_a_webhook_deleted_concurrently_stops_no_job(
    stack: Stack, database: TestDatabase, receiving: Receiver, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """A change of a job does not wait for a concurrent deletion of a webhook; leftover deliveries are ended."""
    await create(stack, receiving.url)
    request = new_request(await new_dataset(ANN))
    async with admin.transaction():
        await admin.execute("delete from webhooks")
        job = (await stack.jobs.CreateJob(request, metadata=metadata(ANN))).job
    assert (await get(stack, job.id)).status == jobs_pb2.JOB_STATUS_QUEUED
    await admin.execute("update webhook_deliveries set status = 'pending', next_attempt_at = now(), finished_at = null")
    async with Database.open(database.url, size=1) as pool:
        outbox = new_outbox(pool)
        assert await outbox.claim(()) == []
        await outbox.prune()
        assert await admin.fetchval("select status from webhook_deliveries") == "failed"
        await new_outbox(pool, retention=timedelta(0)).prune()
        assert await admin.fetchval("select count(*) from webhook_deliveries") == 0


async def test_a_crash_between_commit_and_send_loses_nothing(
    database: TestDatabase, tmp_path: Path, receiving: Receiver, admin: asyncpg.Connection
) -> None:
    """A delivery of a dead sender is sent by another with the same id, and the lost attempt is listed."""
    never = {**FAST, "webhook_poll_ms": 60_000}
    async with open_stack("local", database.url, tmp_path, **never) as stack:
        made = await create(stack, receiving.url)
        # The delivery worker of this process has looked once and sleeps now.
        await asyncio.sleep(0.1)
        await stack.webhooks.TestWebhook(webhooks_pb2.TestWebhookRequest(id=made.webhook.id), metadata=metadata(ANN))
    async with Database.open(database.url, size=1) as pool:
        dead = new_outbox(pool, lease_time=timedelta(milliseconds=300))
        (claimed,) = await dead.claim(())
        assert await dead.claim(()) == []
        assert "secret" not in repr(claimed)
    async with open_stack("local", database.url, tmp_path, **FAST) as stack:
        (delivered,) = await finished(stack, made.webhook.id)
        lost, sent = reversed(delivered.attempts)
        assert (lost.number, lost.HasField("duration_ms"), sent.http_status) == (1, False, 200)
    (request,) = receiving.received
    assert request.message_id == f"msg_{claimed.id.hex}"


async def test_two_processes_send_each_delivery_once(
    database: TestDatabase, tmp_path: Path, receiving: Receiver, admin: asyncpg.Connection
) -> None:
    """Two delivery workers share what is due: nothing is sent twice while both live."""
    async with (
        open_stack("local", database.url, tmp_path, **FAST) as stack,
        open_stack("local", database.url, tmp_path, **FAST),
    ):
        made = await create(stack, receiving.url)
        await admin.execute(
            "insert into webhook_deliveries (webhook_id, user_id, type, body)"
            " select $1, $2, 'job_queued', '{}' from generate_series(1, 60)",
            uuid.UUID(made.webhook.id),
            ANN,
        )
        await finished(stack, made.webhook.id, 60)
    sent = [each.message_id for each in receiving.received]
    assert len(sent) == len(set(sent)) == 60


async def test_claims_use_the_index_of_what_waits(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """Claims read only open deliveries."""
    from jobs_service.webhooks.outbox import MAX_WEBHOOKS_PER_CLAIM, SQL

    await admin.execute(
        "insert into webhook_deliveries (webhook_id, user_id, type, body, status, next_attempt_at, finished_at)"
        " select gen_random_uuid(), gen_random_uuid(), 'job_queued', '{}', 'delivered', null, now()"
        " from generate_series(1, 20000)"
    )
    await admin.execute("vacuum analyze webhook_deliveries")
    arguments = uuid.UUID(int=0), MAX_WEBHOOKS_PER_CLAIM, 64, 8, 2, timedelta(seconds=45), [], [], [], 4, 32
    plan = "\n".join(row[0] for row in await admin.fetch("explain " + SQL["claim_deliveries"], *arguments))
    assert plan.count("webhook_deliveries_due_idx") == 3, plan
    assert "Seq Scan on webhook_deliveries" not in plan, plan


async def test_the_documented_code_verifies_our_signatures(stack: Stack, receiving: Receiver) -> None:
    """The Python code of docs/webhooks.md accepts real requests, and refuses changed and replayed ones."""
    readme = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()
    (code,) = [block for block in readme.split("```") if "def verify(" in block]
    result: dict[str, Any] = {}
    exec(code.removeprefix("python"), result)
    made = await create(stack, receiving.url)
    await stack.webhooks.TestWebhook(webhooks_pb2.TestWebhookRequest(id=made.webhook.id), metadata=metadata(ANN))
    await finished(stack, made.webhook.id)
    (request,) = receiving.received
    headers, body = request.headers, request.body
    assert result["verify"](made.secret, headers, body)
    old = int(headers["webhook-timestamp"]) - 600
    key = base64.b64decode(made.secret.removeprefix(SECRET_PREFIX))
    signed_then = Verifier(key).sign(request.message_id, datetime.fromtimestamp(old, UTC), body.decode())
    for changed, content in (
        ({}, body + b" "),
        ({"webhook-id": "msg_other"}, body),
        ({"webhook-signature": signed_then}, body),
        ({"webhook-signature": signed_then, "webhook-timestamp": str(old)}, body),
    ):
        assert not result["verify"](made.secret, {**headers, **changed}, content)


def test_every_notification_type_is_in_the_contract() -> None:
    """Every type of notification is an event type of the contract."""
    made = {each.type for each in vars(templates).values() if isinstance(each, templates.NotificationTemplate)}
    words = {name.removeprefix("WEBHOOK_EVENT_TYPE_").lower() for name in dict(webhooks_pb2.WebhookEventType.items())}
    assert words - {"unspecified", "webhook_test", "webhook_disabled", "job_queued"} == made


def test_deliveries_are_tried_for_three_days() -> None:
    """The default schedule: ten attempts, a little more than three days from the first to the last."""
    default = WebhookSenderSettings.model_fields["webhook_back_off_seconds"].default
    assert (len(default), timedelta(days=3) < timedelta(seconds=sum(default)) < timedelta(days=3.5)) == (9, True)

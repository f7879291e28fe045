"""The audit log: what users did, from where, written with the change and never altered."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import orjson
import pytest
from pipeline.audit.v1 import audit_pb2
from pipeline.common.v1 import options_pb2
from pipeline.datasets.v1 import datasets_pb2
from pipeline.jobs.v1 import jobs_pb2
from pipeline.webhooks.v1 import webhooks_pb2

from tests.conftest import NewDataset, Stack, TestDatabase, metadata
from tests.door import refused
from tests.jobs_service.api_keys.test_api_keys import LIST, bearer, create, revoke
from tests.jobs_service.artifacts.test_artifacts import completed, download
from tests.jobs_service.jobs.test_create_job import new_request
from tests.jobs_service.queue.test_leases import complete, lease, queue, report

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Webhooks may have any address."""
    return {"webhook_allow_private": True}


async def events(stack: Stack, user: str = ANN, **fields: Any) -> list[audit_pb2.AuditEvent]:
    """A user's events, oldest first."""
    request = audit_pb2.ListAuditEventsRequest(limit=100, **fields)
    return list(reversed((await stack.audit.ListAuditEvents(request, metadata=metadata(user))).events))


def word(event: audit_pb2.AuditEvent) -> str:
    """The action of an event."""
    return audit_pb2.AuditAction.Name(event.action).removeprefix("AUDIT_ACTION_").lower()


async def exported(stack: Stack, user: str = ANN) -> list[dict[str, Any]]:
    """A user's events as lines of JSON."""
    call = stack.audit.ExportAuditEvents(audit_pb2.ExportAuditEventsRequest(), metadata=metadata(user))
    return [orjson.loads(line) for line in b"".join([body.data async for body in call]).splitlines()]


async def test_what_a_user_does_is_logged(stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection) -> None:
    """Each change of jobs, datasets, webhooks and keys by their user is one event; changes by trainers are none."""
    dataset = await new_dataset(ANN)
    caller = metadata(ANN)
    job = (await stack.jobs.CreateJob(new_request(dataset), metadata=caller)).job
    other = await queue(stack, new_dataset)
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=caller)
    (leased,) = await lease(stack)
    await report(stack, leased)
    await complete(stack, leased)
    await stack.jobs.DeleteJob(jobs_pb2.DeleteJobRequest(id=job.id), metadata=caller)
    await stack.datasets.DeleteDataset(datasets_pb2.DeleteDatasetRequest(id=dataset), metadata=caller)
    hook = webhooks_pb2.CreateWebhookRequest(url="http://127.0.0.1:9/", description="Mine")
    webhook = (await stack.webhooks.CreateWebhook(hook, metadata=caller)).webhook
    update = webhooks_pb2.UpdateWebhookRequest(id=webhook.id, url="http://127.0.0.1:9/other", description="Mine")
    await stack.webhooks.UpdateWebhook(update, metadata=caller)
    await stack.webhooks.RotateWebhookSecret(webhooks_pb2.RotateWebhookSecretRequest(id=webhook.id), metadata=caller)
    await stack.webhooks.DeleteWebhook(webhooks_pb2.DeleteWebhookRequest(id=webhook.id), metadata=caller)
    made = await create(stack)
    await revoke(stack, made.api_key.id)
    assert [(word(each), each.resource_id, each.resource_name) for each in await events(stack)] == [
        ("job_created", job.id, ""),
        ("job_created", other.id, ""),
        ("job_cancelled", job.id, ""),
        ("job_deleted", job.id, ""),
        ("dataset_deleted", dataset, "Questions"),
        ("webhook_created", webhook.id, "Mine"),
        ("webhook_changed", webhook.id, "Mine"),
        ("webhook_secret_replaced", webhook.id, "Mine"),
        ("webhook_deleted", webhook.id, "Mine"),
        ("api_key_created", made.api_key.id, "Script"),
        ("api_key_revoked", made.api_key.id, "Script"),
    ]
    assert await events(stack, BOB) == []
    stored = str(await admin.fetch("select * from audit_events"))
    assert made.key not in stored
    assert "whsec" not in stored


async def test_an_event_has_the_address_of_its_call(stack: Stack, new_dataset: NewDataset) -> None:
    """An event has address, request id and API key of its call; an address from a header is sanitized."""
    dataset = await new_dataset(ANN)
    made = await create(stack, [options_pb2.SCOPE_JOBS])
    call = [*bearer(made.key), ("x-request-id", "r-1"), ("x-client-address", "203.0.113.9")]
    await stack.jobs.CreateJob(new_request(dataset), metadata=call)
    bad = [*bearer(made.key), ("x-request-id", 'r"2'), ("x-client-address", '1.1.1.1","sub":"x')]
    await stack.jobs.CreateJob(new_request(dataset), metadata=bad)
    _, used, first, second = await events(stack)
    assert word(used) == "api_key_used"
    assert used.resource_id == made.api_key.id
    for each in (used, first):
        assert (each.request_id, each.client_address) == ("r-1", "203.0.113.9")
    assert first.api_key_id == second.api_key_id == made.api_key.id
    assert not second.HasField("client_address")
    assert '"' not in second.request_id
    if stack.jobs_address:
        assert {each.address for each in (used, first, second)} <= {"127.0.0.1", "::1"}
        assert first.address
    else:
        assert not first.HasField("address")


async def test_a_download_is_logged(stack: Stack, new_dataset: NewDataset) -> None:
    """Each download of a file, or of a part of it, is one event; a refused one is none."""
    job = await completed(stack, new_dataset)
    before = len(await events(stack))
    await download(stack, job.id, "adapter_config.json")
    await download(stack, job.id, "adapter_config.json", offset=1)
    await refused(download(stack, job.id, "nothing.bin"))
    await refused(download(stack, job.id, "adapter_config.json", BOB))
    after = (await events(stack))[before:]
    assert [(word(each), each.resource_id) for each in after] == [("artifact_downloaded", job.id)] * 2
    assert await events(stack, BOB) == []


async def test_a_key_in_use_is_one_event_an_hour(
    stack: Stack, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Continuous use of a key is one event; use after an hour without any is another one."""
    monkeypatch.setattr("rpc.identity.tokens.KEY_TRUST_SECONDS", 0.0)
    made = await create(stack)
    for rest in ("0 minutes", "59 minutes", "2 minutes", "61 minutes"):
        await admin.execute("update api_keys set last_used_at = last_used_at - $1::text::interval", rest)
        await stack.jobs.ListJobs(LIST, metadata=bearer(made.key))
    used = [each for each in await events(stack) if word(each) == "api_key_used"]
    assert len(used) == 2


async def test_a_change_that_fails_is_no_event(
    stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection
) -> None:
    """An event is written in the transaction of its change, and rolled back with it."""
    await admin.execute("alter table lora_notifications add constraint broken check (type <> 'job_queued')")
    await refused(stack.jobs.CreateJob(new_request(await new_dataset(ANN)), metadata=metadata(ANN)))
    assert await events(stack) == []
    await admin.execute("alter table audit_events add constraint broken check (action <> 'api_key_created')")
    await refused(create(stack))
    assert await admin.fetchval("select count(*) from api_keys") == 0


async def test_no_role_can_change_the_log(database: TestDatabase, admin: asyncpg.Connection) -> None:
    """No role of the services can insert, change, delete or truncate events, or disable their triggers."""
    await admin.execute(
        "insert into audit_events (user_id, action, resource_id) values ($1, 'job_created', $1)", uuid.UUID(ANN)
    )
    connection = await asyncpg.connect(database.url)
    try:
        for role in ("service", "user", "worker", "system"):
            for statement in (
                "insert into audit_events (user_id, action, resource_id) select caller_id(), 'x', caller_id()",
                "update audit_events set action = 'x'",
                "delete from audit_events",
                "truncate audit_events",
                "alter table lora_training_jobs disable trigger audit_job_created",
                "set session_replication_role = replica",
                "set role pipeline_outbox",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with connection.transaction():
                        await connection.execute("select set_config('role', $1, true)", f"pipeline_{role}")
                        await connection.execute(statement)
    finally:
        await connection.close()
    assert await admin.fetchval("select array_agg(action) from audit_events") == ["job_created"]


async def test_events_are_listed_in_pages_and_exported(
    stack: Stack, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are newest first and can be filtered by action; the export has each event once, oldest first."""
    monkeypatch.setattr("jobs_service.audit.store.EXPORT_BATCH", 7)
    await admin.execute(
        "insert into audit_events (user_id, action, resource_id, resource_name)"
        " select case when n % 3 = 0 then $2::uuid else $1::uuid end,"
        " case when n % 2 = 0 then 'job_created' else 'job_cancelled' end, gen_random_uuid(), n::text"
        " from generate_series(1, 60) n",
        ANN,
        BOB,
    )
    mine = [str(number) for number in range(1, 61) if number % 3]
    request = audit_pb2.ListAuditEventsRequest(page=2, limit=15)
    page = await stack.audit.ListAuditEvents(request, metadata=metadata(ANN))
    assert [each.resource_name for each in page.events] == list(reversed(mine))[15:30]
    assert (page.pagination.total, page.pagination.total_pages) == (40, 3)
    cancelled = await events(stack, action=audit_pb2.AUDIT_ACTION_JOB_CANCELLED)
    assert [each.resource_name for each in cancelled] == [each for each in mine if int(each) % 2]
    lines = await exported(stack)
    assert [each["resource_name"] for each in lines] == mine
    assert {"id", "user_id", "action", "at", "resource_id", "api_key_id", "address"} <= lines[0].keys()
    assert await exported(stack, str(uuid.uuid4())) == []

"""Notifications: one for each job, the latest; webhooks receive every one."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest
from pipeline.jobs.v1 import jobs_pb2
from pipeline.notifications.v1 import notifications_pb2

from tests.conftest import NewDataset, Stack, TestDatabase, metadata, open_stack
from tests.jobs_service.queue.test_leases import complete, lease, queue, report, until

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


async def listed(stack: Stack, user: str = ANN, *, unread: bool = False) -> notifications_pb2.ListNotificationsResponse:
    """A user's notifications, newest first."""
    request = notifications_pb2.ListNotificationsRequest(limit=100, unread=unread)
    return await stack.notifications.ListNotifications(request, metadata=metadata(user))


async def test_a_job_has_one_notification(stack: Stack, new_dataset: NewDataset, admin: asyncpg.Connection) -> None:
    """Eight jobs that ran are eight notifications, each of how its job ended, and eight unread ones; all are kept."""
    jobs = [await queue(stack, new_dataset) for _ in range(8)]
    for leased in await lease(stack, max_jobs=8):
        await report(stack, leased)
        await complete(stack, leased)
    response = await listed(stack)
    assert [each.type for each in response.notifications] == ["job_completed"] * 8
    assert {each.metadata["job_id"] for each in response.notifications} == {job.id for job in jobs}
    assert (response.pagination.total, response.unread_count) == (8, 8)
    assert await admin.fetchval("select count(*) from lora_notifications") > 16


async def test_a_notification_that_was_read_is_replaced_by_an_unread_one(stack: Stack, new_dataset: NewDataset) -> None:
    """A new notification about a job replaces the one that was read; those of other jobs and users stay."""
    job, other = await queue(stack, new_dataset), await queue(stack, new_dataset)
    await queue(stack, new_dataset, user=BOB)
    for each in (await listed(stack)).notifications:
        mark = notifications_pb2.MarkNotificationReadRequest(id=each.id)
        await stack.notifications.MarkNotificationRead(mark, metadata=metadata(ANN))
    assert (await listed(stack)).unread_count == 0
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))
    (unread,) = (await listed(stack, unread=True)).notifications
    assert (unread.type, unread.metadata["job_id"]) == ("job_cancelled", job.id)
    response = await listed(stack)
    assert [each.metadata["job_id"] for each in response.notifications] == [job.id, other.id]
    assert (response.pagination.total, response.unread_count) == (2, 1)
    assert [each.type for each in (await listed(stack, BOB)).notifications] == ["job_queued"]


async def test_old_notifications_and_keys_are_deleted(
    database: TestDatabase, admin: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running service deletes notifications after a year, superseded ones after a week, keys a month after their end."""
    monkeypatch.setattr("jobs_service.__main__.PRUNE_SECONDS", 0.05)
    monkeypatch.setattr("jobs_service.notifications.store.BATCH", 2)
    ages = [("old", "366 days", False), ("kept", "364 days", False), ("late", "8 days", True), ("last", "6 days", True)]
    for type_, age, superseded in [*ages, ("old", "400 days", True), ("late", "9 days", True)]:
        await admin.execute(
            "insert into lora_notifications (user_id, type, title, message, superseded, created_at)"
            " values ($1, $2, '', '', $3, now() - $4::text::interval)",
            ANN,
            type_,
            superseded,
            age,
        )
    for number, age in enumerate(("31 days", "29 days", "-1 days")):
        await admin.execute(
            "insert into api_keys (user_id, role, name, key_hash, prefix, scopes, created_at, expires_at)"
            " values ($1, 'user', $2, $3, 'pk_', '{read}', now() - interval '90 days', now() - $2::text::interval)",
            ANN,
            age,
            bytes([number] * 32),
        )
    kept = "select (select array_agg(type order by type) from lora_notifications) = '{kept,last}'"
    async with open_stack("local", database.url, tmp_path):
        await until(lambda: admin.fetchval(kept))
        await until(lambda: admin.fetchval("select count(*) = 2 from api_keys"))
    assert await admin.fetchval("select array_agg(name order by name) from api_keys") == ["-1 days", "29 days"]
    assert await admin.fetchval("select count(*) from audit_events where action = 'api_key_revoked'") == 0


async def test_of_several_in_one_statement_the_last_stays(stack: Stack, admin: asyncpg.Connection) -> None:
    """Two notifications about one job in one insert: the second replaces the first; those without a job replace none."""
    await admin.execute(
        "insert into lora_notifications (user_id, type, title, message, metadata)"
        " values ($1, 'a', '', '', $2), ($1, 'b', '', '', $2), ($1, 'c', '', '', '{}'), ($1, 'd', '', '', '{}')",
        ANN,
        '{"job_id": "1"}',
    )
    assert {each.type for each in (await listed(stack)).notifications} == {"b", "c", "d"}

"""Watches of jobs: snapshots and events in order, without gaps or repetitions, and how they end."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from pipeline.jobs.v1 import jobs_pb2

from jobs_service.events import watch
from jobs_service.events.model import Cursor, EventType, JobEvent, parse_cursor
from jobs_service.events.store import EventStore
from jobs_service.events.watch import Buffer, Tailer
from jobs_service.jobs.model import JobState
from jobs_service.queue.reforecast import MIN_STEPS, MIN_TIME
from rpc.database.pool import Database
from tests.conftest import NewDataset, Stack, TestDatabase, metadata
from tests.door import refusal
from tests.jobs_service.api_keys.test_api_keys import bearer, create, revoke
from tests.jobs_service.jobs.test_create_job import ANN, BOB
from tests.jobs_service.trainers import complete, lease, queue, report, sweeper, trained_for, until

ONE_WAY = pytest.mark.parametrize("stack", ["grpc"], indirect=True)
FINAL = jobs_pb2.WATCH_END_REASON_JOB_FINAL


@pytest.fixture
def jobs_overrides() -> dict[str, Any]:
    """Short intervals of pings."""
    return {"lease_ms": 60_000, "watch_poll_ms": 20, "watch_ping_ms": 200, "max_watches_per_user": 600}


class Watcher:
    """A watch and its messages."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.messages: list[Any] = []
        self.error: grpc.aio.AioRpcError | None = None
        self._reading = asyncio.create_task(self._read(), name="watcher")

    async def _read(self) -> None:
        try:
            async for message in self.call:
                self.messages.append(message)
        except grpc.aio.AioRpcError as error:
            self.error = error

    def kinds(self) -> list[str]:
        """What the messages were, pings left out."""
        kinds = [message.WhichOneof("update") for message in self.messages]
        return [kind for kind in kinds if kind != "ping"]

    def revisions(self, job_id: str) -> list[int]:
        """Numbers of the events of one job."""
        events = [message.event for message in self.messages if message.WhichOneof("update") == "event"]
        return [event.revision for event in events if event.job_id == job_id]

    async def has(self, kind: str, count: int = 1) -> Any:
        """Waits for so many messages of a kind and returns the last."""

        async def look() -> Any:
            result = [message for message in self.messages if message.WhichOneof("update") == kind]
            return result[count - 1] if len(result) >= count else None

        return await until(look, 10)

    async def ended(self) -> None:
        """Waits until the stream is over."""
        await asyncio.wait_for(asyncio.shield(self._reading), 10)

    async def close(self) -> None:
        """Goes away."""
        self.call.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@asynccontextmanager
async def watching(
    stack: Stack, job_id: str | None = None, user: str = ANN, *, after: str = "", key: str = "", **claims: Any
) -> AsyncIterator[Watcher]:
    """A watch of one job, or of all, with a user's token or with an API key."""
    credentials = bearer(key) if key else metadata(user, **claims)
    if job_id is None:
        call = stack.jobs.WatchJobs(jobs_pb2.WatchJobsRequest(last_event_id=after), metadata=credentials)
    else:
        call = stack.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id, last_event_id=after), metadata=credentials)
    watcher = Watcher(call)
    try:
        yield watcher
    finally:
        await watcher.close()


async def test_a_job_is_watched_from_queue_to_end(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """A watch begins with a snapshot, has each event once and in order, and ends with the job."""
    job = await queue(stack, new_dataset)
    async with watching(stack, job.id) as one, watching(stack) as all_:
        snapshot = (await one.has("snapshot")).snapshot
        assert [(each.id, each.revision) for each in snapshot.jobs] == [(job.id, 1)]
        await all_.has("snapshot")
        other = await queue(stack, new_dataset)
        (leased,) = await lease(stack)
        await report(stack, leased, log_lines=["hello"])
        await trained_for(admin, job.id, MIN_TIME.total_seconds())
        await report(stack, leased, step=1875, metrics=[{"step": 1875, "values": {"loss": 0.25}}])
        await complete(stack, leased)
        await one.ended()
        assert one.kinds() == ["snapshot", *["event"] * 5, "end"]
        assert one.messages[-1].end.reason == FINAL
        # The fifth: after so many steps the job is forecast anew.
        assert one.revisions(job.id) == [2, 3, 4, 5, 6]
        half = next(message.event for message in one.messages if message.event.current_step == 1875)
        assert (half.progress, half.current_metrics["loss"], half.is_final) == (50, 0.25, False)
        assert list(half.allowed_actions) == [jobs_pb2.JOB_ACTION_CANCEL]
        await all_.has("event", 6)
        assert all_.revisions(job.id) == [2, 3, 4, 5, 6]
        assert all_.revisions(other.id) == [1]
        ids = [message.id for message in one.messages]
        assert ids == sorted(ids, key=lambda cursor: parse_cursor(cursor, ANN))


@ONE_WAY
async def test_a_watch_resumes_after_any_message(stack: Stack, new_dataset: NewDataset) -> None:
    """W01: a watch from the id of any message has exactly the messages after it."""
    job = await queue(stack, new_dataset)
    async with watching(stack, job.id) as first:
        await first.has("snapshot")
        (leased,) = await lease(stack)
        for step in range(1, 6):
            await report(stack, leased, step=step)
        await complete(stack, leased)
        await first.ended()
    events = [message for message in first.messages if message.WhichOneof("update") != "ping"]
    for seen in range(len(events)):
        async with watching(stack, job.id, after=events[seen].id) as again:
            await again.ended()
            rest = [message.event.revision for message in events[seen + 1 :] if message.HasField("event")]
            assert again.revisions(job.id) == rest
            assert again.messages[0].HasField("ping")
            assert again.messages[-1].end.reason == FINAL


@ONE_WAY
@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        ("garbage", "BAD_CURSOR"),
        ("5", "BAD_CURSOR"),
        ("1.2.3", "BAD_CURSOR"),
        ("-1.0.0.00000000", "BAD_CURSOR"),
        ("9" * 19 + ".1.1.00000000", "BAD_CURSOR"),
        ("x" * 2049, "VALIDATION_FAILED"),
        ("future", "BAD_CURSOR"),
        ("another user's", "snapshot"),
        ("too old", "reset"),
    ],
)
async def test_cursors_are_checked(stack: Stack, new_dataset: NewDataset, cursor: str, expected: str) -> None:
    """W02: malformed and future cursors are refused, another user's starts anew, and an old one resets."""
    job = await queue(stack, new_dataset)
    now = int(time.time() * 1000)
    made = {
        "future": Cursor(10**12, 1, now).render(ANN),
        "another user's": Cursor(1, 1, now).render(BOB),
        "too old": Cursor(1, 1, now - 8 * 24 * 3_600_000).render(ANN),
    }
    async with watching(stack, job.id, after=made.get(cursor, cursor)) as watcher:
        if expected.isupper():
            await watcher.ended()
            assert watcher.error is not None
            assert refusal(watcher.error).reason == expected
        else:
            first = await watcher.has(expected)
            assert watcher.messages[0] == first
            assert [each.id for each in getattr(first, expected).jobs] == [job.id]


async def test_what_commits_late_is_not_missed(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """W03: events of transactions that commit out of order are all sent, in the same order to all."""
    from tests.jobs_service.rows import job_row

    early, late = [await job_row(admin, await new_dataset(ANN), ANN, "queued", revision=1) for _ in range(2)]
    slow = await asyncpg.connect(database.admin_url)
    insert = (
        "insert into job_events (job_id, user_id, revision, type, status, data)"
        " values ($1, $2, $3, 'queued', 'queued', '{}')"
    )
    async with Database.open(database.url, size=2) as pool:
        history = EventStore(pool)
        start = (await history.position()).safe
        held_back = slow.transaction()
        await held_back.start()
        await slow.execute(insert, early, uuid.UUID(ANN), 1)
        await admin.execute(insert, late, uuid.UUID(ANN), 1)
        events, position, *_ = await history.tail(start)
        # The one that committed has a later number than the one that has not: it waits, or a cursor would pass both.
        assert events == []
        await admin.execute(insert, late, uuid.UUID(ANN), 2)
        events, position, *_ = await history.tail(position)
        assert events == []
        await held_back.commit()
        events, _, *_ = await history.tail(position)
        assert [(event.job_id, event.revision) for event in events] == [(early, 1), (late, 1), (late, 2)]
    await slow.close()


@ONE_WAY
async def test_events_with_long_logs_are_read_in_small_batches(
    stack: Stack, database: TestDatabase, new_dataset: NewDataset
) -> None:
    """Events with long logs are read in small batches, and a resumed watch gets all of them."""
    job = await queue(stack, new_dataset)
    (leased,) = await lease(stack)
    async with watching(stack, job.id) as watcher:
        start = (await watcher.has("snapshot")).id
    for step in range(1, 8):
        await report(stack, leased, step=step, log_lines=["€" * 2000] * 100)
    async with Database.open(database.url, size=1) as pool:
        position, sizes, more = Cursor(0, 0, 0), [], True
        while more:
            events, position, more, _ = await EventStore(pool).tail(position)
            sizes.append(len(events))
    # Queued, leased and the first four reports: 600 kB of lines each.
    assert sizes == [6, 3]
    async with watching(stack, job.id, after=start) as watcher:
        await watcher.has("event", 7)
        assert watcher.revisions(job.id) == [*range(3, 10)]


@ONE_WAY
async def test_watchers_miss_nothing_under_load(
    stack: Stack, database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """W03, S15: while transactions overlap, wait and roll back, every watcher gets each event once, in order."""
    jobs = [await queue(stack, new_dataset) for _ in range(8)]
    async with watching(stack) as steady:
        await steady.has("snapshot")
        taken = [value for _ in jobs for value in await lease(stack)]

        async def disturb() -> None:
            connection = await asyncpg.connect(database.admin_url)
            for number in range(20):
                change = connection.transaction()
                await change.start()
                await connection.execute(
                    "insert into job_events (job_id, user_id, revision, type, status, data)"
                    " select id, user_id, 1000 + $1, 'progress', status, '{}' from lora_training_jobs limit 1",
                    number,
                )
                await asyncio.sleep(0.01)
                await change.rollback()
            await connection.close()

        async def work(value: Any) -> None:
            for step in range(1, 16):
                await report(stack, value, step=step)

        async def come_and_go() -> list[int]:
            """Reconnects repeatedly and joins the messages."""
            seen, after = [], ""
            while not seen or seen[-1] < 17:
                async with watching(stack, jobs[0].id, after=after) as brief:
                    await brief.has("event" if after else "snapshot")
                if not after:
                    seen.append(brief.messages[0].snapshot.jobs[0].revision)
                seen += brief.revisions(jobs[0].id)
                after = brief.messages[-1].id
            return seen

        results = await asyncio.gather(disturb(), disturb(), come_and_go(), *[work(value) for value in taken])
        seen = results[2]
        assert seen == list(range(seen[0], 18))

        async def complete_() -> bool:
            return all(steady.revisions(job.id)[-1:] == [17] for job in jobs)

        await until(complete_, 10)
        for job in jobs:
            assert steady.revisions(job.id) == list(range(2, 18))


def test_a_slow_watchers_buffer_has_a_size() -> None:
    """W04, G14: a buffer has 256 events; with one more it drops all, and the watcher has to resume."""
    from jobs_service.events.model import EventType, JobEvent
    from jobs_service.jobs.model import JobState
    from rpc.errors import BufferOverrun

    job_id = uuid.uuid4()

    def event(number: int) -> JobEvent:
        cursor = Cursor(number, number, 0)
        return JobEvent(cursor, job_id, job_id, number, EventType.PROGRESS, JobState.RUNNING, {}, None)  # type: ignore[arg-type]

    buffer = Buffer(None)
    for number in range(watch.BUFFER):
        buffer.offer(event(number))
    assert len(buffer._events) == 256
    buffer.offer(event(256))
    buffer.offer(event(257))
    assert len(buffer._events) == 0
    with pytest.raises(BufferOverrun):
        asyncio.run(buffer.take(1))


@ONE_WAY
async def test_a_watcher_that_does_not_read_is_closed_and_others_continue(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W04, G14: a watcher that stops reading is refused with BUFFER_OVERRUN and resumes without a gap; others see all."""
    monkeypatch.setattr(watch, "BUFFER", 16)
    job = await queue(stack, new_dataset)
    request = jobs_pb2.WatchJobRequest(id=job.id)
    lazy = stack.jobs.WatchJob(request, metadata=metadata(ANN))
    seen = [await lazy.read()]
    async with watching(stack, job.id) as eager:
        await eager.has("snapshot")
        (leased,) = await lease(stack)
        lines = ["x" * 2000] * 50
        for step in range(1, 80):
            await report(stack, leased, step=step, log_lines=lines)
            if step == MIN_STEPS:
                await trained_for(admin, job.id, MIN_TIME.total_seconds())
            if step % 8 == 0:
                # A whole buffer between two looks for events would be too many for any reader.
                await eager.has("event", step + 1)
        await eager.has("event", 80)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            while True:
                seen.append(await lazy.read())
        assert refusal(error.value).reason == "BUFFER_OVERRUN"
        async with watching(stack, job.id, after=seen[-1].id) as again:
            await complete(stack, leased)
            await again.ended()
        result = [message.event.revision for message in seen if message.HasField("event")]
        assert result + again.revisions(job.id) == list(range(2, 84))


@ONE_WAY
async def test_a_quiet_watch_pings(stack: Stack, new_dataset: NewDataset) -> None:
    """W05: an idle watch has pings, whose cursor advances so that it never expires."""
    job = await queue(stack, new_dataset)
    async with watching(stack, job.id) as watcher:
        first, third = (await watcher.has("ping")).id, (await watcher.has("ping", 3)).id
        assert parse_cursor(first, ANN).at_ms < parse_cursor(third, ANN).at_ms
        assert watcher.kinds() == ["snapshot"]


@ONE_WAY
async def test_what_fails_before_the_first_event_is_a_status(stack: Stack, new_dataset: NewDataset) -> None:
    """W07, Z01: a watch with a foreign job or without a token gets the same status as any other call."""
    job = await queue(stack, new_dataset)
    for job_id, user, reason in (
        (str(uuid.uuid4()), ANN, "JOB_NOT_FOUND"),
        (job.id, BOB, "JOB_NOT_FOUND"),
        ("job", ANN, "VALIDATION_FAILED"),
    ):
        async with watching(stack, job_id, user) as watcher:
            await watcher.ended()
            assert refusal(watcher.error).reason == reason
            assert watcher.messages == []
    async with watching(stack, job.id, role="worker") as watcher:
        await watcher.ended()
        assert refusal(watcher.error).reason == "ROLE_NOT_ALLOWED"


@ONE_WAY
async def test_an_expired_token_ends_the_watch(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """W08, A20: a watch ends with that reason when its token has expired or its user is disabled."""
    job = await queue(stack, new_dataset)
    # A second is left of the 30 that a token is believed after its end.
    async with watching(stack, job.id, exp=int(time.time()) - 28) as watcher:
        await watcher.has("snapshot")
        await watcher.ended()
        assert watcher.messages[-1].end.reason == jobs_pb2.WATCH_END_REASON_AUTH


@ONE_WAY
async def test_a_revoked_key_ends_its_watches(
    stack: Stack, new_dataset: NewDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W08: a watch with a revoked API key ends at the first ping after the key's cache has expired."""
    monkeypatch.setattr("rpc.identity.tokens.KEY_TRUST_SECONDS", 0.0)
    job = await queue(stack, new_dataset)
    made = await create(stack)
    async with watching(stack, job.id, key=made.key) as watcher:
        await watcher.has("ping")
        await revoke(stack, made.api_key.id)
        await watcher.ended()
        assert watcher.messages[-1].end.reason == jobs_pb2.WATCH_END_REASON_AUTH


@ONE_WAY
async def test_the_tailer_survives_lost_connections(
    stack: Stack, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """W09, S03: killing all connections of the service repeatedly delays events and loses none."""
    job = await queue(stack, new_dataset)
    async with watching(stack) as watcher:
        await watcher.has("snapshot")
        (leased,) = await lease(stack)
        for step in range(1, 8):
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )

            async def reported(step: int = step) -> bool:
                try:
                    await report(stack, leased, step=step)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    return False
                return True

            await until(reported)

        async def all_there() -> bool:
            return len(watcher.revisions(job.id)) >= 8

        await until(all_there)
        messages = watcher.revisions(job.id)
        assert messages == list(range(2, 2 + len(messages)))
        assert messages[-1] == await admin.fetchval("select revision from lora_training_jobs")


@ONE_WAY
async def test_a_finished_job_shows_its_end_at_once(stack: Stack, new_dataset: NewDataset) -> None:
    """W10: a watch of a job that is over shows its final state and ends."""
    job = await queue(stack, new_dataset)
    await stack.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id), metadata=metadata(ANN))
    async with watching(stack, job.id) as watcher:
        await watcher.ended()
        assert watcher.kinds() == ["snapshot", "end"]
        assert watcher.messages[0].snapshot.jobs[0].status == jobs_pb2.JOB_STATUS_CANCELLED


@ONE_WAY
@pytest.mark.parametrize("watchers", [50, pytest.param(500, marks=pytest.mark.slow)])
async def test_many_watch_one_job(stack: Stack, new_dataset: NewDataset, watchers: int) -> None:
    """W11: each of 500 watchers of one job gets every event once."""
    job = await queue(stack, new_dataset)
    credentials = metadata(ANN)
    calls = [
        Watcher(stack.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job.id), metadata=credentials)) for _ in range(watchers)
    ]
    for each in calls:
        await each.has("snapshot")
    (taken,) = await lease(stack)
    for step in range(1, 11):
        await report(stack, taken, step=step)
    await complete(stack, taken)
    for each in calls:
        await each.ended()
    expected = list(range(2, 14))
    wrong = [(each.messages[0].snapshot.jobs[0].revision, each.revisions(job.id)) for each in calls]
    assert [each for each in wrong if each != (1, expected)] == []


@ONE_WAY
@pytest.mark.parametrize("jobs_overrides", [{"max_watches_per_user": 2, "max_watches": 3}])
async def test_watches_have_limits(stack: Stack, new_dataset: NewDataset) -> None:
    """L05: watches above a user's or the server's limit are refused; closing one makes room."""
    job = await queue(stack, new_dataset)
    async with watching(stack, job.id) as one, watching(stack, job.id) as two:
        await one.has("snapshot")
        await two.has("snapshot")
        async with watching(stack) as three:
            await three.ended()
            error = refusal(three.error)
            assert (error.code.name, error.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_WATCHES")
        async with watching(stack, user=BOB) as theirs:
            await theirs.has("snapshot")
            async with watching(stack, user="cccccccc-0000-4000-8000-000000000003") as too_many:
                await too_many.ended()
                assert refusal(too_many.error).reason == "TOO_MANY_WATCHES"
        await one.close()

        async def again() -> bool:
            async with watching(stack) as three:
                await until(lambda: _anything(three))
                return three.error is None

        await until(again)


async def _anything(watcher: Watcher) -> bool:
    return bool(watcher.messages or watcher.error)


@ONE_WAY
async def test_a_watch_ends_before_its_deadline(stack: Stack, new_dataset: NewDataset) -> None:
    """A watch ends before its deadline, with a cursor to resume from."""
    job = await queue(stack, new_dataset)
    request = jobs_pb2.WatchJobRequest(id=job.id)
    result = [each async for each in stack.jobs.WatchJob(request, metadata=metadata(ANN), timeout=1)]
    assert result[-1].end.reason == jobs_pb2.WATCH_END_REASON_TIME_UP
    assert parse_cursor(result[-1].id, ANN)


async def test_nothing_is_read_without_watches(database: TestDatabase) -> None:
    """Without watches the tailer reads nothing; the first watch starts at the current end of events."""
    async with Database.open(database.url, size=2) as pool:
        history = EventStore(pool)
        values: list[Cursor] = []
        tail = history.tail

        async def counted(after: Cursor) -> Any:
            values.append(after)
            return await tail(after)

        history.tail = counted  # type: ignore[method-assign]
        tailer = Tailer(history, poll_seconds=0.01)
        running = asyncio.create_task(tailer.run(), name="tail")
        await asyncio.sleep(0.05)
        assert values == []
        now = (await history.position()).safe
        with tailer.subscribe(ANN, None, now):
            await until(lambda: _some(values))
        assert values[0] == now
        await asyncio.sleep(0.03)
        count = len(values)
        await asyncio.sleep(0.1)
        assert len(values) == count
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _some(page_of: list[Any]) -> bool:
    return bool(page_of)


async def test_old_reports_are_deleted(
    database: TestDatabase, admin: asyncpg.Connection, new_dataset: NewDataset
) -> None:
    """Events of progress are deleted after the retention; events that changed a status are kept."""
    from tests.jobs_service.rows import job_row

    job_id = await job_row(admin, await new_dataset(ANN), ANN, "running")
    await admin.execute(
        "insert into job_events (job_id, user_id, revision, type, status, data, created_at)"
        " select $1, $2, n, case when n = 1 then 'started' else 'progress' end, 'running', '{}',"
        " now() - n * interval '1 day' from generate_series(1, 10) n",
        job_id,
        uuid.UUID(ANN),
    )
    async with Database.open(database.url, size=1) as pool:
        assert await EventStore(pool).prune(timedelta(days=7)) == 4
        await sweeper(pool).prune_offers()
    assert await admin.fetchval("select count(*) from job_events") == 6


async def test_an_event_at_the_end_of_a_wait_is_taken() -> None:
    """An event that arrives just as the wait for it times out is not lost."""
    event = JobEvent(
        Cursor(1, 1, 0), uuid.uuid4(), uuid.UUID(ANN), 1, EventType.QUEUED, JobState.QUEUED, {}, datetime.now(UTC)
    )
    buffer, loop = Buffer(None), asyncio.get_running_loop()
    taking = asyncio.create_task(buffer.take(0.001))
    await asyncio.sleep(0)
    # Both timers are due at once: the wait's own, then ours.
    loop.call_later(0.002, buffer.offer, event)
    time.sleep(0.01)  # noqa: ASYNC251 - the loop must be late for both
    assert await taking == event

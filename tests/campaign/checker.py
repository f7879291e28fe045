"""Decides from what clients wrote down and what the database holds whether anything was lost, doubled or moved back.

It shares nothing with the services but the table of transitions. A history is a list of entries, one for each call, written
once its end is known: `op`, `began` and `ended` in seconds of one clock, `outcome` (`ok`, `stop:REASON`, `refused:REASON`, or
`unknown` where no answer came), and what the call was about. Watchers write an entry for each message.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg

from jobs_service.jobs.model import FINAL, TRANSITIONS, JobState

Entry = Mapping[str, Any]
RESULTS = {"complete": "completed", "fail": "failed", "release": "released"}
TABLES = {
    "jobs": "select id::text, user_id::text, idempotency_key::text as request_id, status, revision, "
    "lease_epoch, artifact_uri, final_cost "
    "from lora_training_jobs",
    "events": "select job_id::text as job, revision, type, status, coalesce((data ->> 'progress')::float, 0) as progress "
    "from job_events order by job_id, revision",
    "costs": "select job_id::text as job, lease_epoch, lease_token::text as token, outcome, cost_usd from cost_records",
    "notices": "select metadata ->> 'job_id' as job, type from lora_notifications",
}


@dataclass(frozen=True)
class Evidence:
    """What the judgement is made from: rows as mappings, as TABLES names their columns. `events` by job and revision."""

    history: Sequence[Entry]
    jobs: Sequence[Entry]
    events: Sequence[Entry]
    costs: Sequence[Entry]
    notices: Sequence[Entry]


@dataclass(frozen=True)
class Finding:
    """One promise: how often it was looked at, and where it was broken."""

    promise: str
    looked_at: int
    broken: list[str] = field(default_factory=list)


async def read_tables(connection: asyncpg.Connection) -> dict[str, list[asyncpg.Record]]:
    """The database's part of the evidence, from one snapshot."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return {name: await connection.fetch(statement) for name, statement in TABLES.items()}


def read_history(folder: Path) -> list[Entry]:
    """The clients' part, of all their files. A client that was killed may leave its last line half written: it is no entry."""
    entries = []
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
    return entries


def check(evidence: Evidence, *, all_final: bool) -> list[Finding]:
    """Every promise with what breaks it. `all_final`: time enough has passed for every job to have ended."""
    return [make(evidence) for make in PROMISES] + ([_all_ended(evidence)] if all_final else [])


def _ok(evidence: Evidence, *ops: str) -> Iterator[Entry]:
    return (entry for entry in evidence.history if entry["op"] in ops and entry["outcome"] == "ok")


def _finding(promise: str, looked_at: int, broken: Iterable[str]) -> Finding:
    return Finding(promise, looked_at, list(broken))


def _nothing_lost(evidence: Evidence) -> Finding:
    jobs = {job["id"]: job for job in evidence.jobs}
    created = list(_ok(evidence, "create"))

    def broken() -> Iterator[str]:
        for entry in created:
            job = jobs.get(entry["job"])
            if job is None:
                yield f"job {entry['job']} was acknowledged and is not there"
            elif (job["user_id"], job["request_id"]) != (entry["user"], entry["request_id"]):
                yield f"job {entry['job']} is not the one that was asked for"

    return _finding("an acknowledged job is there", len(created), broken())


def _nothing_doubled(evidence: Evidence) -> Finding:
    rows = Counter((job["user_id"], job["request_id"]) for job in evidence.jobs if job["request_id"])
    answers = defaultdict(set)
    for entry in _ok(evidence, "create"):
        answers[entry["user"], entry["request_id"]].add(entry["job"])
    broken = [f"{key} has {count} jobs" for key, count in rows.items() if count > 1]
    broken += [f"{key} was answered with {len(ids)} jobs" for key, ids in answers.items() if len(ids) > 1]
    return _finding("a request id has one job", len(rows), broken)


# What an owner is told of, and how often: (type, whether it is due, by the types of the job's events).
NOTICES = (
    ("job_queued", lambda kinds: 1),
    ("job_started", lambda kinds: min(1, kinds["started"])),
    ("job_completed", lambda kinds: kinds["completed"]),
    ("job_failed", lambda kinds: kinds["failed"]),
    ("job_cancelled", lambda kinds: kinds["cancelled"]),
    ("job_lease_lost", lambda kinds: kinds["lease_lost"]),
    ("job_retried", lambda kinds: kinds["retried"]),
)


def _told_once(evidence: Evidence) -> Finding:
    result = Counter((notice["job"], notice["type"]) for notice in evidence.notices)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for event in evidence.events:
        kinds[event["job"]][event["type"]] += 1
    broken = [
        f"job {job['id']}: {result[job['id'], type_]} notifications {type_}, not {due(kinds[job['id']])}"
        for job in evidence.jobs
        for type_, due in NOTICES
        if result[job["id"], type_] != due(kinds[job["id"]])
    ]
    return _finding("an owner is told of each thing once", sum(result.values()), broken)


def _by_job(evidence: Evidence) -> dict[str, list[Entry]]:
    result: dict[str, list[Entry]] = {job["id"]: [] for job in evidence.jobs}
    for event in evidence.events:
        result.setdefault(event["job"], []).append(event)
    return result


def _numbered(evidence: Evidence) -> Finding:
    jobs = {job["id"]: job for job in evidence.jobs}

    def broken() -> Iterator[str]:
        for job_id, events in _by_job(evidence).items():
            job = jobs.get(job_id)
            if job is None:
                yield f"job {job_id} has events and is not there"
            elif [event["revision"] for event in events] != list(range(1, job["revision"] + 1)):
                yield f"job {job_id} has not the events 1 to {job['revision']}"
            elif events[-1]["status"] != job["status"]:
                yield f"job {job_id} is {job['status']}, its last event says {events[-1]['status']}"

    return _finding("every change has its event, numbered without gaps", len(evidence.events), broken())


def _forwards(evidence: Evidence) -> Finding:
    def broken() -> Iterator[str]:
        for job_id, events in _by_job(evidence).items():
            for before, after in pairwise(events):
                old, new = JobState(before["status"]), JobState(after["status"])
                if old in FINAL or (new != old and new not in TRANSITIONS[old]):
                    yield f"job {job_id} went from {old} to {new} with event {after['revision']}"
                if old == new == JobState.RUNNING and after["progress"] < before["progress"]:
                    yield f"job {job_id} lost progress with event {after['revision']}"

    return _finding("no job moves backwards, or at all once it ended", len(evidence.events), broken())


def _leases(evidence: Evidence) -> Finding:
    values: dict[tuple[str, int], set[str]] = defaultdict(set)
    for entry in _ok(evidence, "lease"):
        for lease in entry["leases"]:
            values[lease["job"], lease["epoch"]].add(lease["token"])
    leased = Counter(event["job"] for event in evidence.events if event["type"] == "leased")
    ended = Counter(cost["job"] for cost in evidence.costs)

    def broken() -> Iterator[str]:
        for (job, epoch), tokens in values.items():
            if len(tokens) > 1:
                yield f"lease {epoch} of job {job} was given {len(tokens)} times"
        for job in evidence.jobs:
            running = job["status"] in (JobState.INITIALIZING, JobState.RUNNING)
            if leased[job["id"]] != job["lease_epoch"]:
                yield f"job {job['id']}: {leased[job['id']]} events of being leased, {job['lease_epoch']} leases"
            if ended[job["id"]] != job["lease_epoch"] - running:
                yield f"job {job['id']}: {ended[job['id']]} ends of {job['lease_epoch']} leases"

    return _finding("a lease is given once and ends once", sum(leased.values()), broken())


def _stale(evidence: Evidence) -> Finding:
    later: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for entry in _ok(evidence, "lease"):
        for lease in entry["leases"]:
            later[lease["job"]].append((lease["epoch"], entry["ended"]))
    finished: dict[tuple[str, str], tuple[float, str]] = {}
    for entry in _ok(evidence, *RESULTS):
        key = entry["job"], entry["token"]
        finished[key] = min(finished.get(key, (entry["ended"], entry["op"])), (entry["ended"], entry["op"]))
    reports = list(_ok(evidence, "report", *RESULTS))
    tries: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in evidence.history:
        if entry["op"] in RESULTS and entry["outcome"] in ("ok", "unknown"):
            tries[entry["op"], entry["job"], entry["token"]].append(entry)

    def repeats(entry: Entry, before: float) -> bool:
        """Whether the same result was sent before that moment, while the lease held, and so may have been taken then."""
        return any(
            other is not entry and other["began"] < min(before, entry["began"]) and not other.get("expired")
            for other in tries.get((entry["op"], entry["job"], entry["token"]), ())
        )

    def broken() -> Iterator[str]:
        for entry in reports:
            job, epoch, op = entry["job"], entry["epoch"], entry["op"]
            passed_on = min((at for other, at in later[job] if other > epoch), default=math.inf)
            if passed_on < entry["began"] and not repeats(entry, passed_on):
                yield f"a {op} of lease {epoch} of job {job} was taken after a later lease was given"
            if entry.get("expired") and not repeats(entry, math.inf):
                yield f"a {op} of lease {epoch} of job {job} was taken after the lease had run out"
            at, end = finished.get((job, entry["token"]), (entry["began"], op))
            if at < entry["began"] and end != op:
                yield f"a {op} of lease {epoch} of job {job} was taken after its {end}"

    return _finding("no report of a lease that is over is taken", len(reports), broken())


def _results_stand(evidence: Evidence) -> Finding:
    jobs = {job["id"]: job for job in evidence.jobs}
    outcomes = {(cost["job"], cost["token"]): cost["outcome"] for cost in evidence.costs}
    results, cancelled = list(_ok(evidence, *RESULTS)), list(_ok(evidence, "cancel"))

    def broken() -> Iterator[str]:
        for entry in results:
            result = outcomes.get((entry["job"], entry["token"]))
            if result != RESULTS[entry["op"]]:
                yield f"lease {entry['epoch']} of job {entry['job']}: {entry['op']} was taken, and it ended as {result}"
            job = jobs.get(entry["job"])
            if job is None:
                continue  # lost, as another promise says
            if entry["op"] == "complete" and (job["status"], job["artifact_uri"]) != ("completed", entry["artifact"]):
                result = f"{job['status']} with {job['artifact_uri']}"
                yield f"job {entry['job']} was completed with {entry['artifact']}, and is {result}"
        for entry in cancelled:
            job = jobs.get(entry["job"])
            if job is not None and job["status"] != JobState.CANCELLED:
                yield f"job {entry['job']} was cancelled, and is {job['status']}"

    return _finding("an acknowledged result or cancellation stands", len(results) + len(cancelled), broken())


def _costs(evidence: Evidence) -> Finding:
    spent: dict[str, Any] = defaultdict(int)
    for cost in evidence.costs:
        spent[cost["job"]] += cost["cost_usd"]
    ended = [job for job in evidence.jobs if job["status"] in FINAL]
    broken = [
        f"job {job['id']} cost {job['final_cost']}, its leases {spent[job['id']]}"
        for job in ended
        if job["final_cost"] is None or abs(job["final_cost"] - spent[job["id"]]) > 1e-9
    ]
    return _finding("a job costs what its leases cost", len(ended), broken)


def _watched(evidence: Evidence) -> Finding:
    ends = {job["id"]: job["revision"] for job in evidence.jobs}
    # watcher → job → revision told last; jobs that a snapshot left out begin with their first event.
    result: dict[str, dict[str, int]] = defaultdict(dict)
    of_user: dict[str, set[str]] = defaultdict(set)
    for job in evidence.jobs:
        of_user[job["user_id"]].add(job["id"])
    looked_at, broken = 0, []
    for entry in evidence.history:
        if entry["op"] == "snapshot":
            result[entry["watcher"]].update(entry["revisions"])
        elif entry["op"] == "event":
            looked_at += 1
            seen, job, revision = result[entry["watcher"]], entry["job"], entry["revision"]
            expected = seen.get(job, 0 if entry["from_start"] else revision - 1) + 1
            if revision != expected:
                broken.append(f"watcher {entry['watcher']} got event {revision} of job {job} in place of {expected}")
            seen[job] = revision
        elif entry["op"] == "watch" and entry["outcome"].startswith("refused"):
            broken.append(f"watcher {entry['watcher']} could not go on: {entry['outcome']}")
        elif entry["op"] == "caught_up":
            seen = result[entry["watcher"]]
            expected_jobs = of_user[entry["user"]] if entry["from_start"] else set(seen)
            broken += [
                f"watcher {entry['watcher']} was told of job {job} up to {seen.get(job, 0)}, of {ends.get(job)}"
                for job in expected_jobs
                if seen.get(job, 0) != ends.get(job)
            ]
    return _finding("a watcher gets every event once and in order", looked_at, broken)


def _all_ended(evidence: Evidence) -> Finding:
    broken = [f"job {job['id']} is still {job['status']}" for job in evidence.jobs if job["status"] not in FINAL]
    return _finding("every job comes to an end", len(evidence.jobs), broken)


PROMISES = (
    _nothing_lost,
    _nothing_doubled,
    _told_once,
    _numbered,
    _forwards,
    _leases,
    _stale,
    _results_stand,
    _costs,
    _watched,
)

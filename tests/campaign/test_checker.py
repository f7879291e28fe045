"""The checker finds what is planted: a judge that lets everything pass proves nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.checker import Evidence, check, read_history

Plant = Callable[[dict[str, list[dict[str, Any]]]], None]
ANN = "ann"
JOB, OTHER = "job-1", "job-2"


def event(job: str, revision: int, type_: str, status: str, progress: float = 0.0) -> dict[str, Any]:
    """A row of job_events."""
    return {"job": job, "revision": revision, "type": type_, "status": status, "progress": progress}


def notice_of(job: str, revision: int) -> dict[str, Any]:
    """A watcher's entry."""
    return {
        "op": "event", "began": 9.0, "ended": 9.0, "outcome": "ok",
        "watcher": ANN, "from_start": True, "job": job, "revision": revision,
    }  # fmt: skip


def honest() -> dict[str, list[dict[str, Any]]]:
    """Two jobs of a quiet day: one lost its trainer, came to another and was completed; one was cancelled."""
    first = {"job": JOB, "token": "t1", "epoch": 1}
    second = {"job": JOB, "token": "t2", "epoch": 2}
    return {
        "history": [
            {"op": "create", "began": 1.0, "ended": 1.1, "outcome": "unknown", "user": ANN, "request_id": "k1"},
            {"op": "create", "began": 1.2, "ended": 1.3, "outcome": "ok", "user": ANN, "request_id": "k1", "job": JOB},
            {"op": "create", "began": 1.2, "ended": 1.3, "outcome": "ok", "user": ANN, "request_id": "k1", "job": JOB},
            {"op": "create", "began": 1.4, "ended": 1.5, "outcome": "ok", "user": ANN, "request_id": "k2", "job": OTHER},
            {"op": "lease", "began": 2.0, "ended": 2.1, "outcome": "ok", "leases": [first]},
            {"op": "report", "began": 2.2, "ended": 2.3, "outcome": "ok", **first},
            {"op": "lease", "began": 3.0, "ended": 3.1, "outcome": "ok", "leases": [second]},
            {"op": "report", "began": 3.2, "ended": 3.3, "outcome": "refused:LEASE_LOST", **first},
            {"op": "report", "began": 3.2, "ended": 3.3, "outcome": "ok", **second},
            {"op": "complete", "began": 4.0, "ended": 4.1, "outcome": "ok", "artifact": "file:///a", **second},
            {"op": "complete", "began": 4.2, "ended": 4.3, "outcome": "ok", "artifact": "file:///a", **second},
            {"op": "cancel", "began": 5.0, "ended": 5.1, "outcome": "ok", "user": ANN, "job": OTHER},
            {"op": "snapshot", "began": 0.0, "ended": 0.0, "outcome": "ok", "watcher": ANN, "revisions": {}},
            *[notice_of(JOB, revision) for revision in range(1, 8)],
            *[notice_of(OTHER, revision) for revision in (1, 2)],
            {"op": "caught_up", "began": 9.0, "ended": 9.0, "outcome": "ok", "watcher": ANN, "user": ANN, "from_start": True},
        ],
        "jobs": [
            {"id": JOB, "user_id": ANN, "request_id": "k1", "status": "completed", "revision": 7, "lease_epoch": 2,
             "artifact_uri": "file:///a", "final_cost": Decimal("0.3")},
            {"id": OTHER, "user_id": ANN, "request_id": "k2", "status": "cancelled", "revision": 2, "lease_epoch": 0,
             "artifact_uri": None, "final_cost": Decimal(0)},
        ],
        "events": [
            event(JOB, 1, "queued", "queued"),
            event(JOB, 2, "leased", "initializing"),
            event(JOB, 3, "started", "running", 50.0),
            event(JOB, 4, "lease_lost", "queued"),
            event(JOB, 5, "leased", "initializing"),
            event(JOB, 6, "started", "running", 10.0),
            event(JOB, 7, "completed", "completed", 100.0),
            event(OTHER, 1, "queued", "queued"),
            event(OTHER, 2, "cancelled", "cancelled"),
        ],
        "costs": [
            {"job": JOB, "lease_epoch": 1, "token": "t1", "outcome": "lease_expired", "cost_usd": Decimal("0.1")},
            {"job": JOB, "lease_epoch": 2, "token": "t2", "outcome": "completed", "cost_usd": Decimal("0.2")},
        ],
        "notices": [
            *[{"job": JOB, "type": f"job_{kind}"} for kind in ("queued", "started", "lease_lost", "completed")],
            *[{"job": OTHER, "type": f"job_{kind}"} for kind in ("queued", "cancelled")],
        ],
    }  # fmt: skip


def broken(tables: dict[str, list[dict[str, Any]]]) -> set[str]:
    """The promises that the checker says were broken."""
    return {finding.promise for finding in check(Evidence(**tables), all_final=True) if finding.broken}


def test_an_honest_history_passes() -> None:
    """Nothing is wrong, and every promise was looked at."""
    findings = check(Evidence(**honest()), all_final=True)
    assert [finding for finding in findings if finding.broken] == []
    assert all(finding.looked_at for finding in findings)


def _lost(tables: dict[str, list[dict[str, Any]]]) -> None:
    for name, column in (("jobs", "id"), ("events", "job"), ("notices", "job")):
        tables[name][:] = [row for row in tables[name] if row[column] != OTHER]
    tables["history"][:] = [
        entry for entry in tables["history"] if entry["op"] != "cancel" and entry.get("job") != OTHER
    ]
    tables["history"].insert(0, honest()["history"][3])


def _doubled(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["jobs"].append({**tables["jobs"][1], "id": "job-3"})
    tables["events"] += [event("job-3", 1, "queued", "queued"), event("job-3", 2, "cancelled", "cancelled")]
    tables["notices"] += [{"job": "job-3", "type": f"job_{kind}"} for kind in ("queued", "cancelled")]
    tables["history"][-1:-1] = [notice_of("job-3", 1), notice_of("job-3", 2)]


def _answered_twice(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"][3]["request_id"] = tables["jobs"][1]["request_id"] = "k1"


def _told_twice(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["notices"].append({"job": JOB, "type": "job_queued"})


def _not_told(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["notices"].remove({"job": JOB, "type": "job_completed"})


def _event_missing(tables: dict[str, list[dict[str, Any]]]) -> None:
    del tables["events"][3]


def _state_without_event(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["events"][-1] = event(OTHER, 2, "cancelled", "failed")


def _backwards(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["events"][4] = event(JOB, 5, "leased", "running", 10.0)


def _after_the_end(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["jobs"][1] |= {"revision": 3}
    tables["events"].append(event(OTHER, 3, "cancelled", "cancelled"))
    tables["notices"].append({"job": OTHER, "type": "job_cancelled"})
    tables["history"].insert(-1, notice_of(OTHER, 3))


def _progress_lost(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["events"][5] = event(JOB, 6, "started", "running", 10.0)
    tables["events"].insert(6, event(JOB, 7, "progress", "running", 5.0))
    tables["events"][7] = event(JOB, 8, "completed", "completed", 100.0)
    tables["jobs"][0]["revision"] = 8
    tables["history"].insert(-1, notice_of(JOB, 8))


def _leased_twice(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"].append(
        {
            "op": "lease",
            "began": 3.0,
            "ended": 9.0,
            "outcome": "ok",
            "leases": [{"job": JOB, "token": "t3", "epoch": 2}],
        }
    )


def _lease_without_end(tables: dict[str, list[dict[str, Any]]]) -> None:
    del tables["costs"][0]
    tables["jobs"][0]["final_cost"] = Decimal("0.2")


def _stale(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"][7]["outcome"] = "ok"


def _late_result(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"][7] |= {"op": "fail", "outcome": "ok"}
    tables["costs"][0]["outcome"] = "failed"


def _result_after_expiry(tables: dict[str, list[dict[str, Any]]]) -> None:
    for entry in tables["history"]:
        if entry["op"] == "complete":
            entry["expired"] = True


def _after_expiry(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"][5]["expired"] = True


def _after_its_result(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"].append({**tables["history"][8], "began": 6.0, "ended": 6.1})


def _result_undone(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["jobs"][0]["artifact_uri"] = "file:///b"


def _cancel_undone(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["jobs"][1]["status"] = "failed"
    tables["events"][-1] = event(OTHER, 2, "failed", "failed")
    tables["notices"][-1] = {"job": OTHER, "type": "job_failed"}


def _costs_differ(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["costs"][0]["cost_usd"] = Decimal("0.11")


def _gap(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"].remove(notice_of(JOB, 3))


def _repeated(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"].insert(-1, notice_of(JOB, 7))


def _end_not_told(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"].remove(notice_of(JOB, 7))


def _job_not_told(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"].remove(notice_of(OTHER, 1))
    tables["history"].remove(notice_of(OTHER, 2))


def _cursor_refused(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["history"].append(
        {"op": "watch", "began": 8.0, "ended": 8.1, "outcome": "refused:BAD_CURSOR", "watcher": ANN}
    )


def _never_ends(tables: dict[str, list[dict[str, Any]]]) -> None:
    tables["jobs"][1] |= {"status": "queued", "revision": 1}
    del tables["events"][-1]
    del tables["notices"][-1]
    tables["history"].remove(notice_of(OTHER, 2))
    tables["history"][:] = [entry for entry in tables["history"] if entry["op"] != "cancel"]


@pytest.mark.parametrize(
    ("plant", "promise"),
    [
        (_lost, "an acknowledged job is there"),
        (_doubled, "a request id has one job"),
        (_answered_twice, "a request id has one job"),
        (_told_twice, "an owner is told of each thing once"),
        (_not_told, "an owner is told of each thing once"),
        (_event_missing, "every change has its event, numbered without gaps"),
        (_state_without_event, "every change has its event, numbered without gaps"),
        (_backwards, "no job moves backwards, or at all once it ended"),
        (_after_the_end, "no job moves backwards, or at all once it ended"),
        (_progress_lost, "no job moves backwards, or at all once it ended"),
        (_leased_twice, "a lease is given once and ends once"),
        (_lease_without_end, "a lease is given once and ends once"),
        (_stale, "no report of a lease that is over is taken"),
        (_late_result, "no report of a lease that is over is taken"),
        (_result_after_expiry, "no report of a lease that is over is taken"),
        (_after_expiry, "no report of a lease that is over is taken"),
        (_after_its_result, "no report of a lease that is over is taken"),
        (_result_undone, "an acknowledged result or cancellation stands"),
        (_cancel_undone, "an acknowledged result or cancellation stands"),
        (_costs_differ, "a job costs what its leases cost"),
        (_gap, "a watcher gets every event once and in order"),
        (_repeated, "a watcher gets every event once and in order"),
        (_end_not_told, "a watcher gets every event once and in order"),
        (_job_not_told, "a watcher gets every event once and in order"),
        (_cursor_refused, "a watcher gets every event once and in order"),
        (_never_ends, "every job comes to an end"),
    ],
)
def test_what_is_planted_is_found(plant: Plant, promise: str) -> None:
    """Each kind of loss, duplicate and step back breaks the promise that it is about, and was not there before."""
    tables = honest()
    assert broken(copy.deepcopy(tables)) == set()
    plant(tables)
    result = broken(tables)
    assert promise in result
    # A plant is one fault: few other promises see it too.
    assert len(result) <= 3, result


def test_a_result_may_be_repeated() -> None:
    """A result that was sent while the lease held is no stale report when it is sent again after that."""
    tables = honest()
    first = {"op": "fail", "outcome": "unknown", "job": JOB, "token": "t1", "epoch": 1}
    tables["history"] += [
        {**first, "began": 2.5, "ended": 2.6},
        {**first, "began": 3.5, "ended": 3.6, "outcome": "ok", "expired": True},
    ]
    tables["costs"][0]["outcome"] = "failed"
    assert broken(tables) == set()


def test_half_a_line_is_no_entry(tmp_path: Path) -> None:
    """A client that was killed while it wrote leaves what it wrote before."""
    (tmp_path / "a.jsonl").write_text('{"op": "create"}\n{"op": "lea')
    (tmp_path / "b.jsonl").write_text('{"op": "cancel"}\n')
    assert [entry["op"] for entry in read_history(tmp_path)] == ["create", "cancel"]

"""Rows of every table: the callers' own, other people's, and forged ones, whose parts belong to different people.

A row whose key an earlier one has is only tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
TRAINER, OTHER = "eeeeeeee-0000-4000-8000-000000000001", "eeeeeeee-0000-4000-8000-000000000002"
OWNERS = {"ann": ANN, "bob": BOB}
LEASE = {"lease_epoch": 2, "lease_started_at": "2026-01-01"}
FORECAST = {
    "base_model": "x",
    "model_family": "x",
    "forecast_p10_seconds": 1,
    "forecast_seconds": 1,
    "forecast_p90_seconds": 1,
}
# Of which owner and of which job the rows about jobs are. The jobs are numbered as in _jobs().
ABOUT_JOBS = {
    "ann's queued": (ANN, 1),
    "bob's queued": (BOB, 2),
    "ann's with the trainer": (ANN, 3),
    "bob's with the trainer": (BOB, 4),
    "bob's with another": (BOB, 5),
    "ann's of bob's job": (ANN, 5),
    "bob's of ann's job": (BOB, 3),
}

Labelled = tuple[str, str, dict[str, Any]]


def number_id(number: int, kind: int = 1) -> str:
    """A UUID of a number and a kind of things."""
    return f"{number:08x}-{kind:04x}-4000-8000-000000000000"


def rows() -> Iterator[Labelled]:
    """Every row as table, label and columns."""
    yield from _jobs()
    for label, (owner, job) in ABOUT_JOBS.items():
        about = {"job_id": number_id(job), "user_id": owner}
        event = {"type": "progress", "status": "running", "data": {}, "xid": "10"}
        yield "job_events", label, about | event | {"revision": 1}
        yield "job_metrics", label, about | {"step": 1, "epoch": 1, "lease_epoch": 2, "values": {}}
        path = f"artifacts/{number_id(job)}/{owner[0]}"
        yield "job_artifact_files", label, about | _artifact(path, owner)
        yield "unclaimed_files", f"result of {label}", {"path": path, "user_id": owner}
        yield "lora_notifications", label, {"user_id": owner} | _notification(job_id=number_id(job))
    yield "job_events", "ann's of a later revision", _about(ANN, 1) | event | {"revision": 2}
    yield "job_events", "the trainer's of a later revision", _about(ANN, 3) | event | {"revision": 2}
    yield "job_events", "old change", _about(BOB, 5) | event | {"revision": 0, "type": "queued", "xid": "9"}
    of_lease_1 = {"step": 7, "epoch": 1, "lease_epoch": 1, "values": {}}
    yield "job_metrics", "of an earlier lease of the trainer", _about(ANN, 3) | of_lease_1
    of_lease_1 = _artifact(f"artifacts/{number_id(3)}/old", ANN) | {"lease_epoch": 1}
    yield "job_artifact_files", "of an earlier lease of the trainer", _about(ANN, 3) | of_lease_1
    yield from _costs()
    for label, owner in OWNERS.items():
        yield "lora_notifications", f"{label}'s of no job", {"user_id": owner} | _notification()
        yield (
            "lora_notifications",
            f"{label}'s of {label}'s webhook",
            {"user_id": owner} | _notification(webhook_id=number_id(1 + (owner == BOB), 5)),
        )
        yield "unclaimed_files", f"dataset of {label}", {"path": f"datasets/{owner}/new.jsonl", "user_id": owner}
        yield "lora_datasets", f"{label}'s", {"user_id": owner} | _dataset(1 + (owner == BOB), f"datasets/{owner}/1")
        yield "disabled_users", label, {"user_id": owner}
        yield "webhook_uses", label, {"user_id": owner}
        yield "webhook_deliveries", f"{label}'s", _delivery(owner, owner)
        attempt = {"delivery_id": number_id(1 + (owner == BOB), 6), "number": 1}
        yield "webhook_attempts", f"{label}'s", {"user_id": owner} | attempt
    forged = {"path": f"datasets/{BOB}/1", "user_id": ANN}
    yield "unclaimed_files", "ann's of bob's dataset", forged
    yield "lora_datasets", "ann's with bob's file", {"user_id": ANN} | _dataset(3, f"datasets/{BOB}/1")
    outside = f"datasets/{ANN}/../{BOB}/1"
    yield "lora_datasets", "ann's with a path to bob's file", {"user_id": ANN} | _dataset(4, outside)
    webhook = _notification(webhook_id=number_id(2, 5))
    yield "lora_notifications", "ann's of bob's webhook", {"user_id": ANN} | webhook
    yield "webhook_deliveries", "ann's to bob's webhook", _delivery(ANN, BOB)
    yield from _quotes_and_webhooks()
    yield from _keys()
    for number, (label, owner, action, job) in enumerate(
        [
            ("ann's download", ANN, "artifact_downloaded", 1),
            ("ann's download of bob's", ANN, "artifact_downloaded", 2),
            ("ann's creation", ANN, "job_created", 1),
            ("bob's download", BOB, "artifact_downloaded", 2),
            ("the trainer's key", TRAINER, "api_key_created", 1),
        ]
    ):
        event = {"id": 900 + number, "user_id": owner, "action": action, "resource_id": number_id(job)}
        yield "audit_events", label, event
    for label, worker in (("the trainer's", TRAINER), ("another's", OTHER)):
        yield "trainer_offers", label, {"worker_id": worker, "gpu_type": "x", "gpu_count": 1}
        yield "withdrawn_workers", label, {"worker_id": worker, "reason": "x"}


def _about(owner: str, job: int) -> dict[str, Any]:
    return {"job_id": number_id(job), "user_id": owner}


def _jobs() -> Iterator[Labelled]:
    def job(number: int, owner: str, status: str, **columns: Any) -> dict[str, Any]:
        row = {
            "id": number_id(number),
            "user_id": owner,
            "dataset_id": number_id(1 + (owner == BOB), 2),
            "preset_id": "fast",
            "hyperparameters": {},
            "gpu_config": {"type": "A100-80GB", "count": 1},
            "estimated_total_cost": 1,
            "hourly_rate": 1,
            "total_epochs": 1,
            "total_steps": 1,
            "revision": 1,
            "status": status,
        }
        if status in ("completed", "cancelled"):
            row |= {"completed_at": "2026-01-01", "final_cost": 0}
        if "worker_id" in columns:
            row |= LEASE | {"lease_token": number_id(number, 3)}
        if status == "running":
            row["lease_expires_at"] = "2027-01-01"
        return row | columns

    for label, row in {
        "ann's queued": job(1, ANN, "queued"),
        "bob's queued": job(2, BOB, "queued"),
        "ann's with the trainer": job(3, ANN, "running", worker_id=TRAINER),
        "bob's with the trainer": job(4, BOB, "running", worker_id=TRAINER),
        "bob's with another": job(5, BOB, "running", worker_id=OTHER),
        "ann's cancelled": job(6, ANN, "cancelled", worker_id=OTHER),
        "bob's cancelled": job(7, BOB, "cancelled", worker_id=OTHER),
        "bob's with a forecast": job(8, BOB, "completed", **FORECAST),
        "ann's that retries bob's": job(9, ANN, "queued", retried_from=number_id(2)),
        "ann's with bob's quote": job(10, ANN, "queued", quote_id=number_id(2, 4)),
        "ann's of a later revision": job(11, ANN, "queued", revision=2),
        "ann's with a forecast": job(12, ANN, "completed", **FORECAST),
    }.items():
        yield "lora_training_jobs", label, row


def _costs() -> Iterator[Labelled]:
    def cost(job: int, owner: str, worker: str, **columns: Any) -> dict[str, Any]:
        row = {
            "lease_epoch": 2,
            "attempt": 1,
            "worker_id": worker,
            "lease_token": number_id(job, 3),
            "outcome": "cancelled",
            "hourly_rate": 1,
            "billed_seconds": 0,
            "cost_usd": 0,
            "started_at": "2026-01-01",
            "ended_at": "2026-01-01",
        }
        return _about(owner, job) | row | columns

    for label, row in {
        "ann's cancelled": cost(6, ANN, OTHER),
        "bob's cancelled": cost(7, BOB, OTHER),
        "ann's with the trainer": cost(3, ANN, TRAINER),
        "bob's with the trainer": cost(4, BOB, TRAINER),
        "bob's with another": cost(5, BOB, OTHER),
        "ann's cancelled of another outcome": cost(6, ANN, OTHER, outcome="completed"),
        "ann's cancelled of another lease": cost(6, ANN, OTHER, lease_epoch=3),
        "ann's cancelled of another token": cost(6, ANN, OTHER, lease_token=number_id(5, 3)),
        "ann's cancelled of another amount": cost(6, ANN, OTHER, cost_usd=1),
        "ann's of bob's job": cost(7, ANN, OTHER),
        "bob's of ann's job": cost(3, BOB, TRAINER),
        "the trainer's of another lease": cost(3, ANN, TRAINER, lease_epoch=3),
        "the trainer's of another token": cost(3, ANN, TRAINER, lease_token=number_id(5, 3)),
        "the trainer's of another's job": cost(5, BOB, TRAINER),
    }.items():
        yield "cost_records", label, row


def _artifact(path: str, name: str) -> dict[str, Any]:
    return {"lease_epoch": 2, "name": name, "size": 1, "sha256": "", "path": path}


def _notification(**metadata: str) -> dict[str, Any]:
    return {"type": "webhook_disabled", "title": "x", "message": "x", "metadata": metadata}


def _dataset(number: int, path: str) -> dict[str, Any]:
    return {"id": number_id(number, 2), "name": "x", "status": "ready", "storage_path": path}


def _delivery(owner: str, receiver: str) -> dict[str, Any]:
    webhook = number_id(1 + (receiver == BOB), 5)
    return {"webhook_id": webhook, "user_id": owner, "type": "x", "body": "{}"}


def _quotes_and_webhooks() -> Iterator[Labelled]:
    for number, (label, owner) in enumerate(OWNERS.items(), 1):
        quote = {
            "id": number_id(number, 4),
            "user_id": owner,
            "dataset_id": number_id(number, 2),
            "terms": {},
            "configuration_digest": "\\x00",
            "dataset_revision": "x",
            "catalogue_version": "x",
            "cost_p50": 1,
            "request": "\\x00",
            "answer": "\\x00",
            "expires_at": "2099-01-01",
        }
        yield "lora_quotes", f"{label}'s", quote
        webhook = {"id": number_id(number, 5), "user_id": owner, "url": "x", "secret": "\\x" + "00" * 32}
        yield "webhooks", f"{label}'s", webhook


def _keys() -> Iterator[Labelled]:
    for number, (label, owner, role, expires_at) in enumerate(
        [
            ("ann's", ANN, "user", "2099-01-01"),
            ("ann's expired", ANN, "user", "2020-01-01"),
            ("ann's of a worker", ANN, "worker", "2099-01-01"),
            ("bob's", BOB, "user", "2099-01-01"),
            ("the trainer's", TRAINER, "worker", "2099-01-01"),
            ("the trainer's of a user", TRAINER, "user", "2099-01-01"),
        ]
    ):
        key = {
            "id": number_id(number, 7),
            "user_id": owner,
            "role": role,
            "name": "x",
            "key_hash": f"\\x{number:064x}",
            "prefix": "x",
            "scopes": ["worker" if role == "worker" else "read"],
            "created_at": expires_at,
            "expires_at": expires_at,
        }
        yield "api_keys", label, key

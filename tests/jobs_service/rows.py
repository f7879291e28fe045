"""Inserts rows into the tables directly, where calls would take too long."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from jobs_service.jobs.model import FINAL, JobState


def new_job(dataset_id: str, **columns: Any) -> dict[str, Any]:
    """Returns a job as the function create_job takes it."""
    return {
        "dataset_id": dataset_id,
        "preset_id": "fast",
        "hyperparameters": {"epochs": 1, "batch_size": 4, "rank": 8, "learning_rate": 0.0001},
        "gpu_config": {"type": "A100-80GB", "count": 1},
        "priority": 5,
        "allow_oom_risk": False,
        "labels": [],
        "max_attempts": 3,
        "total_epochs": 1,
        "total_steps": 1000,
        "estimated_total_cost": 1,
        "hourly_rate": 3.5,
        "storage_usd": 0.5,
        **columns,
    }


async def job_row(admin: asyncpg.Connection, dataset_id: str, user_id: str, status: str, **columns: Any) -> UUID:
    """Inserts a job in a state, as its transitions would have left it."""
    row: dict[str, Any] = {
        "user_id": user_id,
        "dataset_id": dataset_id,
        "preset_id": "fast",
        "hyperparameters": '{"epochs": 1, "batch_size": 4, "rank": 8, "learning_rate": 0.0001}',
        "gpu_config": '{"type": "A100-80GB", "count": 1}',
        "status": status,
        "total_epochs": 1,
        "total_steps": 1000,
        "estimated_total_cost": 1,
        "hourly_rate": 3.5,
        **columns,
    }
    values = {name: f"${number}" for number, name in enumerate(row, 1)}
    if status in FINAL:
        values |= {"completed_at": "now()", "final_cost": "0"}
    if status in (JobState.INITIALIZING, JobState.RUNNING):
        values |= {
            "worker_id": "gen_random_uuid()",
            "lease_token": "gen_random_uuid()",
            "lease_epoch": "1",
            "lease_started_at": "now()",
            "lease_expires_at": "now() + interval '1 hour'",
        }
    statement = (
        f"insert into lora_training_jobs ({', '.join(values)}) values ({', '.join(values.values())}) returning id"
    )
    return await admin.fetchval(statement, *row.values())

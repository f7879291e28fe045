"""What one writes in an afternoon: FastAPI and asyncpg, doing the same work on the same tables.

It checks the token, reads the dataset's row, computes, answers JSON; it queues a job with its notification in one
transaction and lists a user's jobs, of any status or one, with their total. It trusts its own `where user_id`: no
row-level security, no idempotency keys, no limit on open jobs, no log line, no request id.
"""

from __future__ import annotations

import math
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import asyncpg
import jwt
import orjson
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Query
from pydantic import BaseModel, Field

GPUS = {"A100-80GB": (3.5, 1800), "A100-40GB": (2.8, 1500), "H100": (4.2, 2200), "V100-32GB": (2.1, 1200)}
JOB_COLUMNS = (
    "j.id, j.user_id, j.dataset_id, j.preset_id, j.hyperparameters, j.gpu_config, j.status, j.current_stage, j.progress,"
    " j.current_epoch, j.total_epochs, j.current_step, j.total_steps, j.current_metrics, j.queued_at, j.started_at,"
    " j.completed_at, j.estimated_total_cost, j.client_estimated_cost, j.current_cost, j.final_cost, j.error_message,"
    " j.retry_count, j.external_job_id, j.artifact_id, j.created_at, j.updated_at"
)
OWN = "j.user_id = $1 and j.deleted_at is null and ($2::text is null or j.status = $2)"
Status = Literal["queued", "initializing", "running", "completed", "failed", "cancelled"]


class GpuConfig(BaseModel):
    """GPUs of a job."""

    type: str
    count: Annotated[int, Field(ge=1, le=8)]


class Hyperparameters(BaseModel):
    """How a job trains."""

    batch_size: Annotated[int, Field(ge=1, le=64)]
    epochs: Annotated[int, Field(ge=1, le=20)]
    learning_rate: Annotated[float, Field(ge=1e-5, le=1e-3)]
    rank: Annotated[int, Field(ge=4, le=128)]
    alpha: Annotated[float | None, Field(gt=0)] = None
    dropout: Annotated[float | None, Field(ge=0, lt=1)] = None


class EstimateBody(BaseModel):
    """What an estimate takes."""

    dataset_id: uuid.UUID
    gpu_config: GpuConfig
    hyperparameters: Hyperparameters


class NewJob(EstimateBody):
    """What a job takes."""

    preset_id: Literal["fast", "balanced", "quality", "custom"]
    estimated_cost: float | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the pool."""
    async with asyncpg.create_pool(os.environ["BENCH_DATABASE_URL"], min_size=1, max_size=10) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


def caller(authorization: Annotated[str, Header()]) -> uuid.UUID:
    """Who calls."""
    try:
        claims = jwt.decode(
            authorization.removeprefix("Bearer "),
            os.environ["BENCH_SECRET"],
            algorithms=["HS256"],
            audience="authenticated",
            issuer=os.environ["BENCH_ISSUER"],
        )
        return uuid.UUID(claims["sub"])
    except (jwt.InvalidTokenError, ValueError) as error:
        raise HTTPException(401, "Invalid token") from error


Caller = Annotated[uuid.UUID, Depends(caller)]


async def price(connection: Any, user: uuid.UUID, request: EstimateBody) -> tuple[dict[str, Any], asyncpg.Record]:
    """The reference estimate, and the dataset that it is of."""
    if request.gpu_config.type not in GPUS:
        raise HTTPException(400, "Unknown GPU type")
    row = await connection.fetchrow(
        "select name, format, status, training_ready, total_training_pairs, total_tokens from lora_datasets"
        " where id = $1 and user_id = $2 and deleted_at is null",
        request.dataset_id,
        user,
    )
    if row is None:
        raise HTTPException(404, "Dataset not found or access denied")
    if row["status"] != "ready" or not row["training_ready"]:
        raise HTTPException(400, "Dataset not ready for training")
    rate, speed = GPUS[request.gpu_config.type]
    pairs = row["total_training_pairs"] or 1000
    tokens = row["total_tokens"] or 200 * pairs
    batch, epochs = request.hyperparameters.batch_size, request.hyperparameters.epochs
    per_epoch = math.ceil(pairs / batch)
    steps = per_epoch * epochs
    throughput = speed * request.gpu_config.count
    hours = (steps * (tokens / pairs * batch) / throughput + 600 + 300 * epochs + 300) / 3600
    compute = rate * request.gpu_config.count * hours
    return {
        "estimated_cost": round(compute + 0.5, 2),
        "cost_breakdown": {"compute": round(compute, 2), "storage": 0.5},
        "estimated_duration_hours": round(hours, 2),
        "hourly_rate": rate * request.gpu_config.count,
        "training_details": {
            "total_steps": steps,
            "steps_per_epoch": per_epoch,
            "estimated_throughput_tokens_per_sec": throughput,
            "dataset_name": row["name"],
        },
    }, row


@app.post("/api/jobs/estimate")
async def estimate(request: EstimateBody, user: Caller) -> dict[str, Any]:
    """Prices a job."""
    async with app.state.pool.acquire() as connection:
        terms, _ = await price(connection, user, request)
    return {"success": True, "data": terms}


@app.post("/api/jobs", status_code=201)
async def create(request: NewJob, user: Caller) -> dict[str, Any]:
    """Queues a job and tells its owner."""
    async with app.state.pool.acquire() as connection, connection.transaction():
        terms, dataset = await price(connection, user, request)
        row = await connection.fetchrow(
            "insert into lora_training_jobs as j (user_id, dataset_id, preset_id, hyperparameters, gpu_config,"
            " total_epochs, total_steps, estimated_total_cost, client_estimated_cost, hourly_rate)"
            f" values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning {JOB_COLUMNS}",
            user,
            request.dataset_id,
            request.preset_id,
            request.hyperparameters.model_dump_json(),
            request.gpu_config.model_dump_json(),
            request.hyperparameters.epochs,
            terms["training_details"]["total_steps"],
            terms["estimated_cost"],
            request.estimated_cost,
            terms["hourly_rate"],
        )
        await connection.execute(
            "insert into lora_notifications (user_id, type, title, message, priority, action_url, metadata)"
            " values ($1, 'job_queued', 'Training Job Queued', $2, 'low', $3, $4)",
            user,
            f'Your training job for "{dataset["name"]}" has been queued and will start shortly',
            f"/training/jobs/{row['id']}",
            orjson.dumps({"job_id": str(row["id"]), "dataset_name": dataset["name"]}).decode(),
        )
    return {"success": True, "data": shown(row, dataset)}


@app.get("/api/jobs")
async def list_jobs(
    user: Caller,
    page: Annotated[int, Query(ge=1)] = 1,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    status: Status | None = None,
) -> dict[str, Any]:
    """A page of a user's jobs."""
    async with app.state.pool.acquire() as connection:
        rows = await connection.fetch(
            f"select {JOB_COLUMNS}, d.name, d.format, d.total_training_pairs from lora_training_jobs j"
            f" join lora_datasets d on d.id = j.dataset_id where {OWN} order by j.created_at desc, j.id desc"
            " limit $3 offset $4",
            user,
            status,
            limit,
            (page - 1) * limit,
        )
        total = await connection.fetchval(f"select count(*) from lora_training_jobs j where {OWN}", user, status)
    pagination = {"page": page, "limit": limit, "total": total, "totalPages": math.ceil(total / limit)}
    return {"success": True, "data": {"jobs": [shown(row, row) for row in rows], "pagination": pagination}}


def shown(row: asyncpg.Record, dataset: asyncpg.Record) -> dict[str, Any]:
    """A job as JSON has it."""
    job = dict(row)
    for name in ("name", "format", "total_training_pairs"):
        job.pop(name, None)
    for name in ("hyperparameters", "gpu_config", "current_metrics"):
        job[name] = orjson.loads(job[name])
    for name in ("estimated_total_cost", "client_estimated_cost", "current_cost", "final_cost"):
        job[name] = None if job[name] is None else float(job[name])
    seen = job["client_estimated_cost"]
    job["estimate_differs"] = seen is not None and abs(seen - job["estimated_total_cost"]) >= 0.005
    job["dataset"] = {name: dataset[name] for name in ("name", "format", "total_training_pairs")}
    return job


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", access_log=False, log_level="warning")

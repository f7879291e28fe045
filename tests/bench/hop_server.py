"""The least that a gateway can do: JSON in, one call over grpc.aio, JSON out; no token, no limits, no log."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import orjson
import uvicorn
from pipeline.estimator.v1 import estimator_pb2
from pipeline.estimator.v1.estimator_pb2_grpc import EstimatorServiceStub
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def estimate(request: Request) -> Response:
    """Forwards an estimate."""
    sent = orjson.loads(await request.body())
    answer = await request.app.state.stub.EstimateCost(
        estimator_pb2.EstimateCostRequest(
            dataset_id=sent["dataset_id"],
            gpu_config=estimator_pb2.GpuConfig(**sent["gpu_config"]),
            hyperparameters=estimator_pb2.Hyperparameters(**sent["hyperparameters"]),
        ),
        timeout=10,
    )
    parts, details = answer.cost_breakdown, answer.training_details
    shown = {
        "estimated_cost": answer.estimated_cost,
        "cost_breakdown": {"compute": parts.compute, "storage": parts.storage},
        "estimated_duration_hours": answer.estimated_duration_hours,
        "hourly_rate": answer.hourly_rate,
        "training_details": {
            "total_steps": details.total_steps,
            "steps_per_epoch": details.steps_per_epoch,
            "estimated_throughput_tokens_per_sec": details.estimated_throughput_tokens_per_sec,
            "dataset_name": details.dataset_name,
        },
    }
    return Response(orjson.dumps({"success": True, "data": shown}), media_type="application/json")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Opens the one channel."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{sys.argv[2]}") as channel:
        app.state.stub = EstimatorServiceStub(channel)
        yield


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[Route("/api/jobs/estimate", estimate, methods=["POST"])], lifespan=lifespan),
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_level="warning",
    )

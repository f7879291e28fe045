"""What the tests of the Estimator ask, and how they read a refusal."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

ANN, BOB = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
BALANCED = {"batch_size": 4, "epochs": 3, "learning_rate": 5e-5, "rank": 16}
LLAMA = "llama-3.1-8b"


def configuration(dataset_id: str, **fields: Any) -> dict[str, Any]:
    """The Balanced preset on two A100-80GB."""
    return {
        "dataset_id": dataset_id,
        "gpu_config": {"type": "A100-80GB", "count": 2},
        "hyperparameters": BALANCED,
        **fields,
    }


def refusal(error: grpc.aio.AioRpcError) -> tuple[str, str, dict[str, str]]:
    """(code, reason, details by field; those of no field under "")."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    fields = {each.field: each.description for each in bad.field_violations}
    return error.code().name, info.reason, fields or {"": info.metadata["details"]}

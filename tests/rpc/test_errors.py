"""Errors and their contract."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from pipeline.errors.v1 import errors_pb2

import estimator_service.errors
import gateway.errors
import jobs_service.errors
from rpc.errors import (
    FailedPrecondition,
    InvalidArgument,
    LimitReached,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)

HOMES = {"rpc.errors", estimator_service.errors.__name__, gateway.errors.__name__, jobs_service.errors.__name__}
# Only their subclasses are raised.
BASES = {
    FailedPrecondition,
    InvalidArgument,
    LimitReached,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
}


def kinds(of: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    """Every error there is."""
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


def test_every_error_has_its_reason_in_the_contract() -> None:
    """Each error's status is one of gRPC's, its reason one of the contract's, and its home one of these."""
    for kind in kinds():
        assert kind.code in grpc.StatusCode.__members__, kind
        assert kind in BASES or f"ERROR_REASON_{kind.reason}" in dict(errors_pb2.ErrorReason.items()), kind
        assert kind.__module__ in HOMES, kind
